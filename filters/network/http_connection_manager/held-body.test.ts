import type { StreamInfo } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import http2 from "../../codec/http2/filter.ts";
import { FLAG, PREFACE, TYPE } from "../../codec/http2/frame.ts";
import { frame, POST } from "../../codec/http2/test-frames.ts";
import router from "../../http/router/filter.ts";
import { TestProxy } from "./test-proxy.ts";

it("counts a body that HTTP/2 keeps while a connection is awaited, which then fails", () => {
  const received: number[] = [];
  const p = new TestProxy({ codec, http2, router });
  p.cx.define("access_log/sizes", {
    kind: "access_log",
    setup: () => ({
      log: ({ info }: { info: StreamInfo }) => void received.push(info.bytesReceived),
    }),
  });
  p.start({ access_log: [{ name: "l", package: "access_log/sizes", config: {} }] });
  p.up.answer = "pending";
  const client = p.connect();
  client.send(PREFACE + frame(TYPE.SETTINGS, 0, 0));
  client.send(frame(TYPE.HEADERS, FLAG.END_HEADERS, 1, POST));
  client.send(frame(TYPE.DATA, 0, 1, "01234"));
  client.send(frame(TYPE.DATA, FLAG.END_STREAM, 1, "56789"));
  p.up.last.fail({});
  expect(received).toEqual([10]);
  const stat = (name: string) => p.cx.stats.value(`http.test.downstream_rq_${name}`);
  expect([stat("5xx"), stat("response_before_rq_complete"), stat("rx_reset")]).toEqual([1, 0, 0]);
});
