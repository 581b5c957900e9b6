import { http2Options, latin1Encode } from "@tsproxy/sdk";
import {
  CODEC_OPTIONS,
  LentChunk,
  requestHeaders,
  TestClientEvents,
  TestConnection,
  TestContext,
} from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import http2 from "./filter.ts";
import { CODE, FLAG, SETTING, TYPE } from "./frame.ts";
import { frame, framesOf, framesText, literal, setting, uint32 } from "./test-frames.ts";

const END = FLAG.END_STREAM | FLAG.END_HEADERS;
const OK = "\x88";

/** A client whose server has sent its settings. */
function open(h2: Parameters<typeof http2Options>[0] = {}) {
  const cx = new TestContext();
  const connection = new TestConnection();
  const events = new TestClientEvents();
  const capacities: number[] = [];
  Object.assign(events, { onCapacity: () => capacities.push(codec.capacity ?? 0) });
  const options = {
    ...CODEC_OPTIONS,
    http2: http2Options(h2),
    stats: cx.stats.scope("cluster.c."),
  };
  const codec = cx.setup(http2, {}).createClient(connection, events, options);
  const send = (...frames: string[]) => {
    const chunk = new LentChunk(frames.join(""));
    codec.onData(chunk);
    chunk.used();
  };
  const take = () => {
    if (connection.open) codec.onAgain?.();
    return framesOf(connection.take());
  };
  const ask = (method = "GET", endStream = true, upgrade = "") => {
    const encoder = codec.newStream(events);
    const asks = upgrade === "" ? [] : ["upgrade", upgrade];
    const headers = requestHeaders(method, "/p", "host", "a", ...asks);
    encoder.encodeHeaders(headers, endStream, upgrade.toLowerCase());
    return encoder;
  };
  return { cx, connection, events, codec, send, take, ask, capacities };
}

function ready(h2: Parameters<typeof http2Options>[0] = {}) {
  const client = open(h2);
  client.send(frame(TYPE.SETTINGS, 0, 0));
  client.take();
  return client;
}

const head = (id: number, flags: number = END, block = OK) => frame(TYPE.HEADERS, flags, id, block);

it("begins with the preface and its settings, and does not wait for the server's", () => {
  const { connection, take, ask } = open();
  ask();
  expect(connection.written).toBe("");
  const text = framesText(take());
  expect(text).toEqual(["SETTINGS 0", "WINDOW_UPDATE 0 by=25100289", "HEADERS 1 end"]);
});

it("has as many exchanges at once as both sides allow, and tells when there may be more", () => {
  const { codec, send, capacities } = open({ max_concurrent_streams: 50 });
  expect(codec.capacity).toBe(50);
  send(frame(TYPE.SETTINGS, 0, 0, setting(SETTING.MAX_CONCURRENT_STREAMS, 2)));
  expect(codec.capacity).toBe(2);
  send(frame(TYPE.SETTINGS, 0, 0, setting(SETTING.MAX_CONCURRENT_STREAMS, 1000)));
  expect(capacities).toEqual([50]);
});

