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

/** What a load balancer is told of one request, from the policies of its route. */
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
  /** `set-cookie` lines of hash policies for a client that lacks the cookie. */
  readonly #cookies: string[] = [];
  /** The `set-cookie` line that the balancer gave in the last attempt; "": none. */
  #cookieOfBalancer = "";

  /** `retry`: returns the retry state; undefined during the first attempt. */
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

  /** The route's criteria, overridden by key with what filters have put into the `envoy.lb` metadata of the request. */
  get metadataMatch(): readonly MetadataCriterion[] | undefined {
    const own = this.stream.metadata.get("envoy.lb");
    if (own === undefined) return this.#ofRoute;
    const merged = new Map(this.#ofRoute?.map(({ key, value }) => [key, value]));
    for (const [key, value] of Object.entries(own)) merged.set(key, value);
    return [...merged]
      .map(([key, value]) => ({ key, value }))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /**
   * Called before each attempt but the first. As in Envoy, it goes where the load balancer sends it, not to the host that a filter
   * asked for, and the head is hashed anew, so that a client that lacks a cookie is given it once more.
   */
  next(): void {
    this.overrideHost = undefined;
    this.#hashed = false;
  }

  /** Computed when a balancer first asks in an attempt: clients of clusters that do not hash get no cookie. */
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

  /** Adds the cookies of hash policies and of the balancer to a response head. */
  addCookies(headers: ResponseHeaders): void {
    for (const cookie of this.#cookies) headers.append("set-cookie", cookie);
    if (this.#cookieOfBalancer !== "") headers.append("set-cookie", this.#cookieOfBalancer);
  }
}
