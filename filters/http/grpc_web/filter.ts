import {
  type Chunk,
  defineHttpFilter,
  done,
  grpcStatusOfHttp,
  type HeaderMap,
  type HttpFilter,
  type HttpStream,
  headerName,
  hold,
  lastChunk,
  latin1Encode,
  type RequestHeaders,
  type ResponseHeaders,
  reply,
} from "@tsproxy/sdk";
import { Base64Encoder, decodeBase64 } from "./base64.ts";
import { Config } from "./config.ts";
import { FrameSplitter } from "./frame-splitter.ts";
import { GrpcWebStats } from "./stats.ts";

const CONTENT_TYPE = headerName("content-type");
const CONTENT_LENGTH = headerName("content-length");
const ACCEPT = headerName("accept");
const GRPC_ACCEPT_ENCODING = headerName("grpc-accept-encoding");
const GRPC_STATUS = headerName("grpc-status");
const GRPC_MESSAGE = headerName("grpc-message");

const WEB = new Set(["application/grpc-web", "application/grpc-web+proto"]);
const TEXT = new Set(["application/grpc-web-text", "application/grpc-web-text+proto"]);
/** Content types of responses whose body is gRPC. */
const GRPC = new Set(["application/grpc", "application/grpc+proto", ...WEB, ...TEXT]);
/** Most bytes of a body that is not gRPC that become `grpc-message`. */
const MAX_MESSAGE = 16 * 1024;
/** The flag of a frame that has trailers in it. */
const TRAILERS_FLAG = 0x80;
const NOTHING = new Uint8Array(0);

const BAD_SIZE = badRequest("grpc_base_64_decode_failed_bad_size");
const BAD_BASE64 = badRequest("grpc_base_64_decode_failed");

function badRequest(details: string) {
  return reply(400, { body: "Bad gRPC-web request, invalid base64 data.", details });
}

/** Turns one call of a gRPC-Web client into what a gRPC server understands, and its response back. */
class GrpcWebFilter implements HttpFilter {
  readonly #stream: HttpStream;
  #isCall = false;
  #isText = false;
  #answersText = false;
  /** Base64 that waits for the rest of its group of four. */
  #waiting: Uint8Array = NOTHING;
  /** The response is not gRPC: its body becomes `grpc-message`. */
  #isForeign = false;
  readonly #splitter = new FrameSplitter();
  readonly #encoder = new Base64Encoder();
  readonly #stats: GrpcWebStats;
  /** The path as the client sent it, which counts in stats; a route may rewrite it. */
  #path = "";

  constructor(stream: HttpStream, stats: GrpcWebStats) {
    this.#stream = stream;
    this.#stats = stats;
  }

  onRequestHeaders(headers: RequestHeaders) {
    const type = headers.get(CONTENT_TYPE) ?? "";
    this.#isText = TEXT.has(type);
    if (!this.#isText && !WEB.has(type)) return done;
    this.#isCall = true;
    this.#answersText = TEXT.has(headers.get(ACCEPT) ?? "");
    this.#path = headers.path;
    headers.remove(CONTENT_LENGTH);
    headers.set(CONTENT_TYPE, "application/grpc");
    headers.set("te", "trailers");
    if (!headers.has(GRPC_ACCEPT_ENCODING)) headers.set(GRPC_ACCEPT_ENCODING, "identity");
    return undefined;
  }

  onRequestBody(chunk: Chunk, endStream: boolean) {
    if (!this.#isText) return undefined;
    const all = join(this.#waiting, chunk);
    const whole = all.length - (all.length % 4);
    const decoded = decodeBase64(all.subarray(0, whole));
    if (decoded === undefined) return BAD_BASE64;
    if (endStream && all.length > whole) return BAD_SIZE;
    this.#waiting = all.slice(whole);
    chunk.replace(decoded);
    return undefined;
  }

  onResponseHeaders(headers: ResponseHeaders, endStream: boolean) {
    // If a filter before this one has answered the request, this one has not seen it.
    if (!this.#isCall) return done;
    this.#count(headers);
    this.#isForeign = !GRPC.has(headers.get(CONTENT_TYPE) ?? "");
    const text = this.#answersText ? "-text" : "";
    headers.set(CONTENT_TYPE, `application/grpc-web${text}+proto`);
    if (endStream) return undefined;
    headers.remove(CONTENT_LENGTH);
    return this.#isForeign ? hold({ max: 0 }) : undefined;
  }

  onResponseBody(chunk: Chunk) {
    if (this.#isForeign) {
      this.#explain(chunk);
      return;
    }
    if (!this.#answersText) return;
    const pieces: Uint8Array[] = [];
    this.#splitter.split(chunk.memory, chunk.at, chunk.end, (bytes, last) => {
      pieces.push(this.#encoder.encode(bytes, last));
    });
    chunk.replace(concat(pieces));
  }

  /** Turns the whole body of a response that is not gRPC into a gRPC status. */
  #explain(chunk: Chunk): void {
    const headers = this.#stream.response;
    if (headers === undefined) return;
    const message = percentEncode(chunk.copy().subarray(0, MAX_MESSAGE));
    headers.set(GRPC_STATUS, String(grpcStatusOfHttp(headers.status)));
    if (message !== "") headers.set(GRPC_MESSAGE, message);
    headers.set(CONTENT_LENGTH, "0");
    chunk.replace(NOTHING);
  }

  #count(headers: HeaderMap): void {
    const status = headers.get(GRPC_STATUS) ?? "";
    if (CODE.test(status)) this.#stats.count(this.#stream.info, this.#path, status);
  }

  /** A client in a browser sees no trailers, so they are the body's last frame. */
  onResponseTrailers(trailers: HeaderMap) {
    this.#count(trailers);
    if (this.#isForeign) return lastChunk(NOTHING);
    let lines = "";
    for (const [name, value] of trailers) lines += `${name}:${value}\r\n`;
    const text = latin1Encode(lines);
    const frame = new Uint8Array(5 + text.length);
    frame[0] = TRAILERS_FLAG;
    new DataView(frame.buffer).setUint32(1, text.length);
    frame.set(text, 5);
    return lastChunk(this.#answersText ? this.#encoder.encode(frame, true) : frame);
  }
}

/** A status that gRPC defines; others are not counted. */
const CODE = /^(?:[0-9]|1[0-6])$/;

function join(before: Uint8Array, chunk: Chunk): Uint8Array {
  const all = new Uint8Array(before.length + chunk.length);
  all.set(before);
  all.set(chunk.memory.subarray(chunk.at, chunk.end), before.length);
  return all;
}

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** `grpc-message` (gRPC over HTTP/2, "Responses"). */
function percentEncode(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    const plain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25;
    text += plain
      ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return text;
}

export default defineHttpFilter({
  name: "envoy.filters.http.grpc_web",
  aliases: ["envoy.grpc_web"],
  types: ["envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"],
  config: Config,
  setup(_config, cx) {
    const stats = new GrpcWebStats(cx);
    return (stream) => new GrpcWebFilter(stream, stats);
  },
});
