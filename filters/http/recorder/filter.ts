import {
  type Chunk,
  defineHttpFilter,
  formatAddress,
  type HeaderMap,
  type HttpFilter,
  type HttpStream,
  latin1Decode,
  type RequestHeaders,
  type ResponseHeaders,
  type SetupContext,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** The operation of core that receives each recorded exchange. */
const OPERATION = "core.recorded";

/** One direction of an exchange, in the shape in which core gets it. */
class Half {
  head: [string, string][] = [];
  /** One char per byte. */
  body = "";
  cut = false;
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  take(chunk: Chunk): void {
    const end = Math.min(chunk.end, chunk.at + this.#max - this.body.length);
    this.body += latin1Decode(chunk.memory, chunk.at, end);
    if (end < chunk.end) this.cut = true;
  }
}

/** Records one exchange. Stands first in the filter chain: sees requests as clients send them, responses as clients get them. */
class Recorder implements HttpFilter {
  readonly #stream: HttpStream;
  readonly #cx: SetupContext;
  readonly #request: Half;
  readonly #response: Half;
  #method = "";
  #path = "";
  #authority = "";
  #status = 0;
  #isWhole = false;

  constructor(stream: HttpStream, config: Config, cx: SetupContext) {
    this.#stream = stream;
    this.#cx = cx;
    this.#request = new Half(config.max_body_bytes);
    this.#response = new Half(config.max_body_bytes);
  }

  onRequestHeaders(headers: RequestHeaders) {
    // Copied now: filters after this one edit the head.
    this.#method = headers.method;
    this.#path = headers.path;
    this.#authority = headers.authority ?? "";
    this.#request.head = linesOf(headers);
  }

  onRequestBody(chunk: Chunk) {
    this.#request.take(chunk);
  }

  onResponseHeaders(headers: ResponseHeaders, endStream: boolean) {
    this.#status = headers.status;
    this.#response.head = linesOf(headers);
    this.#isWhole = endStream;
  }

  onResponseBody(chunk: Chunk, endStream: boolean) {
    this.#response.take(chunk);
    this.#isWhole = endStream;
  }

  onResponseTrailers() {
    this.#isWhole = true;
  }

  onEnd() {
    const { info } = this.#stream;
    const told = {
      method: this.#method,
      path: this.#path,
      authority: this.#authority,
      protocol: info.protocol,
      request: this.#request,
      status: this.#status,
      response: this.#response,
      isWhole: this.#isWhole,
      ms: Math.max(0, this.#cx.now() - (info.startedAt ?? this.#cx.now())),
      flags: info.flags,
      details: info.responseCodeDetails,
      client: formatAddress(info.downstreamDirectAddress),
      listener: info.downstreamLocalAddress,
    };
    // Not awaited: `tsproxy filter dev` shows the exchange, and otherwise core ignores it.
    this.#cx.operation(OPERATION, told).catch(() => {});
  }
}

function linesOf(headers: HeaderMap): [string, string][] {
  return Array.from(headers, ([name, value]) => [name, value]);
}

export default defineHttpFilter({
  name: "tsproxy.filters.http.recorder",
  config: Config,
  setup: (config, cx) => (stream) => new Recorder(stream, config, cx),
});
