import { LentChunk } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import http2 from "../../codec/http2/filter.ts";
import { FLAG, PREFACE, TYPE } from "../../codec/http2/frame.ts";
import { frame, framesText, GET } from "../../codec/http2/test-frames.ts";
import router from "../../http/router/filter.ts";
import { TestProxy } from "./test-proxy.ts";

it("a client of HTTP/2 that leaves after one of its responses was cut off is not waited for", () => {
  const p = new TestProxy({ codec, http2, router }).start();
  const client = p.connect();
  const take = () => {
    client.filter.onAgain?.();
    return framesText(client.connection.take());
  };
  client.send(PREFACE + frame(TYPE.SETTINGS, 0, 0));
  client.send(frame(TYPE.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, 1, GET));
  p.up.last.respond(200, { "content-length": "5" });
  p.up.last.send("abc", false);
  p.up.last.break("connection_closed");
  expect(take()).toContain("RST_STREAM 1 code=2");
  expect(client.connection.open).toBe(true);
  client.filter.onData?.(new LentChunk(""), true);
  expect(client.connection.closed).toBe("flush");
});
