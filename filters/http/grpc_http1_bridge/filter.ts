import {
  type Chunk,
  defineHttpFilter,
  done,
  type HeaderMap,
  type HttpFilter,
  type HttpStream,
  headerName,
  hold,
  isGrpcRequest,
  type RequestHeaders,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

const CONTENT_TYPE = headerName("content-type");
const CONTENT_LENGTH = headerName("content-length");
const GRPC_STATUS = headerName("grpc-status");
const GRPC_MESSAGE = headerName("grpc-message");
/** A flag byte and four bytes of length stand before every message. */
const FRAME_HEAD = 5;

/** One call of a client that speaks HTTP/1.1 and cannot read trailers: they are moved into the head. */
class GrpcHttp1BridgeFilter implements HttpFilter {
  readonly #config: Config;
  readonly #stream: HttpStream;
  /** The client sends protobuf without gRPC's frames, and wants its answer so. */
  #framing = false;
  #answerSize = 0;

  constructor(config: Config, stream: HttpStream) {
    this.#config = config;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders, endStream: boolean) {
    const isUpgrade =
      this.#config.upgrade_protobuf_to_grpc &&
      headers.get(CONTENT_TYPE) === "application/x-protobuf";
    if (isUpgrade) {
      headers.set(CONTENT_TYPE, "application/grpc");
      headers.remove(CONTENT_LENGTH);
      this.#stream.clearRoute();
    }
    if (this.#stream.info.protocol === "HTTP/2" || !isGrpcRequest(headers)) return done;
    this.#framing = isUpgrade;
    if (this.#config.ignore_query_parameters) headers.path = headers.path.split("?", 1)[0]!;
    return isUpgrade && !endStream ? hold({ max: 0 }) : undefined;
  }

  onRequestBody(chunk: Chunk) {
    if (!this.#framing) return;
    const framed = new Uint8Array(FRAME_HEAD + chunk.length);
    new DataView(framed.buffer).setUint32(1, chunk.length);
    framed.set(chunk.memory.subarray(chunk.at, chunk.end), FRAME_HEAD);
    chunk.replace(framed);
  }

  onResponseHeaders(headers: HeaderMap, endStream: boolean) {
    // An answer that is not gRPC (a local reply, say) has no frame.
    if (!(headers.get(CONTENT_TYPE) ?? "").startsWith("application/grpc")) this.#framing = false;
    return endStream ? undefined : hold({ max: 0, trailers: true });
  }

  onResponseBody(chunk: Chunk, endStream: boolean) {
    // As in Envoy, an answer without trailers, which is not gRPC, keeps what would be its frame.
    if (this.#framing && !endStream) chunk.replace(chunk.copy().subarray(FRAME_HEAD));
    this.#answerSize = chunk.length;
  }

  /** Head and body are still held, so the head can be edited. */
  onResponseTrailers(trailers: HeaderMap) {
    const headers = this.#stream.response;
    if (headers === undefined) return;
    const status = trailers.get(GRPC_STATUS);
    if (status !== undefined) {
      if (!/^0+$/.test(status)) headers.status = 503;
      headers.set(GRPC_STATUS, status);
    }
    const message = trailers.get(GRPC_MESSAGE);
    if (message !== undefined) headers.set(GRPC_MESSAGE, message);
    headers.set(CONTENT_LENGTH, String(this.#answerSize));
  }
}

export default defineHttpFilter({
  name: "envoy.filters.http.grpc_http1_bridge",
  aliases: ["envoy.grpc_http1_bridge"],
  types: ["envoy.extensions.filters.http.grpc_http1_bridge.v3.Config"],
  config: Config,
  setup: (config) => (stream) => new GrpcHttp1BridgeFilter(config, stream),
});
