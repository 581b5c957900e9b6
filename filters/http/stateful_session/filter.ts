// Hot path: every request and response.
import {
  defineHttpFilter,
  formatAddress,
  type HttpFilter,
  type HttpStream,
  type OverrideHost,
  type RequestHeaders,
  type ResponseHeaders,
  WISH,
} from "@tsproxy/sdk";
import { Config, RouteConfig } from "./config.ts";
import { type SessionState, sessionState } from "./session.ts";

/** One config, the filter's own or a route's. Without a state nothing is done. */
interface Sessions {
  readonly state: SessionState | undefined;
  readonly strict: boolean;
}

/** Sends a client to the host that served it before, and lets it keep who that is. */
class StatefulSessionFilter implements HttpFilter {
  readonly #stream: HttpStream;
  readonly #own: Sessions;
  #state: SessionState | undefined = undefined;
  #before: string | undefined = undefined;

  constructor(stream: HttpStream, own: Sessions) {
    this.#stream = stream;
    this.#own = own;
  }

  onRequestHeaders(headers: RequestHeaders): void {
    const { state, strict } = (this.#stream.routeConfig as Sessions | undefined) ?? this.#own;
    if (state === undefined || !state.covers(headers)) return;
    this.#state = state;
    const address = state.read(headers);
    this.#before = address;
    if (address !== undefined)
      this.#stream.filterState.set(WISH.UPSTREAM_HOST, { address, strict } satisfies OverrideHost);
  }

  onResponseHeaders(headers: ResponseHeaders): void {
    const host = this.#stream.info.upstreamHost;
    if (this.#state === undefined || host === undefined) return;
    this.#state.write(headers, formatAddress(host), this.#before);
  }
}

const NONE: Sessions = { state: undefined, strict: false };

function sessionsOf({ session_state: state, strict }: Config): Sessions {
  return state === undefined ? NONE : { state: sessionState(state), strict };
}

export default defineHttpFilter({
  name: "envoy.filters.http.stateful_session",
  types: ["envoy.extensions.filters.http.stateful_session.v3.StatefulSession"],
  config: Config,
  routeConfig: RouteConfig,
  setupRoute: ({ stateful_session: config }) => (config === undefined ? NONE : sessionsOf(config)),
  setup(config) {
    const own = sessionsOf(config);
    return (stream) => new StatefulSessionFilter(stream, own);
  },
});
