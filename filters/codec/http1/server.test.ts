import type { CodecOptions } from "@tsproxy/sdk";
import { HeaderLine, HeaderMap, latin1Encode } from "@tsproxy/sdk";
import {
  CODEC_OPTIONS,
  LentChunk,
  responseHeaders,
  TestConnection,
  TestContext,
  TestServerEvents,
} from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import http1 from "./filter.ts";

const GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
const closed = { by: "remote", phase: "connected", timeout: false, error: undefined } as const;

function open(options: Partial<CodecOptions> = {}) {
  const cx = new TestContext();
  const connection = new TestConnection();
  const events = new TestServerEvents();
  const codec = cx
    .setup(http1, {})
    .createServer(connection, events, { ...CODEC_OPTIONS, ...options });
  const send = (text: string) => {
    const chunk = new LentChunk(text);
    codec.onData(chunk);
    chunk.used();
  };
  const body = (text: string, endStream: boolean) => {
    const bytes = latin1Encode(text);
    events.last.encoder.encodeBody(bytes, 0, bytes.length, endStream);
  };
  return { cx, connection, events, codec, send, body };
}

describe("a response head", () => {
  it("is written with the lines that are kept, the edits, and the codec's own", () => {
    const { connection, events, send } = open();
    send(GET);
    const headers = responseHeaders(404, "content-length", "0", "connection", "close", "x", "1");
    headers.appendLine(new HeaderLine("server", "envoy"));
    events.last.encoder.encodeHeaders(headers, true);
    expect(connection.take()).toBe(
      "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx: 1\r\nserver: envoy\r\n\r\n",
    );
  });

  it("says that there is no body where a client would wait for one", () => {
    const { connection, events, send } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    expect(connection.take()).toBe("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
  });

  it("of 204 and 304 says nothing of a body", () => {
    const { connection, events, send } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(204, "content-length", "0"), true);
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(304), true);
    expect(connection.take()).toBe(
      "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n",
    );
  });

  it("to HEAD keeps its length and loses its body", () => {
    const { connection, events, send, body } = open();
    send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(200, "content-length", "5"), false);
    body("hello", true);
    expect(connection.take()).toBe("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    expect(events.take()).toEqual(["head HEAD / HTTP/1.1 isHead end [host: a]"]);
  });

  it("names a status that nobody registered", () => {
    const { connection, events, send } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(299), true);
    expect(connection.take()).toContain("HTTP/1.1 299 Unknown\r\n");
  });

  it("is chunked when several lengths contradict each other", () => {
    const { connection, events, send, body } = open();
    send(GET);
    const headers = responseHeaders(200, "content-length", "5", "content-length", "6");
    events.last.encoder.encodeHeaders(headers, false);
    body("hello", true);
    expect(connection.take()).toBe(
      "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
  });

  it("with a 101 that nobody asked for has no body, and the next request follows", () => {
    const { connection, events, send, body } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(101, "content-length", "5"), false);
    body("hello", true);
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(204), true);
    expect(connection.take()).toBe(
      "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    );
  });

  it.each([101, 204, 304])("without a length ends a connection of HTTP/1.0: %i", (status) => {
    const { connection, events, send } = open({ acceptHttp10: true });
    send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(status), true);
    expect(connection.take()).toMatch(
      new RegExp(`^HTTP/1.0 ${status} [\\w ]+\r\nconnection: close\r\n\r\n$`),
    );
  });

  it("with any other 1xx as the final one is a fault of ours, so 500", () => {
    const { connection, events, send } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(103), true);
    expect(connection.take()).toBe(
      "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
    );
  });
});

