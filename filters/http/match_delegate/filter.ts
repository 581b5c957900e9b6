// Hot path: every request and response of a chain with matchers around its filters.
import {
  type Chunk,
  type CompiledMatcher,
  ConfigError,
  type Counter,
  compileMatcher,
  defineHttpFilter,
  type EndResult,
  type ExtensionRef,
  type Generation,
  type HeaderMap,
  type HookResult,
  type HttpFilter,
  type HttpFilterFactory,
  type HttpStream,
  type MatchSubject,
  type RequestHeaders,
  type ResponseHeaders,
  RuntimeFraction,
  type SetupContext,
  type Slot,
  type Matcher as TreeConfig,
} from "@tsproxy/sdk";
import { Config, RouteConfig, type StreamMatcher } from "./config.ts";
import { InnerStream } from "./inner-stream.ts";

/** What a matcher chooses. */
interface Action {
  /** Undefined: the filter is left out. */
  readonly filter: Slot<HttpFilterFactory> | undefined;
  chosen(): boolean;
}
type Matcher = CompiledMatcher<Action>;

/** The configured filter of one stream, until a matcher replaces it with another or leaves it out. */
class MatchedFilter implements HttpFilter, MatchSubject {
  readonly #stream: HttpStream;
  /** Undefined: there is no matcher, or it has decided. */
  #matcher: Matcher | undefined;
  #filter: HttpFilter | undefined;
  readonly #generations: Generation<HttpFilterFactory>[] = [];
  readonly #executed: Counter;
  /** Undefined: the chain answers what it has shown no filter, and a matcher that asks for the request does not decide, as in Envoy. */
  request: RequestHeaders | undefined = undefined;
  response: ResponseHeaders | undefined = undefined;
  requestTrailers: HeaderMap | undefined = undefined;
  trailers: HeaderMap | undefined = undefined;
  #missing = false;

  constructor(
    stream: HttpStream,
    slot: Slot<HttpFilterFactory>,
    matcher: Matcher | undefined,
    executed: Counter,
  ) {
    this.#stream = stream;
    this.#matcher = matcher;
    this.#executed = executed;
    this.#filter = this.#make(slot);
  }

  #make(slot: Slot<HttpFilterFactory>): HttpFilter {
    const generation = slot.current;
    const filter = generation.value(this.#stream);
    // Acquired only after the filter was made: if that throws, `onEnd`, which releases the generation, is never called.
    generation.acquire();
    this.#generations.push(generation);
    return filter;
  }

  // ---- what matchers look at

  get info(): HttpStream["info"] {
    return this.#stream.info;
  }
  get metadata(): HttpStream["metadata"] {
    return this.#stream.metadata;
  }
  get filterState(): HttpStream["filterState"] {
    return this.#stream.filterState;
  }
  get downstreamConnection(): HttpStream["downstreamConnection"] {
    return this.#stream.downstreamConnection;
  }
  get serverName(): string | undefined {
    return this.downstreamConnection?.serverName;
  }
  get transportProtocol(): string | undefined {
    return this.downstreamConnection?.transportProtocol;
  }
  get applicationProtocols(): readonly string[] | undefined {
    return this.downstreamConnection?.applicationProtocols;
  }
  onMissing(): void {
    this.#missing = true;
  }

  /** Called at each part of the exchange until the matcher's answer no longer depends on a part that has not come yet. */
  #match(): void {
    const matcher = this.#matcher;
    if (matcher === undefined) return;
    this.#missing = false;
    const action = matcher.match(this);
    if (this.#missing) return;
    this.#matcher = undefined;
    if (action === undefined || !action.chosen()) return;
    this.#filter?.onEnd?.();
    this.#filter = undefined;
    if (action.filter === undefined) return;
    this.#filter = this.#make(action.filter);
    this.#executed.inc();
  }

  // ---- hooks

  onRequestHeaders(headers: RequestHeaders, endStream: boolean): EndResult {
    this.request = headers;
    this.#match();
    return this.#filter?.onRequestHeaders?.(headers, endStream);
  }
  onRequestBody(chunk: Chunk, endStream: boolean): HookResult {
    return this.#filter?.onRequestBody?.(chunk, endStream);
  }
  onRequestTrailers(trailers: HeaderMap): EndResult {
    this.requestTrailers = trailers;
    this.#match();
    return this.#filter?.onRequestTrailers?.(trailers);
  }
  onResponseHeaders(headers: ResponseHeaders, endStream: boolean): EndResult {
    this.response = headers;
    this.#match();
    return this.#filter?.onResponseHeaders?.(headers, endStream);
  }
  onResponseBody(chunk: Chunk, endStream: boolean): HookResult {
    return this.#filter?.onResponseBody?.(chunk, endStream);
  }
  onResponseTrailers(trailers: HeaderMap): EndResult {
    this.trailers = trailers;
    this.#match();
    return this.#filter?.onResponseTrailers?.(trailers);
  }
  onEnd(): void {
    this.#filter?.onEnd?.();
    for (const generation of this.#generations) generation.release();
  }
}

export default defineHttpFilter({
  name: "envoy.filters.http.match_delegate",
  types: ["envoy.extensions.common.matching.v3.ExtensionWithMatcher"],
  config: Config,
  routeConfig: RouteConfig,
  setupRoute: ({ xds_matcher: matcher }, cx) => matcher && compile(matcher, "xds_matcher", cx),
  setup(config, cx) {
    const { extension_config: filter, xds_matcher, matcher: older } = config;
    if (xds_matcher !== undefined && older !== undefined)
      throw new ConfigError("", "give one of xds_matcher and matcher");
    const matcher = xds_matcher ?? older;
    const own =
      matcher && compile(matcher, xds_matcher === undefined ? "matcher" : "xds_matcher", cx);
    const slot = open(filter, cx);
    const stats = cx.stats.scope(`${cx.statPrefix ?? ""}composite.filter_delegation_`);
    const executed = stats.counter("success");
    // Stays at 0: Envoy counts filters that cannot be made, but here their config is refused.
    stats.counter("error");
    return (stream) => {
      const ofRoute = stream.routeConfig as Matcher | undefined;
      const inner = ofRoute === undefined ? stream : new InnerStream(stream);
      return new MatchedFilter(inner, slot, ofRoute ?? own, executed);
    };
  },
});

function open(ref: ExtensionRef, cx: SetupContext): Slot<HttpFilterFactory> {
  const { statPrefix } = cx;
  return cx.extension("http", ref, statPrefix === undefined ? {} : { statPrefix });
}

function compile(config: StreamMatcher, path: string, cx: SetupContext): Matcher {
  return compileMatcher<ActionConfig, Action>(config, path, cx, (action) => actionOf(action, cx));
}

type ActionConfig = StreamMatcher extends TreeConfig<infer A> ? A : never;

function actionOf(action: ActionConfig, cx: SetupContext): Action {
  if (!("typed_config" in action)) return { filter: undefined, chosen: () => true };
  const sample = action.sample_percent;
  const fraction = sample && new RuntimeFraction(sample, cx.runtime);
  return {
    filter: open(action.typed_config, cx),
    chosen: () => fraction === undefined || fraction.enabled(),
  };
}
