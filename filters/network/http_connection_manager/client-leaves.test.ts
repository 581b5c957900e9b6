import { Chunk } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import http2 from "../../codec/http2/filter.ts";
import { FLAG, PREFACE, TYPE } from "../../codec/http2/frame.ts";
import { frame, POST } from "../../codec/http2/test-frames.ts";
import router from "../../http/router/filter.ts";
import { TestProxy } from "./test-proxy.ts";

it("closes at once what the client has ended, although a response was cut before", () => {
  const p = new TestProxy({ codec, http2, router }).start({
    common_http_protocol_options: { idle_timeout: 0, max_stream_duration: 100 },
  });
  const client = p.connect();
  client.send(PREFACE + frame(TYPE.SETTINGS, 0, 0));
  client.send(frame(TYPE.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, 1, POST));
  p.up.last.respond(200, {});
  p.cx.clock.advance(100);
  expect([p.up.last.wasReset, client.connection.closed]).toEqual([true, undefined]);
  client.filter.onData?.(new Chunk(new Uint8Array(0), 0, 0), true);
  expect(client.connection.closed).toBe("flush");
});
