import { type CodecOptions, http2Options, latin1Encode } from "@tsproxy/sdk";
import {
  CODEC_OPTIONS,
  LentChunk,
  responseHeaders,
  TestConnection,
  TestContext,
  TestServerEvents,
} from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import http2 from "./filter.ts";
import { CODE, FLAG, PREFACE, SETTING, TYPE } from "./frame.ts";
import {
  chars,
  type Frame,
  frame,
  framesOf,
  framesText,
  GET,
  literal,
  POST,
  setting,
  uint32,
} from "./test-frames.ts";

const END = FLAG.END_STREAM | FLAG.END_HEADERS;

interface Opened {
  readonly h2?: Parameters<typeof http2Options>[0];
  readonly options?: Partial<CodecOptions>;
}

/** A server whose client has sent its preface and settings. */
function open({ h2 = {}, options = {} }: Opened = {}) {
  const cx = new TestContext();
  const connection = new TestConnection();
  const events = new TestServerEvents();
  const failures: string[] = [];
  const floods: boolean[] = [];
  Object.assign(events, {
    onConnectionError(details: string, isFlood: boolean) {
      failures.push(details);
      floods.push(isFlood);
    },
  });
  const codec = cx.setup(http2, {}).createServer(connection, events, {
    ...CODEC_OPTIONS,
    http2: http2Options(h2),
    ...options,
  });
  const send = (...frames: string[]) => {
    const chunk = new LentChunk(frames.join(""));
    codec.onData(chunk);
    chunk.used();
  };
  /** What was written, as frames. */
  const take = (): Frame[] => {
    if (connection.open) codec.onAgain();
    return framesOf(connection.take());
  };
  const body = (text: string, endStream: boolean, index = -1) => {
    const bytes = latin1Encode(text);
    events.requests.at(index)!.encoder.encodeBody(bytes, 0, bytes.length, endStream);
  };
  send(PREFACE, frame(TYPE.SETTINGS, 0, 0));
  take();
  return { cx, connection, events, codec, send, take, body, failures, floods };
}

const request = (id: number, flags: number = END, block = GET) =>
  frame(TYPE.HEADERS, flags, id, block);
const data = (id: number, text: string, flags = 0) => frame(TYPE.DATA, flags, id, text);

describe("a connection", () => {
  it("begins with our settings, and acknowledges the client's", () => {
    const cx = new TestContext();
    const connection = new TestConnection();
    const codec = cx
      .setup(http2, {})
      .createServer(connection, new TestServerEvents(), CODEC_OPTIONS);
    for (const byte of PREFACE + frame(TYPE.SETTINGS, 0, 0)) codec.onData(new LentChunk(byte));
    codec.onAgain();
    const [settings, window, ack] = framesOf(connection.take());
    expect(settings).toMatchObject({ type: TYPE.SETTINGS, flags: 0 });
    expect(window).toMatchObject({ type: TYPE.WINDOW_UPDATE, id: 0 });
    expect(ack).toMatchObject({ type: TYPE.SETTINGS, flags: FLAG.ACK });
  });

  it("sends settings of one's own before those that have options, which count then", () => {
    const custom_settings_parameters = [
      { identifier: 64, value: 7 },
      { identifier: SETTING.MAX_CONCURRENT_STREAMS, value: 9 },
    ];
    const http2Config = http2Options({ custom_settings_parameters, max_concurrent_streams: 50 });
    const connection = new TestConnection();
    const codec = new TestContext()
      .setup(http2, {})
      .createServer(connection, new TestServerEvents(), { ...CODEC_OPTIONS, http2: http2Config });
    codec.onData(new LentChunk(PREFACE + frame(TYPE.SETTINGS, 0, 0)));
    codec.onAgain();
    const { payload } = framesOf(connection.take())[0]!;
    expect(payload).toContain(setting(64, 7));
    const [custom, own] = [9, 50].map((n) => setting(SETTING.MAX_CONCURRENT_STREAMS, n));
    expect(payload.indexOf(custom!)).toBeGreaterThanOrEqual(0);
    expect(payload.indexOf(own!)).toBeGreaterThan(payload.indexOf(custom!));
  });

  it("ends without a word when the client does not speak HTTP/2", () => {
    for (const text of ["G", "GET / HTTP/1.1\r\n\r\n", `${PREFACE.slice(0, -1)}x`]) {
      const cx = new TestContext();
      const connection = new TestConnection();
      const events = new TestServerEvents();
      const codec = cx.setup(http2, {}).createServer(connection, events, CODEC_OPTIONS);
      codec.onData(new LentChunk(text));
      expect(connection.take()).toBe("");
      expect(events.take()).toEqual(["idle end"]);
    }
  });

  it("is drained in two steps: a notice, and later the last stream that is served", () => {
    const { codec, send, take, events } = open();
    codec.drain();
    expect(framesText(take())).toEqual(["GOAWAY 0 last=2147483647 code=0"]);
    send(request(1));
    codec.finish?.();
    expect(framesText(take())).toEqual(["GOAWAY 0 last=1 code=0"]);
    send(request(3));
    expect(events.requests).toHaveLength(1);
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    expect(events.take().at(-1)).toBe("idle end");
  });
});

