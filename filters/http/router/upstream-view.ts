import {
  type DownstreamFacts,
  type HttpStream,
  type Reply,
  RequestHeaders,
  type Responder,
  type ResponseHeaders,
  type Route,
  type RouteSetups,
  type StreamInfo,
} from "@tsproxy/sdk";
import type { UpstreamChain } from "./upstream-chain.ts";

const NONE: readonly unknown[] = [];

/** The downstream stream as an upstream filter of one attempt sees it. Once the attempt is over it is empty and does nothing. */
export class UpstreamView implements HttpStream {
  readonly id: number;
  readonly info: StreamInfo;
  readonly downstreamConnection: DownstreamFacts | undefined;
  readonly #stream: HttpStream;
  readonly #chain: UpstreamChain;
  readonly #filterName: string;
  readonly #routes: RouteSetups | undefined;
  #ended = false;

  constructor(
    stream: HttpStream,
    chain: UpstreamChain,
    filterName: string,
    routes: RouteSetups | undefined,
  ) {
    this.#stream = stream;
    this.#chain = chain;
    this.#filterName = filterName;
    this.#routes = routes;
    this.id = stream.id;
    this.info = stream.info;
    this.downstreamConnection = stream.downstreamConnection;
  }

  end(): void {
    this.#ended = true;
  }

  get request(): RequestHeaders {
    return this.#ended ? new RequestHeaders() : this.#stream.request;
  }
  get response(): ResponseHeaders | undefined {
    return this.#ended ? undefined : this.#chain.response;
  }
  get route(): Route | undefined {
    return this.#ended ? undefined : this.#stream.route;
  }
  /** Does nothing: the request is on its way, so its route cannot change. */
  clearRoute(): void {}
  get routeConfig(): unknown {
    const config = this.route?.filterConfig(this.#filterName);
    return config === undefined || this.#routes === undefined ? config : this.#routes.one(config);
  }
  get routeConfigs(): readonly unknown[] {
    const configs = this.route?.filterConfigs(this.#filterName) ?? NONE;
    return this.#routes === undefined ? configs : this.#routes.all(configs);
  }
  get metadata(): Map<string, Record<string, unknown>> {
    return this.#ended ? new Map() : this.#stream.metadata;
  }
  get filterState(): Map<string, unknown> {
    return this.#ended ? new Map() : this.#stream.filterState;
  }
  get connectionState(): Map<string, unknown> {
    return this.#ended ? new Map() : this.#stream.connectionState;
  }
  /** A responder that does nothing: only terminal filters need one, and the chain adds its own terminal filter. */
  get responder(): Responder {
    return NO_RESPONDER;
  }
  sleep(ms: number): Promise<void> {
    return this.#ended ? new Promise(() => {}) : this.#stream.sleep(ms);
  }
}

const nothing = (): void => {};
/** Does nothing. */
export const NO_RESPONDER: Responder = {
  sendInformational: nothing,
  sendHeaders: nothing,
  sendBody: nothing,
  sendTrailers: nothing,
  sendReply: (_reply: Reply) => {},
  reset: nothing,
  pauseRequest: nothing,
};
