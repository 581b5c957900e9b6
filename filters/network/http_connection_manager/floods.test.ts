import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import http2 from "../../codec/http2/filter.ts";
import { PREFACE, TYPE } from "../../codec/http2/frame.ts";
import { frame } from "../../codec/http2/test-frames.ts";
import router from "../../http/router/filter.ts";
import { TestProxy } from "./test-proxy.ts";

it.each([
  ["a flood, which the codec counts, is", frame(TYPE.SETTINGS, 0, 0).repeat(1001), 0],
  ["a frame that breaks HTTP/2 is", frame(TYPE.PING, 0, 1, "12345678"), 1],
])("%s counted as an error of the protocol so many times", (_, bytes, errors) => {
  const p = new TestProxy({ codec, http2, router }).start();
  const client = p.connect();
  client.send(PREFACE + frame(TYPE.SETTINGS, 0, 0));
  client.send(bytes);
  expect(client.connection.closed).toBe("delayed");
  expect(p.cx.stats.value("http.test.downstream_cx_protocol_error")).toBe(errors);
});