describe("a request", () => {
  it("is read however its bytes are cut", () => {
    const text = request(1, FLAG.END_HEADERS, POST) + data(1, "hello", 0) + data(1, "!", 1);
    for (const size of [1, 2, 3, 7, 10, 1000]) {
      const { events, send } = open();
      for (let k = 0; k < text.length; k += size) send(text.slice(k, k + size));
      expect(events.take()).toEqual(["head POST / HTTP/2 [host: a]", "body hello!", "end"]);
    }
  });

  it("may have padding, priority and a head in pieces", () => {
    const { events, send } = open();
    const padded = `\x03${POST}\0\0\0`;
    send(frame(TYPE.HEADERS, FLAG.PADDED | FLAG.END_HEADERS, 1, padded));
    send(frame(TYPE.DATA, FLAG.PADDED | 1, 1, "\x02hi\0\0"));
    send(frame(TYPE.HEADERS, FLAG.PRIORITY | 1, 3, `\0\0\0\0\x10${GET.slice(0, 2)}`));
    send(frame(TYPE.CONTINUATION, FLAG.END_HEADERS, 3, GET.slice(2)));
    expect(events.take()).toEqual([
      "head POST / HTTP/2 [host: a]",
      "body hi",
      "end",
      "head GET / HTTP/2 end [host: a]",
    ]);
  });

  it("may end with trailers", () => {
    const { events, send, cx } = open();
    send(request(1, FLAG.END_HEADERS, POST), data(1, "x"), request(1, END, literal("sum", "1")));
    expect(events.take().slice(1)).toEqual(["body x", "trailers [sum: 1]"]);
    expect(cx.stats.value("http2.trailers")).toBe(1);
  });

  it("that is malformed ends the connection, or its stream alone where the config says so", () => {
    const path = (value: string) =>
      `\x82\x86${literal(":path", value)}${literal(":authority", "a")}`;
    const message = "http2.violation.of.messaging.rule";
    const field = "http2.invalid.header.field";
    const bad: readonly (readonly [string, string])[] = [
      [literal(":method", "GET"), message],
      ["\x82\x86\x84", message],
      [GET + literal("te", "gzip"), field],
      [literal("x", "1") + GET, field],
      [GET + GET, field],
      [GET + literal(":status", "200"), field],
      [GET + literal("host", "a") + literal("host", "a"), field],
      [GET + literal("content-length", "0") + literal("content-length", "0"), field],
      [GET + literal("connection", "close"), field],
      [GET + literal("X", "1"), field],
      [GET + literal("x", "a\nb"), field],
      ["\x82\x86\x84\x01\x03a@b", field],
      [`\x82\x84${literal(":scheme", "a b")}${literal(":authority", "a")}`, field],
      ["\x82\x86\x84\x01\x00", field],
      [GET + literal("content-length", "x"), field],
      [GET + literal("content-length", " 0"), field],
      [GET + literal("te", "trailers "), field],
      ["\x82\x86\x84\x01\x02a ", field],
      [path("noslash"), message],
      [path("**"), message],
      [path("*"), message],
      [path("/a b"), field],
    ];
    for (const [block, details] of bad) {
      const hard = open();
      hard.send(request(1, END, block));
      expect(hard.failures).toEqual(["codec_error:The_user_callback_function_failed"]);
      expect(hard.events.last.resetDetails).toBe(details);
      // Envoy closes such a connection without a GOAWAY.
      expect(framesText(hard.take())).toEqual([]);
      expect(hard.events.take()).toEqual(["reset protocol_error"]);
      const soft = open({ h2: { override_stream_error_on_invalid_http_message: true } });
      soft.send(request(1, END, block));
      expect(framesText(soft.take())).toEqual(["RST_STREAM 1 code=1"]);
      soft.send(request(3));
      expect(soft.events.take().at(-1)).toBe("head GET / HTTP/2 end [host: a]");
    }
  });

  it("whose body is not as long as its head says is malformed", () => {
    for (const pieces of [["12345"], ["12", "3456"], ["12"]]) {
      const { send, take, failures, events } = open();
      send(request(1, FLAG.END_HEADERS, POST + literal("content-length", "4")));
      for (const [k, piece] of pieces.entries())
        send(data(1, piece, k === pieces.length - 1 ? 1 : 0));
      expect(failures).toEqual([]);
      expect(framesText(take())).toContain("RST_STREAM 1 code=1");
      expect(events.take().at(-1)).toBe("reset protocol_error");
    }
  });

  it("with an underscore in a name is reset where the config rejects those", () => {
    const { send, take, failures } = open({
      options: { headersWithUnderscores: "REJECT_REQUEST" },
    });
    send(request(1, END, GET + literal("a_b", "1")));
    expect([framesText(take()), failures]).toEqual([["RST_STREAM 1 code=2"], []]);
  });

  it("whose head is too large or has too many lines is reset, and the table stays in step", () => {
    const { events, send, take } = open({ options: { maxHeadBytes: 300, maxHeaders: 7 } });
    const added = `\x40${"\x01x"}\x7f\xf1\x01${"v".repeat(368)}`;
    send(request(1, END, GET + added));
    send(request(3, END, GET + ["a", "b", "c", "d"].map((n) => literal(n, "1")).join("")));
    expect(framesText(take())).toEqual(["RST_STREAM 1 code=2", "RST_STREAM 3 code=2"]);
    send(request(5, END, GET + literal("y", "1")));
    expect(events.take().at(-1)).toBe("head GET / HTTP/2 end [host: a, y: 1]");
  });

  it("beyond the limit of streams is refused, and read for the table's sake", () => {
    const { events, send, take, cx } = open({ h2: { max_concurrent_streams: 1 } });
    send(request(1), request(3, END, `${GET}\x40\x01n\x01v`));
    expect(framesText(take())).toEqual(["RST_STREAM 3 code=7"]);
    expect(cx.stats.value("http2.stream_refused_errors")).toBe(1);
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    send(request(5, END, `${GET}\xbe`));
    expect(events.take().at(-1)).toBe("head GET / HTTP/2 end [host: a, n: v]");
  });

  it("that is not served may go on for a while: its body and trailers are ignored", () => {
    const { events, codec, send, take, failures } = open({ h2: { max_concurrent_streams: 1 } });
    const whole = (id: number) =>
      request(id, FLAG.END_HEADERS, POST) + data(id, "body") + request(id, END, literal("t", "1"));
    send(request(1), whole(3));
    expect(framesText(take())).toEqual(["RST_STREAM 3 code=7"]);
    codec.finish?.();
    send(whole(5));
    expect(framesText(take())).toEqual(["GOAWAY 0 last=3 code=0"]);
    expect(failures).toEqual([]);
    expect(events.requests).toHaveLength(1);
  });

  it("for an extended CONNECT looks like an upgrade, where the config allows it", () => {
    const block =
      literal(":method", "CONNECT") +
      literal(":protocol", "websocket") +
      literal(":scheme", "http") +
      literal(":path", "/chat") +
      literal(":authority", "a");
    const { events, send, take } = open({ h2: { allow_connect: true } });
    send(request(1, FLAG.END_HEADERS, block));
    expect(events.take()).toEqual([
      "head GET /chat HTTP/2 upgrade=websocket [host: a, upgrade: websocket, connection: upgrade]",
    ]);
    events.last.encoder.encodeHeaders(responseHeaders(101, "upgrade", "websocket"), false);
    expect(chars(take()[0]!.payload)).toEqual([0x88]);
    events.last.encoder.reset(true);
    expect(framesText(take())).toEqual(["RST_STREAM 1 code=10"]);
    // HTTP/2 has no 101, so one that agrees to nothing is 500 (the 14th of HPACK's table).
    send(request(3, FLAG.END_HEADERS, block));
    events.last.encoder.encodeHeaders(responseHeaders(101), true);
    expect(chars(take()[0]!.payload)).toEqual([0x8e]);
    const closed = open();
    closed.send(request(1, FLAG.END_HEADERS, block));
    expect(closed.failures).toHaveLength(1);
  });
});

