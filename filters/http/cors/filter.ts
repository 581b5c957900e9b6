// Hot path: a request without an origin costs one look at its route and one at its headers.
import {
  type Counter,
  defineHttpFilter,
  type HttpFilter,
  type HttpStream,
  headerName,
  type RequestHeaders,
  type ResponseHeaders,
  reply,
  type SetupContext,
} from "@tsproxy/sdk";
import { Config, Policy } from "./config.ts";
import { CompiledPolicy, MergedPolicy } from "./policy.ts";

const ORIGIN = headerName("origin");
const REQUEST_METHOD = headerName("access-control-request-method");
const REQUEST_HEADERS = headerName("access-control-request-headers");
const REQUEST_PRIVATE = headerName("access-control-request-private-network");
const ALLOW_ORIGIN = headerName("access-control-allow-origin");
const ALLOW_CREDENTIALS = headerName("access-control-allow-credentials");
const EXPOSE_HEADERS = headerName("access-control-expose-headers");

/** What all streams of one filter in a chain share. */
class Cors {
  readonly valid: Counter;
  readonly invalid: Counter;
  readonly #merged = new WeakMap<readonly unknown[], MergedPolicy>();

  constructor(cx: SetupContext) {
    const stats = cx.stats.scope(`${cx.statPrefix ?? ""}cors.`);
    this.valid = stats.counter("origin_valid");
    this.invalid = stats.counter("origin_invalid");
  }

  /** Merges the policies of a route. `levels`: the same array for all streams of that route, so the result is kept by it. */
  policy(levels: readonly unknown[]): MergedPolicy {
    let policy = this.#merged.get(levels);
    if (policy === undefined) {
      policy = new MergedPolicy([...(levels as readonly CompiledPolicy[])].reverse());
      this.#merged.set(levels, policy);
    }
    return policy;
  }
}

class CorsFilter implements HttpFilter {
  readonly #cors: Cors;
  readonly #stream: HttpStream;
  #policy: MergedPolicy | undefined = undefined;
  /** The origin of a page that may read the answer; "": none. */
  #origin = "";

  constructor(cors: Cors, stream: HttpStream) {
    this.#cors = cors;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders) {
    const stream = this.#stream;
    if (stream.route?.action.type !== "route") return;
    const levels = stream.routeConfigs;
    if (levels.length === 0) return;
    const policy = this.#cors.policy(levels);
    const { enabled } = policy;
    if (!enabled && !policy.shadow) return;
    const origin = headers.get(ORIGIN) ?? "";
    if (origin === "") return;
    const allowed = policy.allows(origin);
    (allowed ? this.#cors.valid : this.#cors.invalid).inc();
    if (!enabled) return;
    this.#policy = policy;
    if (allowed) this.#origin = origin;
    const wanted = headers.method === "OPTIONS" ? (headers.get(REQUEST_METHOD) ?? "") : "";
    if (wanted === "" || (!allowed && policy.forwardsPreflights)) return;
    return preflight(policy, headers, allowed ? origin : "", wanted);
  }

  /** Called for the filter's own answers to preflights too. */
  onResponseHeaders(headers: ResponseHeaders) {
    const policy = this.#policy;
    if (policy === undefined || this.#origin === "") return;
    headers.replace(ALLOW_ORIGIN, this.#origin);
    if (policy.credentials) headers.replace(ALLOW_CREDENTIALS, "true");
    if (policy.exposed !== "") headers.replace(EXPOSE_HEADERS, policy.exposed);
  }
}

/** Fetch standard, "CORS-preflight fetch". `wanted`: the method that the client asks to use. */
function preflight(policy: MergedPolicy, request: RequestHeaders, origin: string, wanted: string) {
  const headers: [string, string][] = [];
  const add = (name: string, value: string): void => {
    if (value !== "") headers.push([`access-control-${name}`, value]);
  };
  add("allow-origin", origin);
  add("allow-credentials", policy.credentials ? "true" : "");
  add("allow-methods", policy.methods === "*" ? wanted : policy.methods);
  // As in Envoy, a preflight without access-control-request-headers gets an empty list.
  if (policy.headers === "*")
    headers.push(["access-control-allow-headers", request.get(REQUEST_HEADERS) ?? ""]);
  else add("allow-headers", policy.headers);
  add("max-age", policy.maxAge);
  const isPrivate = policy.privateNetwork && request.get(REQUEST_PRIVATE) === "true";
  add("allow-private-network", isPrivate ? "true" : "");
  // In Envoy this is no local reply, so neither the route's header rules nor `local_reply_config` edit it.
  return reply(200, { headers, details: "cors_response", unedited: true });
}

export default defineHttpFilter({
  name: "envoy.filters.http.cors",
  aliases: ["envoy.cors"],
  types: ["envoy.extensions.filters.http.cors.v3.Cors"],
  config: Config,
  routeConfig: Policy,
  setupRoute: (config, cx) => new CompiledPolicy(config, cx),
  setup(_config, cx) {
    const cors = new Cors(cx);
    return (stream) => new CorsFilter(cors, stream);
  },
});
