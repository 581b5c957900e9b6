import {
  Duration,
  LbPolicy,
  type MadeClusters,
  type NamedHost,
  type SetupContext,
  type Static,
  type Timer,
  Type,
  UInt32,
} from "@tsproxy/sdk";

export const SubClustersConfig = Type.Object({
  lb_policy: LbPolicy,
  max_sub_clusters: UInt32({ default: 1024 }),
  sub_cluster_ttl: Duration({ default: 300_000 }),
});
export type SubClustersConfig = Static<typeof SubClustersConfig>;

/** Between workers, whose requests name hosts, and the control thread, which makes their clusters. */
export const wantedTopic = (cluster: string): string => `cluster/${cluster}/sub_cluster_wanted`;
export const overflowTopic = (cluster: string): string => `cluster/${cluster}/sub_cluster_overflow`;

/** A request has named this host. */
export interface Wanted {
  readonly cluster: string;
  readonly address: string;
  readonly port: number;
}

/** As in Envoy, IPv6 addresses stand in the name without brackets. */
export function wantedFor({ name, port }: NamedHost): Wanted {
  return { cluster: `DFPCluster:${name}:${port}`, address: name, port };
}

/** Intervals of looking for unused clusters. */
const LEAST_MS = 10;
const MOST_MS = 86_400_000;

/**
 * Makes a cluster for each host that requests name, and removes those that none has named for `sub_cluster_ttl`. Runs on the control
 * thread. As in Envoy it looks for them once in that time, so an unused cluster stays for up to twice as long.
 */
export class SubClusters {
  readonly #config: SubClustersConfig;
  readonly #cx: SetupContext;
  readonly #made: MadeClusters;
  readonly #lastUsed = new Map<string, number>();
  readonly #look: Timer;
  #stopped = false;

  constructor(config: SubClustersConfig, cx: SetupContext, made: MadeClusters) {
    this.#config = config;
    this.#cx = cx;
    this.#made = made;
    this.#look = cx.timer(() => this.#onLook());
    this.#look.arm(this.#interval);
    // Ignores the topic's last value, which was meant for an earlier generation.
    let live = false;
    cx.subscribe(wantedTopic(made.parent), (value) => {
      if (live && value !== undefined) this.#onWanted(value as Wanted);
    });
    live = true;
  }

  stop(): void {
    this.#stopped = true;
    this.#look.cancel();
  }

  get #interval(): number {
    return Math.min(MOST_MS, Math.max(LEAST_MS, this.#config.sub_cluster_ttl));
  }

  #onWanted({ cluster, address, port }: Wanted): void {
    const made = this.#made;
    if (this.#stopped || !made.serves) return;
    if (!made.names.has(cluster)) {
      if (made.names.size >= this.#config.max_sub_clusters) {
        this.#cx.publish(overflowTopic(made.parent), cluster);
        return;
      }
      made.put(cluster, this.#fieldsOf(cluster, address, port));
    }
    this.#lastUsed.set(cluster, this.#cx.now());
  }

  #fieldsOf(cluster: string, address: string, port_value: number): Record<string, unknown> {
    const endpoint = { address: { socket_address: { address, port_value } } };
    return {
      type: "STRICT_DNS",
      lb_policy: this.#config.lb_policy,
      load_assignment: { cluster_name: cluster, endpoints: [{ lb_endpoints: [{ endpoint }] }] },
    };
  }

  #onLook(): void {
    this.#look.arm(this.#interval);
    const now = this.#cx.now();
    const { names } = this.#made;
    for (const name of [...this.#lastUsed.keys()])
      if (!names.has(name)) this.#lastUsed.delete(name);
    for (const name of [...names]) {
      const last = this.#lastUsed.get(name);
      // One that an earlier generation has made.
      if (last === undefined) this.#lastUsed.set(name, now);
      else if (now - last > this.#config.sub_cluster_ttl) this.#made.remove(name);
    }
  }
}