describe("windows", () => {
  const small = {
    h2: { initial_stream_window_size: 65_535, initial_connection_window_size: 65_535 },
  };
  const sixteen = "x".repeat(16_384);

  it("are given back when the bytes have been taken, and not before", () => {
    const { events, send, take } = open(small);
    send(request(1, FLAG.END_HEADERS, POST));
    events.last.encoder.pauseReading(true);
    for (let k = 0; k < 3; k++) send(data(1, sixteen));
    expect(events.take()).toEqual(["head POST / HTTP/2 [host: a]"]);
    expect(take()).toEqual([]);
    events.last.encoder.pauseReading(false);
    expect(framesText(take())).toEqual(["WINDOW_UPDATE 0 by=32768", "WINDOW_UPDATE 1 by=32768"]);
    expect(events.take().join("")).toHaveLength("body ".length + 3 * 16_384);
  });

  it("are enforced: a client that sends beyond them has broken the protocol", () => {
    const { events, send, failures } = open(small);
    send(request(1, FLAG.END_HEADERS, POST));
    events.last.encoder.pauseReading(true);
    for (let k = 0; k < 4; k++) send(data(1, sixteen));
    expect(failures).toEqual(["codec_error:The_user_callback_function_failed"]);
  });

  it("of the client hold an answer back, and its source is told", () => {
    const { events, send, take, body } = open();
    send(frame(TYPE.SETTINGS, 0, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 5)), request(1));
    events.take();
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    body("hello world", false);
    expect(events.take()).toEqual(["blocked"]);
    expect(framesText(take()).slice(1)).toEqual(["HEADERS 1", "DATA 1 hello"]);
    send(frame(TYPE.WINDOW_UPDATE, 0, 1, uint32(4)));
    expect(framesText(take())).toEqual(["DATA 1  wor"]);
    send(frame(TYPE.SETTINGS, 0, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 100)));
    expect(framesText(take())).toContain("DATA 1 ld");
    expect(events.take()).toEqual(["drained"]);
    body("", true);
    expect(framesText(take())).toEqual(["DATA 1  end"]);
  });

  it("need no further room for an end that comes after the bytes", () => {
    const { events, send, take, body } = open();
    send(frame(TYPE.SETTINGS, 0, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 0)), request(1));
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    // As much as the connection's window takes, which nobody widens.
    body("x".repeat(65_535), false);
    body("", true);
    take();
    send(frame(TYPE.WINDOW_UPDATE, 0, 1, uint32(65_535)));
    expect(take().map((f) => [f.payload.length, f.flags & FLAG.END_STREAM])).toEqual([
      [16_384, 0],
      [16_384, 0],
      [16_384, 0],
      [16_383, 1],
    ]);
  });

  it("move once for all the values of one SETTINGS frame", () => {
    const { events, send, take, body, failures } = open();
    send(request(1));
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    const window = (size: number) => setting(SETTING.INITIAL_WINDOW_SIZE, size);
    send(frame(TYPE.SETTINGS, 0, 0, window(0) + window(70_000) + window(3)));
    take();
    body("hello", false);
    expect(framesText(take())).toEqual(["DATA 1 hel"]);
    send(frame(TYPE.SETTINGS, 0, 0, window(2 ** 31) + window(3)));
    expect(failures).toHaveLength(1);
  });

  it("let streams take turns", () => {
    const { events, send, take, body } = open();
    send(
      frame(TYPE.SETTINGS, 0, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 0)),
      request(1),
      request(3),
    );
    for (const index of [0, 1]) {
      events.requests[index]!.encoder.encodeHeaders(responseHeaders(200), false);
      body("x".repeat(20_000), true, index);
    }
    take();
    send(frame(TYPE.SETTINGS, 0, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 60_000)));
    const frames = take().filter((f) => f.type === TYPE.DATA);
    expect(frames.map((f) => [f.id, f.payload.length])).toEqual([
      [1, 16_384],
      [3, 16_384],
      [1, 3616],
      [3, 3616],
    ]);
  });

  it("that never open cost the stream, not the memory", () => {
    const { cx, events, send, take, body } = open({ options: { flushTimeoutMs: 1000 } });
    send(frame(TYPE.SETTINGS, 0, 0, setting(SETTING.INITIAL_WINDOW_SIZE, 0)), request(1));
    events.last.encoder.encodeHeaders(responseHeaders(200), false);
    body("hello", true);
    take();
    cx.clock.advance(1001);
    expect(framesText(take())).toEqual(["RST_STREAM 1 code=8"]);
    expect(cx.stats.value("http2.tx_flush_timeout")).toBe(1);
    expect(cx.stats.value("http2.pending_send_bytes")).toBe(0);
    expect(cx.stats.value("http2.streams_active")).toBe(0);
  });
});

