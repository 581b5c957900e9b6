import type { CodecOptions } from "@tsproxy/sdk";
import { HeaderMap, latin1Encode, type RequestHeaders } from "@tsproxy/sdk";
import {
  CODEC_OPTIONS,
  LentChunk,
  requestHeaders,
  TestClientEvents,
  TestConnection,
  TestContext,
  TestServerEvents,
} from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import http1 from "./filter.ts";

const remote = { by: "remote", phase: "connected", timeout: false, error: undefined } as const;
const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

function open(options: Partial<CodecOptions> = {}) {
  const connection = new TestConnection();
  const events = new TestClientEvents();
  const factory = new TestContext().setup(http1, {});
  const codec = factory.createClient(connection, events, { ...CODEC_OPTIONS, ...options });
  const send = (text: string) => {
    const chunk = new LentChunk(text);
    codec.onData(chunk);
    chunk.used();
  };
  const ask = (
    headers: RequestHeaders = requestHeaders("GET", "/", "host", "a"),
    endStream = true,
    upgrade = "",
  ) => {
    const encoder = codec.newStream(events);
    encoder.encodeHeaders(headers, endStream, upgrade);
    return encoder;
  };
  return { connection, events, codec, send, ask };
}

/** A request head as the server side parses it from the wire; `then` sees it while its bytes are there. */
function decoded(wire: string, then: (headers: RequestHeaders) => void): void {
  const events = new TestServerEvents();
  const factory = new TestContext().setup(http1, {});
  const codec = factory.createServer(new TestConnection(), events, {
    ...CODEC_OPTIONS,
    acceptHttp10: true,
  });
  events.onHead = ({ headers }) => then(headers);
  codec.onData(new LentChunk(wire));
  expect(events.log[0]).toMatch(/^head /);
}

/** What an upstream gets for a request that came as `wire`, after `edit`. */
function forwarded(
  wire: string,
  edit: (headers: RequestHeaders) => void = () => {},
  options: Partial<CodecOptions> = {},
): string {
  const { connection, ask } = open(options);
  decoded(wire, (headers) => {
    headers.scheme = "http"; // as the connection manager does
    edit(headers);
    ask(headers);
  });
  return connection.take();
}

