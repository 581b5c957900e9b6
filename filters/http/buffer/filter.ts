import {
  type Chunk,
  ConfigError,
  defineHttpFilter,
  done,
  type HttpFilter,
  type HttpStream,
  headerName,
  hold,
  type RequestHeaders,
} from "@tsproxy/sdk";
import { Config, RouteConfig } from "./config.ts";

const CONTENT_LENGTH = headerName("content-length");

/** Holds a request back until its body is complete, so the upstream never waits on a slow client. */
class BufferFilter implements HttpFilter {
  readonly #max: number;
  readonly #stream: HttpStream;

  constructor(config: Config, stream: HttpStream) {
    this.#max = config.max_request_bytes;
    this.#stream = stream;
  }

  // Past the limit the stream itself answers 413; no filter sees that data.
  onRequestHeaders(_headers: RequestHeaders, endStream: boolean) {
    if (endStream) return;
    const route = this.#stream.routeConfig as RouteConfig | undefined;
    if (route?.disabled === true) return done;
    // Envoy checks the limit when it keeps a chunk. Over HTTP/2 a chunk that is the whole body says so, and is not kept.
    const exceptLast = this.#stream.info.protocol === "HTTP/2";
    const max = route?.buffer?.max_request_bytes ?? this.#max;
    return hold({ body: "buffer", max, exceptLast });
  }

  /** The whole body: its length is known now, so a chunked request need not stay one. */
  onRequestBody(chunk: Chunk) {
    const { request } = this.#stream;
    if (!request.has(CONTENT_LENGTH)) request.set(CONTENT_LENGTH, String(chunk.length));
  }
}

export default defineHttpFilter({
  name: "envoy.filters.http.buffer",
  aliases: ["envoy.buffer"],
  types: ["envoy.extensions.filters.http.buffer.v3.Buffer"],
  config: Config,
  routeConfig: RouteConfig,
  setupRoute(config) {
    if ((config.disabled === undefined) === (config.buffer === undefined))
      throw new ConfigError("", "give one of disabled and buffer");
    return config;
  },
  setup: (config) => (stream) => new BufferFilter(config, stream),
});