describe("a response body", () => {
  it("is chunked when there is no length", () => {
    const { connection, events, send, body } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    body("hello", false);
    body("", false);
    body("x".repeat(3000), false);
    body("", true);
    expect(connection.take()).toBe(
      `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nbb8\r\n${"x".repeat(3000)}\r\n0\r\n\r\n`,
    );
  });

  it("ends with trailers where they are enabled", () => {
    const { connection, events, send, body } = open({ enableTrailers: true });
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    body("hello", false);
    const trailers = new HeaderMap();
    trailers.append("grpc-status", "0");
    trailers.append("transfer-encoding", "gzip");
    events.last.encoder.encodeTrailers(trailers);
    expect(connection.take()).toContain("5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n");
  });

  it("ends without them where they are not", () => {
    const { connection, events, send } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    const trailers = new HeaderMap();
    trailers.append("grpc-status", "0");
    events.last.encoder.encodeTrailers(trailers);
    expect(connection.take()).toContain("\r\n\r\n0\r\n\r\n");
  });

  it("never exceeds the announced length, for the rest would be the next response", () => {
    const { connection, events, send, body } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(200, "content-length", "4"), false);
    body("hello", true);
    expect(connection.take()).toBe("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhell");
    expect(connection.closed).toBeUndefined();
  });

  it("that falls short of the announced length costs the connection", () => {
    const { connection, events, send, body } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(200, "content-length", "6"), false);
    body("hello", true);
    expect(connection.closed).toBe("flush");
  });

  it("to a client of HTTP/1.0 ends with the connection", () => {
    const { connection, events, send, body } = open({ acceptHttp10: true });
    send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    body("hello", true);
    expect(connection.take()).toBe("HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nhello");
    expect(events.take().at(-1)).toBe("idle end");
  });

  it("that is given up leaves the client without the last chunk", () => {
    const { connection, events, send, body } = open();
    send(GET);
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    body("hello", false);
    events.last.encoder.reset();
    expect(connection.take().endsWith("5\r\nhello\r\n")).toBe(true);
    expect(events.take().at(-1)).toBe("idle end");
  });

  it("that is given up and has no framing ends with RST, so that it does not look complete", () => {
    const { connection, events, send, body } = open({ acceptHttp10: true });
    send("GET / HTTP/1.0\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    body("hello", false);
    events.last.encoder.reset();
    expect(connection.closed).toBe("reset");
  });
});