describe("an answer", () => {
  it("that ends before its request tells the client not to go on", () => {
    const { events, send, take } = open();
    send(request(1, FLAG.END_HEADERS, POST));
    events.last.encoder.encodeHeaders(responseHeaders(413), true);
    expect(framesText(take())).toEqual(["HEADERS 1 end", "RST_STREAM 1 code=0"]);
    send(data(1, "late", 1));
    expect(take()).toEqual([]);
  });

  it("leaves out what HTTP/2 does not carry", () => {
    const { events, send, take } = open();
    send(request(1));
    const head = responseHeaders(
      200,
      "connection",
      "x",
      "keep-alive",
      "1",
      "transfer-encoding",
      "c",
    );
    events.last.encoder.encodeHeaders(head, true);
    expect(chars(take()[0]!.payload)).toEqual([0x88]);
  });

  it("is split where its head exceeds a frame", () => {
    const { events, send, take } = open();
    send(request(1));
    const value = "{".repeat(20_000);
    events.last.encoder.encodeHeaders(responseHeaders(200, "x", value), true);
    const [head, more] = take();
    expect(head).toMatchObject({ type: TYPE.HEADERS, flags: FLAG.END_STREAM });
    expect(more).toMatchObject({ type: TYPE.CONTINUATION, flags: FLAG.END_HEADERS });
  });

  it("is cut by a reset from either side", () => {
    const { events, send, take, cx } = open();
    send(request(1), request(3));
    events.requests[0]!.encoder.reset();
    expect(framesText(take())).toEqual(["RST_STREAM 1 code=2"]);
    events.take();
    send(frame(TYPE.RST_STREAM, 0, 3, uint32(CODE.CANCEL)));
    expect(events.take()).toEqual(["reset remote"]);
    expect(cx.stats.value("http2.rx_reset")).toBe(1);
    expect(cx.stats.value("http2.streams_active")).toBe(0);
  });
});

