import {
  type BalancerContext,
  type HashPolicy,
  type Host,
  type HttpStream,
  type MetadataCriterion,
  type OverrideHost,
  type Priority,
  type ResponseHeaders,
  type RoutePolicies,
  requestHash,
  type StreamInfo,
} from "@tsproxy/sdk";
import type { RetryState } from "./retry-state.ts";

/** What the policies of a route tell whoever chooses a host for one of its requests. */
export class RequestContext implements BalancerContext {
  readonly priority: Priority;
  readonly downstreamProtocol: StreamInfo["protocol"];
  readonly stream: HttpStream;
  overrideHost: OverrideHost | undefined = undefined;
  readonly #retry: () => RetryState | undefined;
  readonly #ofRoute: readonly MetadataCriterion[] | undefined;
  readonly #policies: readonly HashPolicy[];
  #hashed = false;
  #hash: bigint | undefined = undefined;
  /** Cookies that a hash policy gives to a client without one. */
  readonly #cookies: string[] = [];
  /** One of a balancer's own policies, of the last attempt. "": none. */
  #cookieOfBalancer = "";

  /** `retry`: the state of a request that is tried again, undefined before. */
  constructor(
    policies: RoutePolicies | undefined,
    stream: HttpStream,
    retry: () => RetryState | undefined,
  ) {
    this.stream = stream;
    this.#retry = retry;
    this.priority = policies?.priority ?? "default";
    this.downstreamProtocol = stream.info.protocol;
    this.#ofRoute = policies?.metadataMatch;
    this.#policies = policies?.hash ?? [];
  }

  /** What filters have put into the request's `envoy.lb` metadata comes before what the route says. */
  get metadataMatch(): readonly MetadataCriterion[] | undefined {
    const own = this.stream.metadata.get("envoy.lb");
    if (own === undefined) return this.#ofRoute;
    const merged = new Map(this.#ofRoute?.map(({ key, value }) => [key, value]));
    for (const [key, value] of Object.entries(own)) merged.set(key, value);
    return [...merged]
      .map(([key, value]) => ({ key, value }))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** Made when a balancer asks: clients of others get no cookie. */
  get hash(): bigint | undefined {
    if (!this.#hashed && this.#policies.length > 0) {
      this.#hash = requestHash(this.#policies, this, (cookie) => this.#cookies.push(cookie));
    }
    this.#hashed = true;
    return this.#hash;
  }

  giveCookie(cookie: string): void {
    this.#cookieOfBalancer = cookie;
  }

  rejects(host: Host): boolean {
    return this.#retry()?.rejects(host) ?? false;
  }
  get hostSelectionRetries(): number {
    return this.#retry()?.hostSelectionRetries ?? 0;
  }
  get excludedPriorities(): ReadonlySet<number> | undefined {
    return this.#retry()?.excludedPriorities;
  }

  addCookies(headers: ResponseHeaders): void {
    for (const cookie of this.#cookies) headers.append("set-cookie", cookie);
    if (this.#cookieOfBalancer !== "") headers.append("set-cookie", this.#cookieOfBalancer);
  }
}
