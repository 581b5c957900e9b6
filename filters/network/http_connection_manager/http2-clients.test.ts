import { compileFormat, defineAccessLogger, Type } from "@tsproxy/sdk";
import { LentChunk } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import http2 from "../../codec/http2/filter.ts";
import { FLAG, PREFACE, TYPE } from "../../codec/http2/frame.ts";
import { frame, framesText, GET, literal } from "../../codec/http2/test-frames.ts";
import router from "../../http/router/filter.ts";
import { TestProxy } from "./test-proxy.ts";

/** A client of HTTP/2, and the frames that it has got since the last call. */
function connect(p: TestProxy) {
  const client = p.connect();
  const take = () => {
    client.filter.onAgain?.();
    return framesText(client.connection.take());
  };
  client.send(PREFACE + frame(TYPE.SETTINGS, 0, 0));
  return { client, take };
}

it("the codec of HTTP/2 is set up for the first client that speaks it; a canary does so at once", () => {
  const proxy = (role: "worker" | "canary") => {
    let setups = 0;
    const counted: typeof http2 = {
      ...http2,
      setup: (config, cx) => {
        setups++;
        return http2.setup(config, cx);
      },
    };
    const p = new TestProxy({ codec, http2: counted, router });
    p.cx.role = role;
    return { p: p.start(), setups: () => setups };
  };
  const { p, setups } = proxy("worker");
  p.connect().get("/");
  expect(setups()).toBe(0);
  for (let n = 0; n < 2; n++) {
    connect(p).client.send(frame(TYPE.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, 1, GET));
    expect(setups()).toBe(1);
  }
  expect(proxy("canary").setups()).toBe(1);
});

it("a client of HTTP/2 that leaves after one of its responses was cut off is not waited for", () => {
  const p = new TestProxy({ codec, http2, router }).start();
  const { client, take } = connect(p);
  client.send(frame(TYPE.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, 1, GET));
  p.up.last.respond(200, { "content-length": "5" });
  p.up.last.send("abc", false);
  p.up.last.break("connection_closed");
  expect(take()).toContain("RST_STREAM 1 code=2");
  expect(client.connection.open).toBe(true);
  client.filter.onData?.(new LentChunk(""), true);
  expect(client.connection.closed).toBe("flush");
});

it("a client of HTTP/2 whose upgrade is refused is asked to leave, as in Envoy, and others of its streams go on", () => {
  const p = new TestProxy({ codec, http2, router }).start({
    http2_protocol_options: { allow_connect: true },
  });
  const { client, take } = connect(p);
  client.send(frame(TYPE.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, 1, GET));
  take();
  const fields: [string, string][] = [
    [":method", "CONNECT"],
    [":protocol", "websocket"],
    [":scheme", "http"],
    [":path", "/"],
    [":authority", "a"],
  ];
  const block = fields.map(([name, value]) => literal(name, value)).join("");
  client.send(frame(TYPE.HEADERS, FLAG.END_HEADERS, 3, block));
  const frames = take();
  expect(frames[0]).toMatch(/^GOAWAY 0 last=2147483647 code=0/);
  expect(frames.slice(1)).toEqual(["HEADERS 3 end", "RST_STREAM 3 code=0"]);
  p.up.last.respond(200, {}, "whole");
  expect(take()).toContain("DATA 1 whole end");
  expect(client.connection.open).toBe(true);
});

it("a frame that ends a connection of HTTP/2 is told of the stream that it was for, and the codec's error of the others, as in Envoy", () => {
  const p = new TestProxy({ codec, http2, router });
  const lines: string[] = [];
  const format = compileFormat("%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%");
  const logger = { log: (entry: never) => void lines.push(format.format(entry)) };
  p.cx.define(
    "access_log/test",
    defineAccessLogger({ name: "test", config: Type.Object({}), setup: () => logger }),
  );
  p.start({ access_log: [{ name: "test", package: "access_log/test", config: {} }] });
  const { client } = connect(p);
  const head = (id: number) => frame(TYPE.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, id, GET);
  client.send(head(1) + head(3) + frame(TYPE.WINDOW_UPDATE, 0, 1, "\0\0\0\0"));
  expect(lines).toEqual([
    "DPE http2.unknown.nghttp2.error",
    "DPE codec_error:The_user_callback_function_failed",
  ]);
});
