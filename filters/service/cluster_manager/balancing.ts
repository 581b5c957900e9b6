// Hot path: `choose` runs for every request.
import type {
  BalancedCluster,
  Balancer,
  BalancerContext,
  BalancerPolicy,
  Counter,
  Generation,
  Host,
  Runtime,
  Slot,
  SpreadOptions,
  Stats,
} from "@tsproxy/sdk";
import { UpstreamHost } from "./host.ts";
import { Levels } from "./levels.ts";
import type { LocalCluster } from "./localities.ts";
import type { LoadOptions } from "./priority-loads.ts";

export interface BalancingOptions extends LoadOptions {
  readonly weightedPriorityHealth: boolean;
}

/** What the load-balancing policies of a cluster share. */
export interface Balancing {
  readonly stats: Stats;
  readonly runtime: Runtime;
  readonly panics: Pick<Counter, "inc">;
  readonly options: BalancingOptions;
  /** Make balancers at once rather than at the first request. */
  readonly eager: boolean;
  /** Key of the locality that this proxy runs in. */
  readonly ownLocality: string;
  /** All hosts of the cluster. */
  allHosts(): readonly UpstreamHost[];
  /** The cluster that this proxy belongs to; undefined if the config names none. */
  local(): LocalCluster | undefined;
}

/** Balances over some hosts of a cluster by one policy; changes to new code of the policy when that is reloaded. */
export class Spread implements Balancer {
  readonly #balancing: Balancing;
  readonly #key: string;
  readonly #slot: Slot<BalancerPolicy>;
  readonly #options: SpreadOptions;
  #hosts: readonly UpstreamHost[] = [];
  #generation: Generation<BalancerPolicy>;
  #balancer: Balancer | undefined = undefined;

  constructor(
    balancing: Balancing,
    key: string,
    slot: Slot<BalancerPolicy>,
    options: SpreadOptions = {},
  ) {
    this.#balancing = balancing;
    this.#key = key;
    this.#slot = slot;
    this.#options = options;
    this.#generation = slot.current;
    this.#generation.acquire();
    this.#listen();
  }

  update(hosts: readonly UpstreamHost[]): void {
    this.#hosts = hosts;
    this.#build();
  }

  choose(context: BalancerContext): UpstreamHost | undefined {
    if (this.#slot.current !== this.#generation) this.#renew();
    const host = this.#balancer?.choose(context, 0);
    // A user's balancer may return anything.
    return host instanceof UpstreamHost ? host : undefined;
  }

  peek(context: BalancerContext): UpstreamHost | undefined {
    if (this.#slot.current !== this.#generation) this.#renew();
    const host = this.#balancer?.peek?.(context);
    return host instanceof UpstreamHost ? host : undefined;
  }

  /** Releases the policy's generation; `choose` returns undefined afterwards. */
  dispose(): void {
    this.#balancer?.dispose?.();
    this.#balancer = undefined;
    this.#hosts = [];
    this.#generation.release();
  }

  #renew(): void {
    this.#generation.release();
    this.#generation = this.#slot.current;
    this.#generation.acquire();
    this.#listen();
    this.#build();
  }

  /** Builds again once the policy's properties are known: Levels depends on them, and they may not be known at first. */
  #listen(): void {
    const generation = this.#generation;
    const policy = generation.value;
    if (!("create" in policy)) return;
    policy.onKnown?.(() => {
      if (generation === this.#generation && this.#balancer !== undefined) this.#build();
    });
  }

  #build(): void {
    const policy = this.#generation.value;
    const before = this.#balancer;
    this.#balancer =
      "compose" in policy
        ? policy.compose(new Composed(this.#balancing, this.#key, this.#hosts), before)
        : new Levels(this.#balancing, this.#key, policy, this.#hosts, this.#options);
    before?.dispose?.();
  }
}

class Composed implements BalancedCluster {
  readonly hosts: readonly UpstreamHost[];
  readonly stats: Stats;
  readonly #balancing: Balancing;
  readonly #key: string;
  #byAddress: Map<string, UpstreamHost> | undefined = undefined;

  constructor(balancing: Balancing, key: string, hosts: readonly UpstreamHost[]) {
    this.#balancing = balancing;
    this.#key = key;
    this.hosts = hosts;
    this.stats = balancing.stats;
  }

  spread(
    key: string,
    hosts: readonly Host[],
    policy: Slot<BalancerPolicy>,
    options: SpreadOptions = {},
  ): Balancer {
    const spread = new Spread(this.#balancing, `${this.#key}${key}|`, policy, options);
    spread.update(hosts.filter((host) => host instanceof UpstreamHost));
    return spread;
  }

  find(address: string): Host | undefined {
    this.#byAddress ??= new Map(this.hosts.map((host) => [host.key, host]));
    return this.#byAddress.get(address);
  }
}