describe("an answer", () => {
  it("may have 1xx before it, a body and trailers", () => {
    const { send, events, ask } = ready();
    ask();
    send(head(1, FLAG.END_HEADERS, "\x08\x03103"), head(1, FLAG.END_HEADERS));
    send(frame(TYPE.DATA, 0, 1, "hello"), head(1, END, literal("sum", "1")));
    expect(events.take()).toEqual([
      "informational 103 []",
      "head 200 []",
      "body hello",
      "trailers [sum: 1]",
      "idle",
    ]);
  });

  it("that comes before the request has ended leaves the request going", () => {
    const { send, events, take, ask } = ready();
    const encoder = ask("POST", false);
    send(head(1));
    expect(events.take()).toEqual(["head 200 end []"]);
    const bytes = latin1Encode("late");
    encoder.encodeBody(bytes, 0, 4, true);
    expect(framesText(take())).toEqual(["HEADERS 1", "DATA 1 late end"]);
    expect(events.take()).toEqual(["idle"]);
  });

  it("that goes on behind its end, or behind a reset, costs the other exchanges nothing", () => {
    const { connection, send, events, take, ask } = ready();
    ask();
    ask();
    ask();
    events.take();
    // The literal goes into the dynamic table, which the third answer refers to.
    const late = head(1, END, `${OK}\x40\x01x\x01y`);
    send(head(1), late, frame(TYPE.DATA, 0, 1, "late"), head(1));
    send(frame(TYPE.RST_STREAM, 0, 3, uint32(CODE.CANCEL)), head(3), frame(TYPE.DATA, 1, 3, "x"));
    send(head(5, END, `${OK}\xbe`));
    expect(events.take()).toEqual([
      "head 200 end []",
      "idle",
      "idle",
      "reset remote",
      "head 200 end [x: y]",
      "idle",
    ]);
    expect(framesText(take())).toEqual(["HEADERS 1 end", "HEADERS 3 end", "HEADERS 5 end"]);
    expect(connection.open).toBe(true);
  });

  it("that is malformed is a bad gateway, and the connection goes", () => {
    const blocks = [
      literal("x", "1"),
      "\x08\x0320x",
      "\x08\x03101",
      OK + OK,
      OK + literal("upgrade", "x"),
    ];
    for (const block of blocks) {
      const { send, events, connection, ask } = ready();
      ask();
      send(head(1, END, block));
      expect(events.take()).toEqual(["failed", "retire", "reset protocol_error"]);
      expect(connection.closed).toBe("abort");
    }
  });

  it("of data without a head fails the connection; after a 1xx only its stream", () => {
    const bare = ready();
    bare.ask();
    bare.send(frame(TYPE.DATA, 0, 1, "x"), frame(TYPE.PING, 0, 0, "12345678"));
    expect(bare.events.take()).toEqual(["failed", "retire", "reset protocol_error"]);
    expect(bare.connection.closed).toBe("abort");
    const informed = ready();
    informed.ask();
    informed.send(
      head(1, FLAG.END_HEADERS, "\x08\x03103"),
      frame(TYPE.DATA, FLAG.END_STREAM, 1, "x"),
    );
    expect(informed.events.take().slice(1)).toEqual(["idle", "reset protocol_error"]);
    expect(informed.connection.closed).toBeUndefined();
  });

  it("whose body is too short fails the connection where trailers end it, and its stream where data does", () => {
    const start = () => {
      const c = ready();
      c.ask();
      c.send(head(1, FLAG.END_HEADERS, OK + literal("content-length", "5")));
      c.events.take();
      return c;
    };
    const one = start();
    one.send(frame(TYPE.DATA, 0, 1, "abc"), head(1, END, literal("sum", "1")));
    expect(one.events.take().slice(1)).toEqual(["failed", "retire", "reset protocol_error"]);
    const other = start();
    other.send(frame(TYPE.DATA, FLAG.END_STREAM, 1, "abc"));
    expect(other.events.take()).toEqual(["idle", "reset protocol_error"]);
  });

  it("to an upgrade is 101 for those who asked, in their letters", () => {
    const { send, events, take, ask } = ready();
    ask("GET", false, "WebSocket");
    const [request] = take();
    expect(request!.flags).toBe(FLAG.END_HEADERS);
    send(head(1, FLAG.END_HEADERS));
    expect(events.take()).toEqual(["head 101 [upgrade: WebSocket, connection: upgrade]"]);
  });

  it("with a content-length opens a tunnel without an end", () => {
    for (const [method, upgrade] of [
      ["GET", "websocket"],
      ["CONNECT", ""],
    ] as const) {
      const { send, events, ask, take } = ready();
      ask(method, false, upgrade);
      send(head(1, FLAG.END_HEADERS, OK + literal("content-length", "2")));
      events.take();
      take();
      send(frame(TYPE.DATA, 0, 1, "more"));
      expect(events.take()).toEqual(["body more"]);
      expect(framesText(take())).toEqual([]);
    }
  });
});

