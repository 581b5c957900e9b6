import { Chunk as Bytes, type Chunk, latin1Decode, latin1Encode } from "../bytes.ts";
import type {
  ClientEvents,
  CodecOptions,
  DecodeError,
  RequestDecoder,
  RequestInfo,
  ResetReason,
  ResponseDecoder,
  ResponseEncoder,
  ServerEvents,
} from "../codec.ts";
import { type HeaderMap, RequestHeaders, ResponseHeaders } from "../headers.ts";

/** The codec options of Envoy's connection manager by default. */
export const CODEC_OPTIONS: CodecOptions = {
  maxHeadBytes: 60 * 1024,
  maxHeaders: 100,
  enableTrailers: false,
  acceptHttp10: false,
  defaultHostForHttp10: "",
  allowAbsoluteUrl: true,
  allowChunkedLength: false,
  allowCustomMethods: false,
  headersWithUnderscores: "ALLOW",
};

/** A chunk of lent memory: `used` overwrites it, as a socket does when the hook has returned. */
export class LentChunk extends Bytes {
  constructor(text: string) {
    const bytes = latin1Encode(`..${text}..`);
    super(bytes, 2, bytes.length - 2);
  }
  used(): void {
    this.memory.fill(0x21);
  }
}

/** `name: value` of every line, joined by `, `. */
export function linesOf(headers: HeaderMap): string {
  return [...headers].map(([name, value]) => `${name}: ${value}`).join(", ");
}

/** One request as the connection manager's decoder sees it; each call becomes a line of the manager's `log`. */
export class TestRequest implements RequestDecoder {
  readonly headers = new RequestHeaders();
  readonly encoder: ResponseEncoder;
  info: RequestInfo | undefined = undefined;
  error: DecodeError | undefined = undefined;
  /** Details of the reset; "": none. */
  resetDetails = "";
  readonly #manager: TestServerEvents;

  constructor(manager: TestServerEvents, encoder: ResponseEncoder) {
    this.#manager = manager;
    this.encoder = encoder;
  }

  onRequestHeaders(info: RequestInfo, endStream: boolean): void {
    this.info = { ...info };
    const marks = [
      info.isHead ? " isHead" : "",
      info.isConnect ? " isConnect" : "",
      info.upgrade === "" ? "" : ` upgrade=${info.upgrade}`,
      info.contentLength < 0 ? "" : ` length=${info.contentLength}`,
      info.expectContinue ? " expectContinue" : "",
      endStream ? " end" : "",
    ].join("");
    const { method, path } = this.headers;
    this.#manager.note(
      `head ${method} ${path} ${info.protocol}${marks} [${linesOf(this.headers)}]`,
    );
    this.#manager.onHead(this, endStream);
  }
  onRequestBody(chunk: Chunk, endStream: boolean): void {
    this.#manager.noteBody(chunk, endStream);
    if (endStream) this.#manager.onEnd(this);
  }
  onRequestTrailers(trailers: HeaderMap): void {
    this.#manager.note(`trailers [${linesOf(trailers)}]`);
    this.#manager.onEnd(this);
  }
  onDecodeError(error: DecodeError): void {
    this.error = error;
    this.#manager.note(`error ${error.status} ${error.details}`);
    this.#manager.onError(this);
  }
  onReset(reason: ResetReason, details = ""): void {
    this.resetDetails = details;
    this.#manager.note(`reset ${reason}`);
  }
  onBlocked(blocked: boolean): void {
    this.#manager.note(blocked ? "blocked" : "drained");
  }
}

/** Stands for the connection manager: notes every event. A test may replace `onHead`, `onEnd` and `onError`. */
export class TestServerEvents implements ServerEvents {
  readonly log: string[] = [];
  readonly requests: TestRequest[] = [];
  onHead: (request: TestRequest, endStream: boolean) => void = () => {};
  onEnd: (request: TestRequest) => void = () => {};
  onError: (request: TestRequest) => void = () => {};

  get last(): TestRequest {
    return this.requests.at(-1)!;
  }
  /** The events since the last `take`. */
  take(): string[] {
    return this.log.splice(0);
  }
  note(line: string): void {
    this.log.push(line);
  }
  noteBody(chunk: Chunk, endStream: boolean): void {
    noteBody(this.log, chunk, endStream);
  }
  onStream(encoder: ResponseEncoder): RequestDecoder {
    const request = new TestRequest(this, encoder);
    this.requests.push(request);
    return request;
  }
  onIdleEnd(): void {
    this.note("idle end");
  }
}

/** Stands for the pool and the router of one upstream connection: notes every event. */
export class TestClientEvents implements ClientEvents, ResponseDecoder {
  readonly responseHeaders = new ResponseHeaders();
  readonly log: string[] = [];
  onHead: (endStream: boolean) => void = () => {};

  take(): string[] {
    return this.log.splice(0);
  }
  onIdle(): void {
    this.log.push("idle");
  }
  onFailed(): void {
    this.log.push("failed");
  }
  onRetire(): void {
    this.log.push("retire");
  }
  onInformational(headers: ResponseHeaders): void {
    this.log.push(`informational ${headers.status} [${linesOf(headers)}]`);
  }
  onResponseHeaders(endStream: boolean): void {
    const headers = this.responseHeaders;
    this.log.push(`head ${headers.status}${endStream ? " end" : ""} [${linesOf(headers)}]`);
    this.onHead(endStream);
  }
  onResponseBody(chunk: Chunk, endStream: boolean): void {
    noteBody(this.log, chunk, endStream);
  }
  onResponseTrailers(trailers: HeaderMap): void {
    this.log.push(`trailers [${linesOf(trailers)}]`);
  }
  onDecodeError(error: DecodeError): void {
    this.log.push(`error ${error.status} ${error.details}`);
  }
  onUpstreamReset(reason: ResetReason): void {
    this.log.push(`reset ${reason}`);
  }
  onUpstreamBlocked(blocked: boolean): void {
    this.log.push(blocked ? "blocked" : "drained");
  }
}

/** Pieces of one body make one line, so that a log does not depend on how the bytes were cut. */
function noteBody(log: string[], chunk: Chunk, endStream: boolean): void {
  const text = latin1Decode(chunk.memory, chunk.at, chunk.end);
  const last = log.at(-1);
  if (last?.startsWith("body ")) log[log.length - 1] = last + text;
  else if (text !== "") log.push(`body ${text}`);
  if (endStream) log.push("end");
}

/** A request head made by hand. The first two of `lines` are usually `host` and its value. */
export function requestHeaders(method: string, path: string, ...lines: string[]): RequestHeaders {
  const headers = new RequestHeaders();
  headers.method = method;
  headers.path = path;
  for (let k = 0; k + 1 < lines.length; k += 2) headers.append(lines[k]!, lines[k + 1]!);
  return headers;
}

/** A response head made by hand. */
export function responseHeaders(status: number, ...lines: string[]): ResponseHeaders {
  const headers = new ResponseHeaders();
  headers.status = status;
  for (let k = 0; k + 1 < lines.length; k += 2) headers.append(lines[k]!, lines[k + 1]!);
  return headers;
}
