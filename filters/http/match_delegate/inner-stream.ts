import type {
  DownstreamFacts,
  HttpStream,
  InternalRedirects,
  RequestHeaders,
  Responder,
  ResponseHeaders,
  Route,
  StreamInfo,
} from "@tsproxy/sdk";

const NONE: readonly unknown[] = [];

/** The stream as the filter within sees it: per-route configs are for the delegate around it, so it finds none. */
export class InnerStream implements HttpStream {
  readonly id: number;
  readonly routeConfig = undefined;
  readonly routeConfigs = NONE;
  readonly #stream: HttpStream;

  constructor(stream: HttpStream) {
    this.id = stream.id;
    this.#stream = stream;
  }

  get info(): StreamInfo {
    return this.#stream.info;
  }
  get request(): RequestHeaders {
    return this.#stream.request;
  }
  get response(): ResponseHeaders | undefined {
    return this.#stream.response;
  }
  get route(): Route | undefined {
    return this.#stream.route;
  }
  clearRoute(): void {
    this.#stream.clearRoute();
  }
  get metadata(): Map<string, Record<string, unknown>> {
    return this.#stream.metadata;
  }
  get filterState(): Map<string, unknown> {
    return this.#stream.filterState;
  }
  get connectionState(): Map<string, unknown> {
    return this.#stream.connectionState;
  }
  get downstreamConnection(): DownstreamFacts | undefined {
    return this.#stream.downstreamConnection;
  }
  get responder(): Responder {
    return this.#stream.responder;
  }
  get internalRedirects(): InternalRedirects | undefined {
    return this.#stream.internalRedirects;
  }
  set internalRedirects(redirects: InternalRedirects | undefined) {
    this.#stream.internalRedirects = redirects;
  }
  sleep(ms: number): Promise<void> {
    return this.#stream.sleep(ms);
  }
}