describe("a tunnel's bytes", () => {
  const early = (method: string, upgrade: string) => {
    const client = ready();
    const encoder = client.ask(method, false, upgrade);
    const bytes = latin1Encode("early");
    encoder.encodeBody(bytes, 0, bytes.length, false);
    encoder.encodeBody(bytes, 0, bytes.length, true);
    expect(client.events.take()).toEqual(["blocked"]);
    expect(framesText(client.take())).toEqual(["HEADERS 1"]);
    return client;
  };

  it.each([
    ["GET", "websocket"],
    ["CONNECT", ""],
  ])("wait until the server agrees (%s %s)", (method, upgrade) => {
    const { send, take, events } = early(method, upgrade);
    send(head(1, FLAG.END_HEADERS));
    expect(framesText(take())).toEqual(["DATA 1 early", "DATA 1 early", "DATA 1  end"]);
    expect(events.take().at(-1)).toBe("drained");
  });

  it("are dropped where it refuses, and the exchange ends with the answer", () => {
    const { send, take, events, cx } = early("CONNECT", "");
    send(head(1, FLAG.END_HEADERS, literal(":status", "403")));
    expect(framesText(take())).toEqual(["DATA 1  end"]);
    send(frame(TYPE.DATA, FLAG.END_STREAM, 1, "no"));
    expect(events.take()).toContain("idle");
    expect(cx.stats.value("cluster.c.http2.streams_active")).toBe(0);
  });
});

describe("a lost exchange", () => {
  it("is refused where the server has not looked at it, and the connection is retired by GOAWAY", () => {
    const { send, events, ask } = ready();
    ask();
    ask();
    send(frame(TYPE.RST_STREAM, 0, 1, uint32(CODE.REFUSED_STREAM)));
    expect(events.take()).toEqual(["idle", "reset refused"]);
    send(frame(TYPE.GOAWAY, 0, 0, uint32(1) + uint32(0)));
    expect(events.take()).toEqual(["retire", "idle", "reset refused"]);
  });

  it("is reset where the server says so, and closed where the connection is gone", () => {
    const { send, events, codec, ask, cx } = ready();
    const lost: string[] = [];
    Object.assign(events, { onStreamLost: (by: string) => lost.push(by) });
    for (let k = 0; k < 3; k++) ask();
    send(frame(TYPE.RST_STREAM, 0, 1, uint32(CODE.INTERNAL_ERROR)));
    expect(events.take()).toEqual(["idle", "reset remote"]);
    send(frame(TYPE.RST_STREAM, 0, 3, uint32(CODE.CONNECT_ERROR)));
    expect(events.take()).toEqual(["idle", "reset connect_error"]);
    codec.onClosed({ by: "remote", phase: "connected", timeout: false, error: undefined });
    expect(events.take()).toEqual(["reset connection_closed"]);
    expect(lost).toEqual(["peer", "connection"]);
    expect(cx.stats.value("cluster.c.http2.rx_reset")).toBe(2);
    expect(cx.stats.value("cluster.c.http2.streams_active")).toBe(0);
  });

  it("that we give up is reset on the wire", () => {
    const { take, events, ask } = ready();
    ask().reset();
    expect(framesText(take())).toEqual(["HEADERS 1 end", "RST_STREAM 1 code=2"]);
    expect(events.take()).toEqual(["idle"]);
  });
});

it("asks a connection that was idle for long whether it is still there, before its next exchange", () => {
  const idle = { connection_idle_interval: 5000, timeout: 2000 };
  const { cx, ask, connection, send, take } = ready({ connection_keepalive: idle });
  cx.clock.advance(4999);
  ask();
  expect(framesText(take())).toEqual(["HEADERS 1 end"]);
  cx.clock.advance(5000);
  ask();
  expect(framesText(take())).toEqual(["PING 0", "HEADERS 3 end"]);
  send(frame(TYPE.PING, FLAG.ACK, 0, "12345678"));
  cx.clock.advance(2001);
  expect(connection.closed).toBeUndefined();
  cx.clock.advance(5000);
  ask();
  cx.clock.advance(2001);
  expect(connection.closed).toBe("abort");
});

it("lets an upstream say that a stream depends on itself, but not widen its window by nothing", () => {
  const { send, connection, ask } = ready();
  ask();
  send(frame(TYPE.PRIORITY, 0, 1, `${uint32(1)}\x10`));
  expect(connection.closed).toBeUndefined();
  send(frame(TYPE.WINDOW_UPDATE, 0, 1, uint32(0)));
  expect(connection.closed).toBe("abort");
});

it("takes no push, and no frame for a stream that it has not opened", () => {
  for (const bytes of [
    frame(TYPE.PUSH_PROMISE, FLAG.END_HEADERS, 1, uint32(2) + OK),
    head(3),
    frame(TYPE.DATA, 0, 5, "x"),
    frame(TYPE.RST_STREAM, 0, 7, uint32(0)),
  ]) {
    const { send, connection, ask } = ready();
    ask();
    send(bytes);
    expect(connection.closed).toBe("abort");
  }
});
