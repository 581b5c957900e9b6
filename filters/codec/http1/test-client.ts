import type { CodecOptions, RequestHeaders } from "@tsproxy/sdk";
import {
  CODEC_OPTIONS,
  LentChunk,
  requestHeaders,
  TestClientEvents,
  TestConnection,
  TestContext,
} from "@tsproxy/sdk/testing";
import http1 from "./filter.ts";

/** How a connection ends that the upstream has closed. */
export const remote = {
  by: "remote",
  phase: "connected",
  timeout: false,
  error: undefined,
} as const;

export const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/** A codec towards an upstream, and what it writes and tells. */
export function open(options: Partial<CodecOptions> = {}) {
  const connection = new TestConnection();
  const events = new TestClientEvents();
  const factory = new TestContext().setup(http1, {});
  const codec = factory.createClient(connection, events, { ...CODEC_OPTIONS, ...options });
  const send = (text: string) => {
    const chunk = new LentChunk(text);
    codec.onData(chunk);
    chunk.used();
  };
  const ask = (
    headers: RequestHeaders = requestHeaders("GET", "/", "host", "a"),
    endStream = true,
    upgrade = "",
  ) => {
    const encoder = codec.newStream(events);
    encoder.encodeHeaders(headers, endStream, upgrade);
    return encoder;
  };
  return { connection, events, codec, send, ask };
}
