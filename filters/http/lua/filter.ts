// Hot path: one filter per stream (test/bench/cpu.ts lua).
import {
  type Chunk,
  ConfigError,
  defineHttpFilter,
  done,
  type EndResult,
  type HeaderMap,
  type HookResult,
  type HttpFilter,
  type HttpStream,
  type LuaSource,
  type RequestHeaders,
  type ResponseHeaders,
  type SetupContext,
  type StreamPart,
} from "@tsproxy/sdk";
import { StatsData } from "@tsproxy/sdk/lua";
import { Config, RouteConfig } from "./config.ts";
import { Run, type RunOwner } from "./run.ts";
import { Script, type Settings } from "./script.ts";

/** A route's config: which script replaces the default one, and what scripts read with `filterContext()`. */
interface RouteSetup {
  readonly disabled: boolean;
  readonly name: string;
  readonly script: Script | undefined;
  readonly filterContext: unknown;
}

/** The hooks that a script needs; a hook that is absent costs nothing. */
type Hooks = Pick<
  HttpFilter,
  | "onRequestHeaders"
  | "onRequestBody"
  | "onRequestTrailers"
  | "onResponseHeaders"
  | "onResponseBody"
  | "onResponseTrailers"
  | "onEnd"
>;

/** One script on one stream, with a run for each direction. Hooks are fields: a class per script would slow down call sites. */
class LuaFilter implements RunOwner {
  readonly onRequestHeaders: HttpFilter["onRequestHeaders"] | undefined;
  readonly onRequestBody: HttpFilter["onRequestBody"] | undefined;
  readonly onRequestTrailers: HttpFilter["onRequestTrailers"] | undefined;
  readonly onResponseHeaders: HttpFilter["onResponseHeaders"] | undefined;
  readonly onResponseBody: HttpFilter["onResponseBody"] | undefined;
  readonly onResponseTrailers: HttpFilter["onResponseTrailers"] | undefined;
  readonly onEnd: HttpFilter["onEnd"] | undefined;
  readonly script: Script;
  readonly settings: Settings;
  readonly stream: HttpStream;
  readonly filterContext: unknown;
  #request: Run | undefined = undefined;
  #response: Run | undefined = undefined;

  constructor(
    hooks: Hooks,
    script: Script,
    settings: Settings,
    stream: HttpStream,
    filterContext: unknown,
  ) {
    this.onRequestHeaders = hooks.onRequestHeaders;
    this.onRequestBody = hooks.onRequestBody;
    this.onRequestTrailers = hooks.onRequestTrailers;
    this.onResponseHeaders = hooks.onResponseHeaders;
    this.onResponseBody = hooks.onResponseBody;
    this.onResponseTrailers = hooks.onResponseTrailers;
    this.onEnd = hooks.onEnd;
    this.script = script;
    this.settings = settings;
    this.stream = stream;
    this.filterContext = filterContext;
  }

