import type { CodecOptions } from "@tsproxy/sdk";
import { HeaderMap, latin1Encode, type RequestHeaders } from "@tsproxy/sdk";
import {
  CODEC_OPTIONS,
  LentChunk,
  requestHeaders,
  TestConnection,
  TestContext,
  TestServerEvents,
} from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import http1 from "./filter.ts";
import { OK, open, remote } from "./test-client.ts";

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

  it("has its host first, wherever that stood and whoever set it", () => {
    const wire = "GET / HTTP/1.1\r\nx: 1\r\nHost:  a\r\ny: 2\r\n\r\n";
    expect(forwarded(wire)).toBe("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\ny: 2\r\n\r\n");
    const edits: ((headers: RequestHeaders) => void)[] = [
      (headers) => {
        headers.authority = "b";
      },
      (headers) => headers.set("host", "b"),
    ];
    for (const edit of edits)
      expect(forwarded(wire, edit)).toBe("GET / HTTP/1.1\r\nhost: b\r\nx: 1\r\ny: 2\r\n\r\n");
    const rewritten = forwarded("GET / HTTP/1.1\r\nHost: a\r\nx: 1\r\n\r\n", edits[0]);
    expect(rewritten).toBe("GET / HTTP/1.1\r\nhost: b\r\nx: 1\r\n\r\n");
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
    expect(forwarded("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n")).toBe(
      "GET / HTTP/1.1\r\nhost: b\r\n\r\n",
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

  it("counts what came with a head that was given up, at once, for the log of that try", () => {
    const { events, ask, send } = open();
    const encoder = ask();
    const counted: (number | undefined)[] = [];
    events.onHead = () => {
      encoder.reset();
      counted.push(encoder.wireReceived);
    };
    send(OK);
    expect([...counted, encoder.wireReceived]).toEqual([OK.length, OK.length]);
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
