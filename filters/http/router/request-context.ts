import type {
  BalancerContext,
  HashPolicy,
  Host,
  HttpStream,
  MetadataCriterion,
  OverrideHost,
  Priority,
  ResponseHeaders,
  RoutePolicies,
  StreamInfo,
} from "@tsproxy/sdk";
import { hashOf } from "./request-hash.ts";
import type { RetryState } from "./retry-state.ts";

/** What the policies of a route tell whoever chooses a host for one of its requests. */
export class RequestContext implements BalancerContext {
  readonly metadataMatch: readonly MetadataCriterion[] | undefined;
  readonly priority: Priority;
  readonly downstreamProtocol: StreamInfo["protocol"];
  readonly stream: HttpStream;
  overrideHost: OverrideHost | undefined = undefined;
  readonly #retry: () => RetryState | undefined;
  readonly #policies: readonly HashPolicy[];
  #hashed = false;
  #hash: bigint | undefined = undefined;
  /** Cookies that a hash policy gives to a client without one. */
  readonly #cookies: string[] = [];

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
    this.metadataMatch = policies?.metadataMatch;
    this.#policies = policies?.hash ?? [];
  }

  /** Made when a balancer asks: clients of others get no cookie. */
  get hash(): bigint | undefined {
    if (!this.#hashed && this.#policies.length > 0) {
      this.#hash = hashOf(this.#policies, this.stream, this.#cookies);
    }
    this.#hashed = true;
    return this.#hash;
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
  }
}
