// Hot path: `choose` and `resolve` run for every request.
import {
  type BalancerContext,
  contextState,
  type Host,
  type HostNames,
  type NamedHost,
  type NameOutcome,
  namedHost,
  type ProvidedBalancer,
  type ProvidedHosts,
  type SetupContext,
  statedHost,
  type Timer,
} from "@tsproxy/sdk";
import {
  overflowTopic,
  type SubClustersConfig,
  type Wanted,
  wantedFor,
  wantedTopic,
} from "./sub-clusters.ts";

/** While requests name a host, the control thread is told so this many times in `sub_cluster_ttl`. */
const TOLD_PARTS = 8;

interface Waiting {
  readonly settle: (outcome: NameOutcome) => void;
  readonly timer: Timer;
}

/** A worker's view of the sub clusters: their hosts by the names that requests give them. */
export class NamedClusters implements ProvidedBalancer, HostNames {
  readonly names: HostNames = this;
  readonly takesEmpty = true;
  readonly #own: ProvidedHosts;
  readonly #cx: SetupContext;
  readonly #waiting = new Map<string, Set<Waiting>>();
  /** When the control thread was last told that a cluster is in use. */
  #told = new Map<string, number>();
  readonly #toldMs: number;

  constructor(config: SubClustersConfig, own: ProvidedHosts, cx: SetupContext) {
    this.#own = own;
    this.#cx = cx;
    this.#toldMs = config.sub_cluster_ttl / TOLD_PARTS;
    if (cx.role !== "worker") return;
    own.made.onReady = (name) => this.#settle(name, "known");
    cx.subscribe(overflowTopic(own.made.parent), (value) => {
      if (typeof value === "string") this.#settle(value, "sub_cluster_overflow");
    });
  }

  choose(context: BalancerContext): Host | undefined {
    const { stream, head } = context;
    const authority = stream?.request.authority ?? head?.authority ?? "";
    const host = statedHost(contextState(context), authority, this.#own.defaultPort);
    return host && this.#own.made.choose(wantedFor(host).cluster, context);
  }

  /** As in Envoy, filter state is asked for the host only when one is chosen (`choose`). */
  resolve(authority: string, _state: unknown, waitMs: number): NameOutcome | Promise<NameOutcome> {
    const wanted = wantedFor(namedHost(authority, this.#own.defaultPort) ?? this.#unnamed());
    const { cluster } = wanted;
    if (this.#own.made.has(cluster)) {
      this.#touch(wanted);
      return "known";
    }
    return new Promise((resolve) => {
      const all = this.#waiting.get(cluster) ?? new Set();
      this.#waiting.set(cluster, all);
      const timer = this.#cx.timer(() => {
        all.delete(waiting);
        if (all.size === 0) this.#waiting.delete(cluster);
        resolve("sub_cluster_timeout");
      });
      const waiting = { settle: resolve, timer };
      all.add(waiting);
      timer.arm(waitMs);
      this.#cx.publish(wantedTopic(this.#own.made.parent), wanted);
    });
  }

  /** An authority that names no host has a cluster all the same, which as in Envoy never gets ready. */
  #unnamed(): NamedHost {
    return { key: "", name: "", port: this.#own.defaultPort };
  }

  dispose(): void {
    for (const cluster of [...this.#waiting.keys()]) this.#settle(cluster, "again");
  }

  #settle(cluster: string, outcome: NameOutcome): void {
    const all = this.#waiting.get(cluster);
    if (all === undefined) return;
    this.#waiting.delete(cluster);
    for (const { settle, timer } of all) {
      timer.cancel();
      settle(outcome);
    }
  }

  #touch(wanted: Wanted): void {
    const now = this.#cx.now();
    const last = this.#told.get(wanted.cluster);
    if (last !== undefined && now - last < this.#toldMs) return;
    // Names that are no more are forgotten now and then.
    if (this.#told.size >= TOLD_MOST) this.#told = new Map();
    this.#told.set(wanted.cluster, now);
    this.#cx.publish(wantedTopic(this.#own.made.parent), wanted);
  }
}

const TOLD_MOST = 4096;