describe("informational responses", () => {
  it("go before the final one", () => {
    const { connection, events, send } = open();
    send(GET);
    events.last.encoder.encodeInformational(
      responseHeaders(103, "link", "</x>", "content-length", "3"),
    );
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    expect(connection.take()).toBe(
      "HTTP/1.1 103 Unknown\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    );
  });

  it("are kept from clients of HTTP/1.0 (RFC 9110 §15.2)", () => {
    const { connection, events, send } = open({ acceptHttp10: true });
    send("GET / HTTP/1.0\r\n\r\n");
    events.last.encoder.encodeInformational(responseHeaders(103));
    expect(connection.take()).toBe("");
  });
});

describe("the connection", () => {
  it("stays open for the next request", () => {
    const { connection, events, codec, send } = open();
    send(GET);
    expect(codec.active).toBe(true);
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    expect(codec.active).toBe(false);
    send(GET);
    expect(events.requests).toHaveLength(2);
    expect(events.log).not.toContain("idle end");
    expect(connection.pauses).toBe(0);
  });

  it("is to be closed after `connection: close`", () => {
    const { connection, events, send } = open();
    send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    expect(connection.take()).toBe(
      "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    expect(events.take().at(-1)).toBe("idle end");
    send(GET);
    expect(events.take()).toEqual([]);
  });

  it("of HTTP/1.0 stays open only when asked, and says so", () => {
    const { connection, events, send } = open({ acceptHttp10: true });
    send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(200, "content-length", "0"), true);
    expect(connection.take()).toBe(
      "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n",
    );
    send("GET / HTTP/1.0\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(200, "content-length", "0"), true);
    expect(connection.take()).toBe(
      "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    expect(events.take().at(-1)).toBe("idle end");
  });

  it("says close while draining", () => {
    const { connection, events, codec, send } = open();
    send(GET);
    codec.drain();
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    expect(connection.take()).toContain("connection: close\r\n");
    expect(events.take().at(-1)).toBe("idle end");
  });

  it("says close when the manager asks for it", () => {
    const { connection, events, send } = open();
    send(GET);
    events.last.encoder.closeAfter();
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    expect(connection.take()).toContain("connection: close\r\n");
    expect(events.take().at(-1)).toBe("idle end");
  });

  it("is not used again when the answer came before the request was complete", () => {
    const { connection, events, send } = open();
    events.onHead = ({ encoder }) => encoder.encodeHeaders(responseHeaders(413), true);
    send(`${POST}ab`);
    send(`cd${GET}`);
    expect(connection.take()).toBe(
      "HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    expect(events.take()).toEqual([
      "head POST / HTTP/1.1 length=4 [host: a, content-length: 4]",
      "idle end",
    ]);
  });

  it("wants to be closed when the client ends it between requests", () => {
    const { events, codec } = open();
    codec.onEof();
    expect(events.take()).toEqual(["idle end"]);
  });

  it("that the client ends while its answer is awaited is given up, as Envoy does", () => {
    const { connection, events, codec, send } = open();
    send(GET);
    codec.onEof();
    expect(events.take().slice(1)).toEqual(["reset connection_closed"]);
    expect(connection.closed).toBe("flush");
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    expect(connection.take()).toBe("");
  });

  it("that closes in the middle of a request resets it", () => {
    const { events, codec, send } = open();
    send(`${POST}a`);
    codec.onClosed(closed);
    expect(events.take().at(-1)).toBe("reset connection_closed");
    codec.onClosed(closed);
    expect(events.take()).toEqual([]);
  });

  it("that closes in the middle of a head resets a stream that has no head", () => {
    const { events, codec, send } = open();
    send("GET / HT");
    expect(codec.active).toBe(true);
    codec.onClosed(closed);
    expect(events.take()).toEqual(["reset connection_closed"]);
  });
});

describe("a malformed request", () => {
  it("is answered through the encoder, and nothing after it is looked at", () => {
    const { connection, events, send } = open();
    events.onError = ({ encoder }) =>
      encoder.encodeHeaders(responseHeaders(400, "content-length", "0"), true);
    send(`FOO\r\n\r\n${GET}`);
    send(GET);
    expect(connection.take()).toBe(
      "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    expect(events.take()).toEqual(["error 400 http1.codec_error"]);
  });

  it("carries the status's words for its body", () => {
    const { events, send } = open({ maxHeadBytes: 40 });
    send(`GET /${"a".repeat(60)}`);
    expect(events.last.error).toEqual({
      status: 431,
      body: "Request Header Fields Too Large",
      details: "http1.headers_too_large",
    });
  });

  it("is counted when underscores are why", () => {
    const { cx, send } = open({ headersWithUnderscores: "REJECT_REQUEST" });
    send("GET / HTTP/1.1\r\nHost: a\r\nA_b: 1\r\nc_d: 1\r\n\r\n");
    expect(cx.stats.value("http1.requests_rejected_with_underscores_in_headers")).toBe(1);
    const other = open({ headersWithUnderscores: "DROP_HEADER" });
    other.send("GET / HTTP/1.1\r\nHost: a\r\nA_b: 1\r\nc_d: 1\r\n\r\n");
    expect(other.cx.stats.value("http1.dropped_headers_with_underscores")).toBe(2);
  });
});

describe("pipelined requests", () => {
  it("are read one at a time, each after the end of what the answer before has set off, while the connection is paused", () => {
    const { connection, codec, events, send } = open();
    send(GET + GET + GET);
    expect(events.requests).toHaveLength(1);
    expect(connection.pauses).toBe(1);
    for (const count of [2, 3]) {
      events.last.encoder.encodeHeaders(responseHeaders(200), true);
      expect(events.requests).toHaveLength(count - 1);
      codec.onAgain();
      expect(events.requests).toHaveLength(count);
    }
    expect(connection.pauses).toBe(0);
  });

  it("answered at once make room for other connections after 32", () => {
    const { connection, events, codec, send } = open();
    events.onHead = ({ encoder }) => encoder.encodeHeaders(responseHeaders(200), true);
    send(GET.repeat(70));
    expect(events.requests).toHaveLength(32);
    expect(connection.agains).toBe(1);
    codec.onAgain();
    codec.onAgain();
    expect(events.requests).toHaveLength(70);
    expect(connection.pauses).toBe(0);
  });

  it("wait while the client does not take the answers", () => {
    const { connection, events, codec, send } = open();
    events.onHead = ({ encoder }) => encoder.encodeHeaders(responseHeaders(200), true);
    connection.blocked = true;
    send(GET + GET);
    expect(events.requests).toHaveLength(0);
    connection.blocked = false;
    codec.onBlocked(false);
    expect(events.requests).toHaveLength(2);
  });

  it("are all answered when the client's FIN came with the last of them", () => {
    const { connection, events, codec, send } = open();
    events.onHead = ({ encoder }) => encoder.encodeHeaders(responseHeaders(200), true);
    send(GET.repeat(40));
    codec.onEof();
    codec.onAgain();
    expect(events.requests).toHaveLength(40);
    expect(events.log.at(-1)).toBe("idle end");
    expect(connection.closed).toBeUndefined();
  });

  it("beyond a megabyte cost the connection", () => {
    const { connection, events, send } = open();
    send(GET);
    for (let k = 0; k < 18; k++) send("x".repeat(65_536));
    expect(events.take().at(-1)).toBe("reset overflow");
    expect(connection.closed).toBe("flush");
  });

  it("of any number take no recursion", () => {
    const { events, codec, connection, send } = open();
    send(GET.repeat(20_000));
    while (events.requests.length < 20_000) {
      events.last.encoder.encodeHeaders(responseHeaders(200), true);
      if (connection.agains > 0) {
        connection.agains = 0;
        codec.onAgain();
      }
    }
    expect(connection.pauses).toBe(0);
  });
});

describe("back-pressure", () => {
  it("pauses the connection while request bytes are not taken", () => {
    const { connection, events, send } = open();
    send(POST);
    const { encoder } = events.last;
    encoder.pauseReading(true);
    encoder.pauseReading(true);
    expect(connection.pauses).toBe(1);
    encoder.pauseReading(false);
    expect(connection.pauses).toBe(0);
  });

  it("of one request does not outlive it", () => {
    const { connection, events, send } = open();
    send(GET);
    const { encoder } = events.last;
    encoder.pauseReading(true);
    encoder.encodeHeaders(responseHeaders(200), true);
    expect(connection.pauses).toBe(0);
    encoder.pauseReading(false);
    expect(connection.pauses).toBe(0);
  });

  it("of the client is told to the stream", () => {
    const { events, codec, send } = open();
    send(GET);
    events.take();
    codec.onBlocked(true);
    codec.onBlocked(false);
    expect(events.take()).toEqual(["blocked", "drained"]);
  });
});

describe("an encoder whose exchange is over", () => {
  it("changes nothing", () => {
    const { connection, events, send, body } = open();
    send(GET);
    const { encoder } = events.last;
    encoder.encodeHeaders(responseHeaders(200), true);
    send(GET);
    connection.take();
    encoder.encodeHeaders(responseHeaders(500), true);
    encoder.reset();
    encoder.pauseReading(true);
    expect(connection.take()).toBe("");
    expect(connection.closed).toBeUndefined();
    expect(connection.pauses).toBe(0);
    events.last.encoder.encodeHeaders(responseHeaders(200, "content-length", "2"), false);
    body("ok", true);
    body("no", true);
    expect(connection.take().endsWith("\r\n\r\nok")).toBe(true);
  });
});

describe("a tunnel", () => {
  const UPGRADE =
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

  it("after 101 carries bytes as they are, both ways", () => {
    const { connection, events, send, body } = open();
    send(`${UPGRADE}early`);
    expect(events.take().at(-1)).toBe("body early");
    events.last.encoder.encodeHeaders(responseHeaders(101, "upgrade", "websocket"), false);
    expect(connection.take()).toBe(
      "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    );
    send("GET / HTTP/1.1\r\n\r\n");
    body("down", false);
    expect(connection.take()).toBe("down");
    expect(events.take()).toEqual(["body GET / HTTP/1.1\r\n\r\n"]);
  });

  it("is opened for a client of HTTP/1.0 too", () => {
    const { connection, events, send, body } = open({ acceptHttp10: true });
    send(UPGRADE.replace("HTTP/1.1", "HTTP/1.0"));
    events.last.encoder.encodeHeaders(responseHeaders(101, "upgrade", "websocket"), false);
    body("down", false);
    expect(connection.take()).toBe(
      "HTTP/1.0 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\ndown",
    );
  });

  it("gets an Upgrade line even when the response has none", () => {
    const { connection, events, send } = open();
    send(UPGRADE);
    events.last.encoder.encodeHeaders(responseHeaders(101), false);
    expect(connection.take()).toBe(
      "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    );
  });

  it("is not opened by a 101 that ends at once and does not say to what", () => {
    const { connection, events, send } = open();
    send(UPGRADE);
    events.last.encoder.encodeHeaders(responseHeaders(101), true);
    expect(connection.take()).toBe("HTTP/1.1 101 Switching Protocols\r\nconnection: close\r\n\r\n");
  });

  it("after 2xx to CONNECT has no framing", () => {
    const { connection, events, send, body } = open();
    send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(200, "content-length", "7"), false);
    body("down", false);
    expect(connection.take()).toBe("HTTP/1.1 200 OK\r\n\r\ndown");
  });

  it("opens within the call that announces the request", () => {
    const { events, send } = open();
    events.onHead = ({ encoder }) => encoder.encodeHeaders(responseHeaders(200), false);
    send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nbytes");
    expect(events.take().at(-1)).toBe("body bytes");
  });

  it("of an upgrade is over with the client's half", () => {
    const { connection, events, codec, send } = open();
    send(UPGRADE);
    events.last.encoder.encodeHeaders(responseHeaders(101), false);
    events.take();
    codec.onEof();
    expect(events.take()).toEqual(["reset connection_closed"]);
    expect(connection.closed).toBe("flush");
  });

  it("after CONNECT keeps each half open until its own end", () => {
    const { connection, events, codec, send, body } = open();
    send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    events.take();
    codec.onEof();
    expect(events.take()).toEqual(["end"]);
    connection.take();
    body("late", true);
    expect(connection.take()).toBe("late");
    expect(connection.ended).toBe(true);
    expect(events.take()).toEqual(["idle end"]);
  });

  it("whose upstream ends first still takes the client's bytes", () => {
    const { connection, events, codec, send, body } = open();
    send("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    events.take();
    body("", true);
    expect(connection.ended).toBe(true);
    send("more");
    codec.onEof();
    expect(events.take()).toEqual(["body more", "end", "idle end"]);
  });

  it("that is refused costs the connection, for what follows was meant for another protocol", () => {
    const { connection, events, send } = open();
    send(`${UPGRADE}GET /smuggled HTTP/1.1\r\n\r\n`);
    events.take();
    events.last.encoder.encodeHeaders(responseHeaders(403), true);
    expect(connection.take()).toBe(
      "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    );
    expect(events.take()).toEqual(["idle end"]);
    expect(connection.pauses).toBe(0);
  });
});

it("tells how many of its bytes were fields of heads", () => {
  const { events, send, body } = open();
  send("POST /a HTTP/1.1\r\nHost: a\r\nContent-");
  send("Length: 4\r\n\r\nbody");
  const { encoder } = events.last;
  expect([encoder.wireReceived, encoder.headerReceived]).toEqual([52, 26]);
  encoder.encodeInformational(responseHeaders(103, "link", "</a>"));
  encoder.encodeHeaders(responseHeaders(200, "content-length", "2"), false);
  body("ok", true);
  expect([encoder.wireSent, encoder.headerSent]).toEqual([36 + 40, 12 + 19]);
});

it("counts empty lines before a request as a part of it", () => {
  const { events, send, body } = open();
  const head = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
  send("\r\n");
  // As in Envoy, the first byte begins it.
  expect(events.last.encoder.wireReceived).toBe(2);
  send(`\r\n${head}`);
  const { encoder } = events.last;
  expect([encoder.wireReceived, encoder.headerReceived]).toEqual([4 + head.length, 8]);
  encoder.encodeHeaders(responseHeaders(200, "content-length", "2"), false);
  body("ok", true);
  send(head);
  expect(events.last.encoder.wireReceived).toBe(head.length);
});

it("counts a head that it refuses as far as it was received", () => {
  const { events, send } = open();
  send("FOO BAR BAZ\r\n\r\n");
  expect(events.last.encoder.wireReceived).toBe(15);
});

it("counts a body that it refuses as far as it was received", () => {
  const { events, send } = open();
  const head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
  send(`${head}zz\r\n`);
  expect(events.last.encoder.wireReceived).toBe(head.length + 4);
});

it("counts trailers that it refuses as far as they were received", () => {
  const { events, send } = open();
  const head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
  send(head);
  send("0\r\n");
  send("a b: c\r\n\r\n");
  expect(events.last.encoder.wireReceived).toBe(head.length + 3 + 10);
});

it.each([
  ["a field that is malformed", "GET / HTTP/1.1\r\nHost: a\r\nb@d: x\r\n\r\n", 35, 0],
  ["a bad length", "GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n", 37, 0],
  ["no field", "GET / HTTP/1.1\r\n\r\n", 18, 3],
  ["spaces around a value", "GET / HTTP/1.1\r\nHost:    a   \r\n\r\n", 33, 8],
  [
    "a framing that smuggles",
    "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0",
    66,
    45,
  ],
])("counts the bytes of a request with %s", (_, text, wire, fields) => {
  const { events, send } = open();
  send(text);
  const { encoder } = events.last;
  expect([encoder.wireReceived, encoder.headerReceived]).toEqual([wire, fields]);
});

it("tells that it has said that the connection closes", () => {
  const { events, send } = open();
  send(GET);
  expect(events.last.encoder.saidClose).toBe(false);
  events.last.encoder.closeAfter();
  events.last.encoder.encodeHeaders(responseHeaders(200), true);
  expect(events.last.encoder.saidClose).toBe(true);
});