  requestHeaders(headers: RequestHeaders, endStream: boolean): EndResult {
    const { script } = this;
    this.#request = new Run(this, headers, false, endStream);
    const result = this.#request.begin(script.onRequest!);
    // The script has nothing left to do on this stream, so the sandbox need not be entered for it again.
    if (result === undefined && this.#request.isOver && script.onResponse === undefined)
      return done;
    return result;
  }
  requestBody(chunk: Chunk, endStream: boolean): HookResult {
    return begun(this.#request).onBody(chunk, endStream);
  }
  requestTrailers(trailers: HeaderMap): HookResult {
    return begun(this.#request).onTrailers(trailers);
  }
  responseHeaders(headers: ResponseHeaders, endStream: boolean): EndResult {
    this.#response = new Run(this, headers, true, endStream);
    return this.#response.begin(this.script.onResponse!);
  }
  responseBody(chunk: Chunk, endStream: boolean): HookResult {
    return begun(this.#response).onBody(chunk, endStream);
  }
  responseTrailers(trailers: HeaderMap): HookResult {
    return begun(this.#response).onTrailers(trailers);
  }

  end(): void {
    this.#request?.end();
    this.#response?.end();
  }
}

/** A body must not pass a script that was to see it: its stream fails if the run was lost with the sandbox. */
function begun(run: Run | undefined): Run {
  if (run === undefined) throw new Error("its run was lost when the sandbox was stopped");
  return run;
}

/** Methods that a run may still be waiting in when its stream ends: a script that names none of them needs no `onEnd`. */
const WAITS = [
  "body",
  "bodyChunks",
  "trailers",
  "httpCall",
  "verifySignature",
  "sha256PeerCertificateIssuerDigest",
] as const;

type Make = (stream: HttpStream, filterContext: unknown) => HttpFilter;

/** Returns how to make the filter of a stream for this script. */
function makerOf(script: Script, settings: Settings): Make {
  const { prototype } = LuaFilter;
  const hooks: Hooks = {};
  const bodies = script.uses("body", "bodyChunks", "trailers");
  const trailers = script.uses("trailers", "bodyChunks");
  if (script.onRequest !== undefined) {
    hooks.onRequestHeaders = prototype.requestHeaders;
    if (bodies) hooks.onRequestBody = prototype.requestBody;
    if (trailers) hooks.onRequestTrailers = prototype.requestTrailers;
  }
  if (script.onResponse !== undefined) {
    hooks.onResponseHeaders = prototype.responseHeaders;
    if (bodies) hooks.onResponseBody = prototype.responseBody;
    if (trailers) hooks.onResponseTrailers = prototype.responseTrailers;
  }
  if (script.uses(...WAITS)) hooks.onEnd = prototype.end;
  return (stream, filterContext) =>
    new LuaFilter(hooks, script, settings, stream, filterContext) as HttpFilter;
}

const NO_FILTER: HttpFilter = {};

export default defineHttpFilter({
  name: "envoy.filters.http.lua",
  aliases: ["envoy.lua"],
  types: ["envoy.extensions.filters.http.lua.v3.Lua"],
  placement: "sandbox",
  // Ten thousand scripts may wait in `httpCall` at once, each for up to its timeout of at most 600 s, after which the fetch ends
  // by itself. Nothing else that a hook waits for takes long.
  sandbox: { disabledBy: "disabled", memoryMb: 128, pauseMs: 610_000 },
  config: Config,
  routeConfig: RouteConfig,
  setupRoute: ({ disabled, name, source_code, filter_context }, cx): RouteSetup => ({
    disabled,
    name,
    script: source_code && new Script(source_code, cx),
    filterContext: filter_context,
  }),
  setup(config, cx) {
    const { inline_code, default_source_code, source_codes } = config;
    if (inline_code !== undefined && default_source_code !== undefined)
      throw new ConfigError("", "give one of inline_code and default_source_code");
    const settings = settingsOf(config, cx);
    const makes = new WeakMap<Script, Make>();
    const makeOf = (script: Script): Make => {
      let make = makes.get(script);
      if (make === undefined) makes.set(script, (make = makerOf(script, settings)));
      return make;
    };
    const scripts: Script[] = [];
    const load = (source: LuaSource): Make => {
      const script = new Script(source, cx);
      scripts.push(script);
      return makeOf(script);
    };
    const source = default_source_code ?? inline_code;
    const own = source && load(source);
    const named = new Map(Object.entries(source_codes).map(([name, text]) => [name, load(text)]));
    const create = (stream: HttpStream): HttpFilter => {
      const route = stream.routeConfig as RouteSetup | undefined;
      if (route === undefined) return own === undefined ? NO_FILTER : own(stream, undefined);
      if (route.disabled) return NO_FILTER;
      const make =
        route.name !== ""
          ? named.get(route.name)
          : route.script === undefined
            ? own
            : makeOf(route.script);
      return make === undefined ? NO_FILTER : make(stream, route.filterContext);
    };
    // A filter without scripts of its own runs those of routes, which may read any part of a stream.
    const reads = scripts.length === 0 ? undefined : partsOf(scripts);
    return Object.assign(create, { ...(reads && { reads }), stateless: true });
  },
});

/** Which parts of a stream a script reads with which methods. */
const PARTS: readonly (readonly [method: string, parts: readonly StreamPart[]])[] = [
  ["streamInfo", ["info", "route", "metadata", "filterState", "downstreamConnection"]],
  ["bodyChunks", ["info"]],
  ["metadata", ["route"]],
  ["route", ["route"]],
  ["virtualHost", ["route"]],
  ["connection", ["downstreamConnection"]],
  ["connectionStreamInfo", ["downstreamConnection"]],
  ["setUpstreamOverrideHost", ["filterState"]],
  ["setHttp1ReasonPhrase", ["filterState"]],
];

function partsOf(scripts: readonly Script[]): readonly StreamPart[] {
  const used = PARTS.filter(([method]) => scripts.some((script) => script.uses(method)));
  return [...new Set(used.flatMap(([, parts]) => parts))];
}

function settingsOf({ stat_prefix, clear_route_cache }: Config, cx: SetupContext): Settings {
  const prefix = `${cx.statPrefix ?? ""}lua.${stat_prefix === "" ? "" : `${stat_prefix}.`}`;
  const stats = cx.stats.scope(prefix);
  return {
    executions: stats.counter("executions"),
    errors: stats.counter("errors"),
    stats: new StatsData(cx.log, stats),
    clearsRoute: clear_route_cache,
  };
}
