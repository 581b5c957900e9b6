import type { CodecOptions, HeaderMap } from "@tsproxy/sdk";
import { requestHeaders } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { OK, open, remote } from "./test-client.ts";

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
    ["of another minor version", OK.replace("HTTP/1.1", "HTTP/1.2"), BAD],
    ["of another major version", OK.replace("HTTP/1.1", "HTTP/2.0"), BAD],
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
      ["retire", "head 200 [content-length: 2]", "body ok", "end", "idle"],
    ],
    [
      "of HTTP/1.0",
      "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
      ["retire", "head 200 [content-length: 2]", "body ok", "end", "idle"],
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
      "101 with a length",
      "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 2\r\n\r\nok",
      ["retire", "error 502 http1.content_length_not_allowed"],
    ],
    [
      "101 with chunks",
      "HTTP/1.1 101 Switching Protocols\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["retire", "error 502 http1.transfer_encoding_not_allowed"],
    ],
    [
      "with a bad chunk",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokx\r\n0\r\n\r\n",
      ["head 200 []", "retire", "reset protocol_error"],
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
        expect(surely(events.take()), `${why}, cut at ${cut}`).toEqual(surely(expected));
      }
      const { events, ask, send } = open(options);
      ask();
      for (const byte of wire) send(byte);
      expect(surely(events.take()), `${why}, in single bytes`).toEqual(surely(expected));
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

  it("of HTTP/1.0 tell the version that the next exchange goes by", () => {
    const { ask, send } = open();
    const first = ask();
    expect(first.protocol).toBe("HTTP/1.1");
    send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok");
    expect(ask().protocol).toBe("HTTP/1.0");
    send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    expect(ask().protocol).toBe("HTTP/1.1");
  });

  it("without a length end with the connection", () => {
    const { connection, events, codec, ask, send } = open();
    ask();
    send("HTTP/1.1 200 OK\r\n\r\nrest");
    codec.onEof();
    expect(events.take()).toEqual(["retire", "head 200 []", "body rest", "end", "idle"]);
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

/** The events, without data before a bad chunk: how much of it goes on depends on the reads. */
function surely(events: readonly string[]): readonly string[] {
  if (events.at(-1) !== "reset protocol_error") return events;
  return events.filter((line) => !line.startsWith("body"));
}