describe("a request head", () => {
  it("is forwarded as it came, names in lower case", () => {
    expect(forwarded("GET /a?b HTTP/1.1\r\nHost: a\r\nX-Y: Z\r\nUser-Agent: me\r\n\r\n")).toBe(
      "GET /a?b HTTP/1.1\r\nhost: a\r\nx-y: Z\r\nuser-agent: me\r\n\r\n",
    );
  });

  it("is put right where it was written otherwise", () => {
    expect(forwarded("GET / HTTP/1.1\nHost:a\nX:  y \t\r\nE:\r\nZ: 1\r\n\r\n")).toBe(
      "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\ne: \r\nz: 1\r\n\r\n",
    );
  });

  it("names the whole URL to an upstream that wants it, as edits have it", () => {
    const options = { sendsAbsoluteUrl: true };
    const wire = "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n";
    expect(forwarded(wire, undefined, options)).toBe(
      "GET http://a/a?b HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    const edit = (headers: RequestHeaders) => {
      headers.scheme = "https";
      headers.authority = "b:8443";
      headers.path = "/é";
    };
    expect(forwarded(wire, edit, options)).toBe(
      "GET https://b:8443/%E9 HTTP/1.1\r\nhost: b:8443\r\n\r\n",
    );
    expect(forwarded("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", undefined, options)).toMatch(
      /^OPTIONS http:\/\/a HTTP\/1.1\r\n/,
    );
  });

  it("of HTTP/1.0 becomes HTTP/1.1", () => {
    expect(forwarded("GET / HTTP/1.0\r\nHost: a\r\n\r\n")).toBe(
      "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    );
  });

  it("loses what was removed and gains what was added", () => {
    const wire = "GET / HTTP/1.1\r\nA: 1\r\nHost: a\r\nB: 2\r\nConnection: close\r\nC: 3\r\n\r\n";
    const edit = (headers: RequestHeaders) => {
      headers.remove("a");
      headers.set("b", "4");
      headers.append("x", "5");
    };
    expect(forwarded(wire, edit)).toBe("GET / HTTP/1.1\r\nhost: a\r\nc: 3\r\nb: 4\r\nx: 5\r\n\r\n");
  });

  it("has the edited method and path, and never white space in them", () => {
    const edit = (headers: RequestHeaders) => {
      headers.method = "PU T";
      headers.path = "/a b\xe9";
    };
    expect(forwarded("GET / HTTP/1.1\r\nHost: a\r\n\r\n", edit)).toBe(
      "PUT /a%20b%E9 HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
    );
  });

  it("in absolute-form becomes origin-form with the target's host", () => {
    expect(forwarded("GET http://b:81/x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n")).toBe(
      "GET /x HTTP/1.1\r\nhost: b:81\r\nx: y\r\n\r\n",
    );
    expect(forwarded("GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n")).toBe(
      "GET /?q HTTP/1.1\r\nhost: b\r\n\r\n",
    );
  });

  it("never carries framing that a filter has added", () => {
    const edit = (headers: RequestHeaders) => {
      headers.append("transfer-encoding", "gzip");
      headers.append("connection", "close");
      headers.append("upgrade", "x");
    };
    expect(forwarded("GET / HTTP/1.1\r\nHost: a\r\n\r\n", edit)).toBe(
      "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    );
  });

  it("says that there is no body only where its method would have one", () => {
    expect(forwarded("POST / HTTP/1.1\r\nHost: a\r\n\r\n")).toContain("content-length: 0\r\n");
    expect(forwarded("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n")).not.toContain("content-length");
  });
});

describe("a request body", () => {
  it("is chunked when there is no length", () => {
    const { connection, ask } = open();
    const encoder = ask(requestHeaders("POST", "/", "host", "a"), false);
    encoder.encodeBody(latin1Encode("hello"), 0, 5, false);
    encoder.encodeBody(latin1Encode(""), 0, 0, true);
    expect(connection.take()).toBe(
      "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
  });

  it("goes out with its trailers where they are enabled", () => {
    const { connection, ask } = open({ enableTrailers: true });
    const encoder = ask(requestHeaders("POST", "/", "host", "a"), false);
    const trailers = new HeaderMap();
    trailers.append("x-t", "1");
    encoder.encodeTrailers(trailers);
    expect(connection.take()).toContain("\r\n\r\n0\r\nx-t: 1\r\n\r\n");
  });

  it("that is shorter than announced costs the connection", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask(requestHeaders("POST", "/", "host", "a", "content-length", "9"), false);
    encoder.encodeBody(latin1Encode("hello"), 0, 5, true);
    send(OK);
    expect(events.take().slice(-1)).toEqual(["retire"]);
    expect(connection.closed).toBe("flush");
  });
});

describe("responses", () => {
  it("keep the words behind their status where that is configured, in pieces too", () => {
    const reasonOf = (forwardsReason: boolean, ...pieces: string[]) => {
      const { events, send, ask } = open({ headerKeyFormat: "preserve_case", forwardsReason });
      let reason: string | undefined;
      events.onHead = () => {
        reason = events.responseHeaders.reason;
      };
      ask();
      for (const piece of pieces) send(piece);
      expect(events.log[0]).toMatch(/^head 200 /);
      return reason;
    };
    const rest = "\r\nX-A: 1\r\ncontent-length: 0\r\n\r\n";
    expect(reasonOf(true, `HTTP/1.1 200 All Is Well${rest}`)).toBe("All Is Well");
    expect(reasonOf(true, "HTTP/1.1 200 All I", `s Well${rest}`)).toBe("All Is Well");
    expect(reasonOf(false, `HTTP/1.1 200 All Is Well${rest}`)).toBeUndefined();
    for (const none of ["", " "])
      expect(reasonOf(true, `HTTP/1.1 200${none}${rest}`)).toBeUndefined();
  });

  type Case = readonly [
    why: string,
    wire: string,
    events: readonly string[],
    options?: Partial<CodecOptions>,
  ];
  const BAD = ["retire", "error 502 http1.codec_error"];
  const book: readonly Case[] = [
    ["with a length", OK, ["head 200 [content-length: 2]", "body ok", "end", "idle"]],
    [
      "with none",
      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
      ["head 200 end [content-length: 0]", "idle"],
    ],
    [
      "without a reason",
      "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
      ["head 200 end [content-length: 0]", "idle"],
    ],
    [
      "without even the space before it",
      "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
      ["head 200 end [content-length: 0]", "idle"],
    ],
    [
      "with lines that end with LF",
      "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
      ["head 200 [content-length: 2]", "body ok", "end", "idle"],
    ],
    [
      "of a status that nobody knows",
      "HTTP/1.1 799 Eh\r\nContent-Length: 0\r\n\r\n",
      ["head 799 end [content-length: 0]", "idle"],
    ],
    [
      "chunked",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
      ["head 200 []", "body ok", "end", "idle"],
    ],
    [
      "with trailers",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
      ["head 200 []", "body ok", "trailers [x-t: 1]", "idle"],
      { enableTrailers: true },
    ],
    ["204", "HTTP/1.1 204 No Content\r\n\r\n", ["head 204 end []", "idle"]],
    [
      "204 that says a length of 0",
      "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
      ["head 204 end []", "idle"],
    ],
    [
      "304 that says a length",
      "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
      ["head 304 end [content-length: 9]", "idle"],
    ],
    [
      "after 1xx",
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
      ["informational 100 []", "informational 103 [link: x]", "head 204 end []", "idle"],
    ],
    [
      "that close",
      "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
      ["retire", "head 200 [content-length: 2]", "body ok", "end"],
    ],
    [
      "of HTTP/1.0",
      "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
      ["retire", "head 200 [content-length: 2]", "body ok", "end"],
    ],
    [
      "of HTTP/1.0 with keep-alive",
      "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
      ["head 200 [content-length: 2]", "body ok", "end", "idle"],
    ],
    [
      "with hop-by-hop headers",
      "HTTP/1.1 200 OK\r\nConnection: x-h, transfer-encoding\r\nX-H: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
      ["head 200 end [content-length: 0]", "idle"],
    ],
    [
      "with a Host line, which means nothing there",
      "HTTP/1.1 200 OK\r\nHost: a b\r\nContent-Length: 0\r\n\r\n",
      ["head 200 end [host: a b, content-length: 0]", "idle"],
    ],
    [
      "until the end of the connection",
      "HTTP/1.1 200 OK\r\n\r\nthe rest",
      ["retire", "head 200 []", "body the rest"],
    ],
    [
      "followed by bytes that nobody asked for",
      `${OK}HTTP/1.1 200 OK\r\n\r\n`,
      ["head 200 [content-length: 2]", "body ok", "end", "idle", "failed", "retire"],
    ],
    ["that are no HTTP", "SSH-2.0-OpenSSH\r\n", BAD],
    ["of HTTP/2", "HTTP/2 200 OK\r\n\r\n", BAD],
    ["of a status below 100", "HTTP/1.1 099 No\r\n\r\n", BAD],
    ["of a status of two digits", "HTTP/1.1 20 OK\r\n\r\n", BAD],
    ["of a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", BAD],
    ["with a tab after the version", "HTTP/1.1\t200 OK\r\n\r\n", BAD],
    ["with a folded line (RFC 9112 §5.2)", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", BAD],
    ["with NUL in the reason", "HTTP/1.1 200 O\0K\r\n\r\n", BAD],
    [
      "with two lengths",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
      BAD,
    ],
    ["with a bad length", "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok", BAD],
    [
      "with a length and chunks",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["retire", "error 502 http1.content_length_and_chunked_not_allowed"],
    ],
    [
      "with a coding that nobody reads",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      ["retire", "error 502 http1.invalid_transfer_encoding"],
    ],
    [
      "of HTTP/1.0 with chunks",
      "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["retire", "error 502 http1.transfer_encoding_not_allowed"],
    ],
    [
      "204 with chunks",
      "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["retire", "error 502 http1.transfer_encoding_not_allowed"],
    ],
    [
      "204 with a length",
      "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
      ["retire", "error 502 http1.content_length_not_allowed"],
    ],
    [
      "101 that nobody asked for",
      "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
      BAD,
    ],
    [
      "with a bad chunk",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokx\r\n0\r\n\r\n",
      ["head 200 []", "body ok", "retire", "reset protocol_error"],
    ],
    [
      "with more lines than allowed",
      "HTTP/1.1 200 OK\r\nA: 1\r\nB: 1\r\nC: 1\r\n\r\n",
      ["retire", "error 502 http1.too_many_headers"],
      { maxHeaders: 2 },
    ],
    [
      "with 1xx without end",
      "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(101),
      [
        ...Array.from({ length: 100 }, () => "informational 103 []"),
        "retire",
        "error 502 http1.too_many_headers",
      ],
    ],
  ];

  for (const [why, wire, expected, options] of book) {
    it(why, () => {
      const { events, ask, send } = open(options);
      ask();
      send(wire);
      expect(events.take()).toEqual(expected);
    });
  }

  it("give the same events however the bytes are cut", () => {
    for (const [why, wire, expected, options] of book) {
      if (why.startsWith("followed") || wire.length > 1000) continue;
      for (let cut = 1; cut < wire.length; cut++) {
        const { events, ask, send } = open(options);
        ask();
        send(wire.slice(0, cut));
        send(wire.slice(cut));
        expect(events.take(), `${why}, cut at ${cut}`).toEqual(expected);
      }
      const { events, ask, send } = open(options);
      ask();
      for (const byte of wire) send(byte);
      expect(events.take(), `${why}, in single bytes`).toEqual(expected);
    }
  });

  it("to HEAD have no body, whatever they say", () => {
    const { events, ask, send } = open();
    ask(requestHeaders("HEAD", "/", "host", "a"));
    send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    expect(events.take()).toEqual(["head 200 end [content-length: 9]", "idle"]);
  });

  it("leave their trailers to the receiver: those of the next one do not overwrite them", () => {
    const { events, send, ask } = open({ enableTrailers: true });
    const kept: HeaderMap[] = [];
    events.onResponseTrailers = (trailers) => {
      trailers.detach();
      kept.push(trailers);
    };
    for (const value of ["1", "2"]) {
      ask();
      send(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: ${value}\r\n\r\n`);
    }
    expect(kept.map((trailers) => trailers.get("x-t"))).toEqual(["1", "2"]);
  });

  it("without a length end with the connection", () => {
    const { connection, events, codec, ask, send } = open();
    ask();
    send("HTTP/1.1 200 OK\r\n\r\nrest");
    codec.onEof();
    expect(events.take()).toEqual(["retire", "head 200 []", "body rest", "end"]);
    expect(connection.closed).toBe("flush");
  });

  it("without a length that end with RST were cut", () => {
    const { events, codec, ask, send } = open();
    ask();
    send("HTTP/1.1 200 OK\r\n\r\nrest");
    codec.onClosed({ ...remote, error: "ECONNRESET" });
    expect(events.take().at(-1)).toBe("reset connection_closed");
  });

  it("that break off are reset", () => {
    for (const [wire, reason] of [
      ["", "connection_closed"],
      ["HTTP/1.1 2", "protocol_error"],
      ["HTTP/1.1 100 Continue\r\n\r\n", "connection_closed"],
      ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", "connection_closed"],
      ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "connection_closed"],
    ] as const) {
      const { connection, events, codec, ask, send } = open();
      ask();
      if (wire !== "") send(wire);
      codec.onEof();
      expect(events.take().slice(-2), wire).toEqual(["retire", `reset ${reason}`]);
      expect(connection.closed).toBe("abort");
      codec.onClosed(remote);
      expect(events.take()).toEqual([]);
    }
  });

  it("that never came because nobody connected are told so", () => {
    const { events, codec, ask } = open();
    ask();
    codec.onClosed({ ...remote, phase: "connecting", error: "ECONNREFUSED" });
    expect(events.take()).toEqual(["retire", "reset connection_failed"]);
  });
});

it("lists the stats of a cluster that has only attempted a connection", () => {
  const cx = new TestContext();
  cx.setup(http1, {}).listStats!(cx.stats.scope("cluster.c."));
  expect(cx.stats.values.has("cluster.c.http1.response_flood")).toBe(true);
});

describe("the connection", () => {
  it("is reused for one exchange after the other", () => {
    const { events, ask, send } = open();
    ask();
    send(OK);
    ask();
    send(OK);
    expect(events.take().filter((line) => line === "idle")).toHaveLength(2);
  });

  it("closes once a retiring exchange is over", () => {
    const { connection, ask, send } = open();
    ask();
    send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\no");
    expect(connection.closed).toBeUndefined();
    send("k");
    expect(connection.closed).toBe("flush");
  });

  it("leaves the pool when bytes come that nobody asked for", () => {
    const { connection, events, send } = open();
    send("HTTP/1.1 408 Request Timeout\r\n\r\n");
    expect(events.take()).toEqual(["retire"]);
    expect(connection.closed).toBe("flush");
  });

  it("ends the exchange when more bytes than its response come, and is not used again", () => {
    const { connection, events, ask, send } = open();
    ask();
    send(`${OK}more`);
    expect(events.take().slice(-3)).toEqual(["idle", "failed", "retire"]);
    expect(connection.closed).toBe("flush");
  });

  it("closes after a response that says so in Proxy-Connection", () => {
    const { connection, ask, send } = open();
    ask();
    send("HTTP/1.1 200 OK\r\nProxy-Connection: close\r\nContent-Length: 0\r\n\r\n");
    expect(connection.closed).toBe("flush");
  });

  it("leaves the pool when the upstream ends it", () => {
    const { connection, events, codec } = open();
    codec.onEof();
    expect(events.take()).toEqual(["retire"]);
    expect(connection.closed).toBe("flush");
  });

  it("is not used again when the answer was complete before the request", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask(requestHeaders("POST", "/", "host", "a", "content-length", "9"), false);
    send(OK);
    expect(events.take().slice(-2)).toEqual(["end", "retire"]);
    expect(connection.closed).toBe("flush");
    connection.take();
    encoder.encodeBody(latin1Encode("hello"), 0, 5, true);
    expect(connection.take()).toBe("");
  });

  it("goes on when the answer only began before the request was complete", () => {
    const { events, ask, send } = open();
    const encoder = ask(requestHeaders("POST", "/", "host", "a", "content-length", "5"), false);
    send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    encoder.encodeBody(latin1Encode("hello"), 0, 5, true);
    send("k");
    expect(events.take()).toEqual(["head 200 [content-length: 2]", "body ok", "end", "idle"]);
  });

  it("closes when an exchange is given up, and its decoder hears nothing more", () => {
    const { connection, events, codec, ask } = open();
    ask().reset();
    expect(connection.closed).toBe("abort");
    codec.onClosed({ ...remote, by: "local" });
    expect(events.take()).toEqual(["retire"]);
  });

  it("survives a reset after the exchange was complete", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask();
    send(OK);
    encoder.reset();
    expect(connection.closed).toBeUndefined();
    expect(events.take().at(-1)).toBe("idle");
  });

  it("survives a reset from within the call that tells of the end", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask();
    events.onHead = () => encoder.reset();
    send("HTTP/1.1 204 No Content\r\n\r\n");
    expect(connection.closed).toBeUndefined();
    expect(events.take().at(-1)).toBe("idle");
  });

  it("is paused while response bytes are not taken, and no longer than the exchange", () => {
    const { connection, ask, send } = open();
    const encoder = ask();
    encoder.pauseReading(true);
    expect(connection.pauses).toBe(1);
    send(OK);
    expect(connection.pauses).toBe(0);
    encoder.pauseReading(false);
    expect(connection.pauses).toBe(0);
  });

  it("tells the exchange that the upstream does not take the request", () => {
    const { events, codec, ask } = open();
    ask(requestHeaders("POST", "/", "host", "a"), false);
    codec.onBlocked(true);
    codec.onBlocked(false);
    expect(events.take()).toEqual(["blocked", "drained"]);
  });

  it("tells an exchange with a body at once if the connection was blocked before it", () => {
    const { connection, events, ask } = open();
    connection.blocked = true;
    ask(requestHeaders("POST", "/", "host", "a"), false);
    expect(events.take()).toEqual(["blocked"]);
  });

  it("takes no second exchange while one is running", () => {
    const { connection, ask } = open();
    ask();
    connection.take();
    ask();
    expect(connection.take()).toBe("");
  });
});

describe("a tunnel", () => {
  const SWITCH =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
  const upgrade = () => requestHeaders("GET", "/ws", "host", "a", "upgrade", "websocket");

  it("is asked for with Upgrade, and after 101 carries bytes as they are", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask(upgrade(), false, "websocket");
    expect(connection.take()).toBe(
      "GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    );
    send(`${SWITCH}down`);
    encoder.encodeBody(latin1Encode("up"), 0, 2, false);
    expect(connection.take()).toBe("up");
    expect(events.take()).toEqual([
      "retire",
      "head 101 [connection: upgrade, upgrade: websocket]",
      "body down",
    ]);
  });

  it("is asked for with GET when the client came with an extended CONNECT (RFC 8441)", () => {
    const { connection, ask } = open();
    ask(requestHeaders("CONNECT", "/ws", "host", "a"), false, "websocket");
    expect(connection.take()).toBe(
      "GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    );
  });

  it("is asked for with CONNECT, and the authority for a target", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask(requestHeaders("CONNECT", "", "host", "a:1"), false);
    expect(connection.take()).toBe("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n");
    send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nraw");
    encoder.encodeBody(latin1Encode("up"), 0, 2, false);
    expect(connection.take()).toBe("up");
    expect(events.take()).toEqual(["retire", "head 200 []", "body raw"]);
  });

  it("gets no byte before the upstream agrees, for it could be a request of its own", () => {
    const { connection, events, ask, send } = open();
    const encoder = ask(upgrade(), false, "websocket");
    connection.take();
    encoder.encodeBody(latin1Encode("early"), 0, 5, false);
    expect(connection.take()).toBe("");
    // The client is read on, so that one who leaves is noticed.
    expect(events.take()).toEqual([]);
    const many = latin1Encode("x".repeat(64 * 1024));
    encoder.encodeBody(many, 0, many.length, false);
    expect(events.take()).toEqual(["blocked"]);
    send(SWITCH);
    expect(connection.take()).toBe(`early${"x".repeat(64 * 1024)}`);
    expect(events.take()).toContain("drained");
  });

  it("that is refused ends the connection, unless the request has ended", () => {
    const refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    for (const ends of [false, true]) {
      const { connection, events, ask, send } = open();
      const encoder = ask(upgrade(), false, "websocket");
      connection.take();
      encoder.encodeBody(latin1Encode("GET /smuggled"), 0, 13, ends);
      send(refused);
      encoder.encodeBody(latin1Encode("more"), 0, 4, true);
      expect(connection.take()).toBe("");
      expect(events.take()).toEqual(["head 403 end [content-length: 0]", ends ? "idle" : "retire"]);
      expect(connection.open).toBe(ends);
    }
  });

  it("of an upgrade keeps the length that the client has given", () => {
    const { connection, ask } = open();
    ask(requestHeaders("GET", "/", "host", "h", "content-length", "3"), false, "websocket");
    expect(connection.take()).toContain("content-length: 3\r\n");
  });

  it("is not opened by a 101 that does not say to what", () => {
    const { events, ask, send } = open();
    ask(upgrade(), false, "websocket");
    send("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    expect(events.take()).toEqual(["retire", "error 502 http1.codec_error"]);
  });

  it("after CONNECT keeps each half open until its own end", () => {
    const { connection, events, codec, ask, send } = open();
    const encoder = ask(requestHeaders("CONNECT", "", "host", "a:1"), false);
    send("HTTP/1.1 200 OK\r\n\r\n");
    codec.onEof();
    expect(events.take().at(-1)).toBe("end");
    connection.take();
    encoder.encodeBody(latin1Encode("late"), 0, 4, true);
    expect(connection.take()).toBe("late");
    expect(connection.ended).toBe(true);
    expect(connection.closed).toBe("flush");
  });

  it("whose client ends first still brings the upstream's bytes", () => {
    const { connection, events, codec, ask, send } = open();
    const encoder = ask(requestHeaders("CONNECT", "", "host", "a:1"), false);
    send("HTTP/1.1 200 OK\r\n\r\n");
    encoder.encodeBody(latin1Encode(""), 0, 0, true);
    expect(connection.ended).toBe(true);
    send("late");
    codec.onEof();
    expect(events.take().slice(-2)).toEqual(["body late", "end"]);
    expect(connection.closed).toBe("flush");
  });

  it("of an upgrade does not end by halves", () => {
    const { connection, events, codec, ask, send } = open();
    const encoder = ask(upgrade(), true, "websocket");
    send(SWITCH);
    encoder.encodeBody(latin1Encode(""), 0, 0, true);
    expect(connection.ended).toBe(false);
    send("late");
    codec.onEof();
    expect(events.take().slice(-2)).toEqual(["body late", "reset connection_closed"]);
    expect(connection.open).toBe(false);
  });

  it("gives up when more waits for it than is sensible", () => {
    const { connection, events, ask } = open();
    const encoder = ask(upgrade(), false, "websocket");
    const bytes = new Uint8Array(600 * 1024);
    encoder.encodeBody(bytes, 0, bytes.length, false);
    encoder.encodeBody(bytes, 0, bytes.length, false);
    expect(events.take()).toEqual(["blocked", "retire", "reset overflow"]);
    expect(connection.closed).toBe("abort");
  });
});

it.each(["", "/edited"])("tells how many of its bytes were fields of heads, path %j", (path) => {
  const { connection, ask, send } = open();
  decoded("GET /a HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\n", (headers) => {
    if (path !== "") headers.path = path;
    const encoder = ask(headers);
    const { length } = connection.take();
    expect([encoder.wireSent, encoder.headerSent]).toEqual([length, 15]);
    send("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\nx: 1\r\n");
    send("content-length: 2\r\n\r\nok");
    expect(encoder.headerReceived).toBe(8 + 5 + 18);
  });
});