describe("frames behind the end of a request, or that break a rule of its stream, end the connection, as in Envoy:", () => {
  const own = "http2.unknown.nghttp2.error";
  it.each([
    ["DATA", data(1, "x"), "", ["GOAWAY 0 last=3 code=5"]],
    ["empty DATA", data(1, "", FLAG.END_STREAM), "", ["GOAWAY 0 last=3 code=5"]],
    ["PRIORITY too short", frame(TYPE.PRIORITY, 0, 1, "1234"), "", ["GOAWAY 0 last=3 code=6"]],
    ["a second head", request(1), own, []],
    ["trailers", request(1, END, literal("a", "b")), own, []],
    ["WINDOW_UPDATE by nothing", frame(TYPE.WINDOW_UPDATE, 0, 1, uint32(0)), own, []],
  ])("%s", (_, bytes, details, frames) => {
    for (const override_stream_error_on_invalid_http_message of [false, true]) {
      const { send, events, failures, connection } = open({
        h2: { override_stream_error_on_invalid_http_message },
      });
      send(request(1), request(3), bytes);
      expect(failures).toEqual(["codec_error:The_user_callback_function_failed"]);
      expect(events.requests.map((each) => each.resetDetails)).toEqual([details, ""]);
      expect(framesText(connection.take())).toEqual(frames);
    }
  });

  it("but a WINDOW_UPDATE past the largest window ends its stream (RFC 9113 §6.9.1)", () => {
    const { send, take, failures } = open();
    send(request(1), frame(TYPE.WINDOW_UPDATE, 0, 1, uint32(0x7fff_ffff)));
    expect([framesText(take()), failures]).toEqual([["RST_STREAM 1 code=3"], []]);
  });

  it("and not a WINDOW_UPDATE by nothing for a stream that is gone", () => {
    const { send, take, failures } = open();
    send(request(1), frame(TYPE.RST_STREAM, 0, 1, uint32(CODE.CANCEL)));
    send(frame(TYPE.WINDOW_UPDATE, 0, 1, uint32(0)));
    expect([framesText(take()), failures]).toEqual([[], []]);
  });
});

describe("a flood ends the connection:", () => {
  const cases: [string, string, () => string][] = [
    ["PING", "outbound_control_flood", () => frame(TYPE.PING, 0, 0, "12345678").repeat(1001)],
    ["SETTINGS", "outbound_control_flood", () => frame(TYPE.SETTINGS, 0, 0).repeat(1001)],
    ["empty DATA", "inbound_empty_frames_flood", () => request(1, 4, POST) + data(1, "").repeat(2)],
    [
      "DATA of padding alone",
      "inbound_empty_frames_flood",
      () => request(1, 4, POST) + data(1, "\x02..", FLAG.PADDED).repeat(2),
    ],
    [
      "PRIORITY",
      "inbound_priority_frames_flood",
      () => frame(TYPE.PRIORITY, 0, 1, "\0\0\0\0\0").repeat(101),
    ],
    [
      "WINDOW_UPDATE",
      "inbound_window_update_frames_flood",
      () => frame(TYPE.WINDOW_UPDATE, 0, 0, uint32(1)).repeat(6),
    ],
    [
      "CONTINUATION",
      "header_overflow",
      () => request(1, 0, GET) + frame(TYPE.CONTINUATION, 0, 1, literal("x", "1")).repeat(40),
    ],
    [
      "a head without end",
      "header_overflow",
      () => request(1, 0, GET) + frame(TYPE.CONTINUATION, 0, 1, "\x10".repeat(16_000)).repeat(6),
    ],
  ];
  for (const [name, stat, frames] of cases) {
    it(name, () => {
      const { cx, send, floods, connection } = open();
      send(frames());
      expect(floods).toEqual([stat !== "header_overflow"]);
      expect(cx.stats.value(`http2.${stat}`)).toBe(1);
      expect(framesText(connection.take()).at(-1)).toMatch(/^GOAWAY 0 last=\d code=11$/);
    });
  }

  describe("but not a client that sends such frames with each of its streams:", () => {
    const priority = frame(TYPE.PRIORITY, 0, 1, "\0\0\0\0\0");
    const update = frame(TYPE.WINDOW_UPDATE, 0, 0, uint32(1));
    const h2 = {
      max_inbound_priority_frames_per_stream: 2,
      max_inbound_window_update_frames_per_data_frame_sent: 2,
    };

    /** Opens a server whose client sends the frames with each of 20 requests, which are answered without a body. */
    function serve(frames: string) {
      const opened = open({ h2 });
      for (let k = 0; k < 20; k++) {
        opened.send(request(1 + 2 * k), frames);
        opened.events.last.encoder.encodeHeaders(responseHeaders(204), true);
      }
      return opened;
    }

    it("PRIORITY", () => {
      const { send, failures } = serve(priority.repeat(2));
      expect(failures).toEqual([]);
      send(priority.repeat(2));
      expect(failures).toEqual([]);
      send(priority);
      expect(failures).toEqual(["codec_error:Too_many_PRIORITY_frames"]);
    });

    it("WINDOW_UPDATE, and closed streams leave no allowance behind", () => {
      const { send, failures } = serve(update);
      send(update.repeat(5));
      expect(failures).toEqual([]);
      send(update);
      expect(failures).toEqual(["codec_error:Too_many_WINDOW_UPDATE_frames"]);
    });

    it("WINDOW_UPDATE for bodies, whose end counts as a DATA frame of its own", () => {
      const { send, body, events, failures } = open({ h2 });
      send(request(1));
      events.last.encoder.encodeHeaders(responseHeaders(200), false);
      body("whole", true);
      send(update.repeat(13));
      expect(failures).toEqual([]);
      send(update);
      expect(failures).toEqual(["codec_error:Too_many_WINDOW_UPDATE_frames"]);
    });
  });

  it("but a head that a few bytes of table make large ends only its stream, and is not laid out", () => {
    const { cx, send, take, events, connection } = open();
    send(request(1, 5, `${GET}\x40\x01x\x7e${"v".repeat(126)}`));
    const bomb = GET + "\xbe".repeat(16_000);
    for (let k = 0; k < 20; k++) send(request(3 + 2 * k, 5, bomb));
    expect(framesText(take())).toEqual(
      Array.from({ length: 20 }, (_, k) => `RST_STREAM ${3 + 2 * k} code=2`),
    );
    expect(cx.stats.value("http2.header_overflow")).toBe(0);
    expect(cx.stats.value("http2.header_list_size_too_large")).toBe(20);
    expect(connection.open).toBe(true);
    send(request(99, 5, `${GET}\xbe`));
    expect(events.last.headers.get("x")).toBe("v".repeat(126));
  });

  it("answers that a peer does not take: beyond max_outbound_frames the connection ends", () => {
    const { cx, send, take, connection, failures } = open({ h2: { max_outbound_frames: 5 } });
    const gauge = (name: string) => cx.stats.value(`http2.outbound_${name}_active`);
    send(request(1, 4, POST));
    connection.blocked = true;
    send(frame(TYPE.PING, 0, 0, "12345678"), frame(TYPE.PING, 0, 0, "12345678"));
    take();
    expect([gauge("frames"), gauge("control_frames")]).toEqual([2, 2]);
    send(frame(TYPE.PING, 0, 0, "12345678").repeat(4));
    expect(failures).toEqual(["http2.outbound_frames_flood"]);
    expect(cx.stats.value("http2.outbound_flood")).toBe(1);
    expect([gauge("frames"), gauge("control_frames")]).toEqual([0, 0]);
  });

  it("answers to thousands of frames at once count as frames first, then as control frames", () => {
    const { cx, send } = open({ h2: { max_outbound_frames: 5 } });
    send(frame(TYPE.PING, 0, 0, "12345678").repeat(1001));
    expect(cx.stats.value("http2.outbound_flood")).toBe(1);
    expect(cx.stats.value("http2.outbound_control_flood")).toBe(0);
  });

  it("PRIORITY: as many as max_inbound_priority_frames_per_stream for each stream that is open, and once more", () => {
    const { send, events, failures } = open({ h2: { max_inbound_priority_frames_per_stream: 2 } });
    const priorities = (n: number) => frame(TYPE.PRIORITY, 0, 1, "\0\0\0\0\0").repeat(n);
    send(request(1, 5, GET), priorities(4));
    expect(failures).toEqual([]);
    events.last.encoder.encodeHeaders(responseHeaders(200), true);
    send(priorities(1));
    expect(failures).toEqual(["codec_error:Too_many_PRIORITY_frames"]);
  });

  it.each([
    ["PING", frame(TYPE.PING, 0, 1, "12345678")],
    ["SETTINGS", frame(TYPE.SETTINGS, 0, 1)],
    ["GOAWAY", frame(TYPE.GOAWAY, 0, 1, "\0".repeat(8))],
    ["PUSH_PROMISE", frame(TYPE.PUSH_PROMISE, 4, 1, "\0\0\0\x02")],
  ])("a misplaced %s frame is an error of the protocol, no flood", (_, bytes) => {
    const { send, events, floods } = open();
    send(request(1), request(3), bytes);
    expect(floods).toEqual([false]);
    expect(events.requests.map(({ resetDetails }) => resetDetails)).toEqual([
      "http2.unknown.nghttp2.error",
      "",
    ]);
  });

  it("and new streams beyond a turn's share wait for the next one", () => {
    const { send, events, codec, connection } = open();
    const many = Array.from({ length: 100 }, (_, k) => request(2 * k + 1)).join("");
    send(many);
    expect(events.requests).toHaveLength(64);
    expect(connection.pauses).toBe(1);
    codec.onAgain();
    expect(events.requests).toHaveLength(100);
    expect(connection.pauses).toBe(0);
  });
});

it("asks a silent client whether it is there, and closes when no answer comes", () => {
  const keepAlive = { interval: 10_000, timeout: 2000, interval_jitter: { value: 0 } };
  const { cx, send, take, connection } = open({ h2: { connection_keepalive: keepAlive } });
  cx.clock.advance(10_050);
  const [ping] = take();
  expect(ping).toMatchObject({ type: TYPE.PING, flags: 0 });
  send(frame(TYPE.PING, FLAG.ACK, 0, ping!.payload));
  cx.clock.advance(5000);
  expect(connection.open).toBe(true);
  cx.clock.advance(7100);
  expect(connection.closed).toBe("abort");
  expect(cx.stats.value("http2.keepalive_timeout")).toBe(1);
});

it("tells how many of its bytes were frames of heads", () => {
  const { events, send, take, body } = open();
  send(frame(TYPE.HEADERS, FLAG.END_HEADERS, 1, POST), frame(TYPE.DATA, FLAG.END_STREAM, 1, "abc"));
  const { encoder } = events.requests.at(-1)!;
  expect(encoder.headerReceived).toBe(9 + POST.length);
  expect(encoder.wireReceived).toBe(9 + POST.length + 9 + 3);
  encoder.encodeHeaders(responseHeaders(200), false);
  body("ok", true);
  const head = take().find(({ type }) => type === TYPE.HEADERS)!;
  expect(encoder.headerSent).toBe(9 + head.payload.length);
  // Names and values, as they are without compression.
  expect(encoder.fieldsReceived).toBe(":methodPOST:schemehttp:path/:authoritya".length);
  expect(encoder.fieldsSent).toBe(":status200".length);
});
