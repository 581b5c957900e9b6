import {
  type BalancerFactory,
  type Clusters,
  type ClusterType,
  type CodecFactory,
  ConfigError,
  type HostSpec,
  type Service,
  type SetupContext,
  type Slot,
  type Timer,
} from "@tsproxy/sdk";
import type { ClusterConfig, Config } from "./config.ts";
import { type Estate, estateOf, type Heir, VERSION } from "./handover.ts";
import { Membership } from "./membership.ts";
import { UpstreamCluster } from "./upstream-cluster.ts";

const LOOK_MS = 1_000; // how soon new code of a cluster package is noticed

/** One cluster of the config, and where its hosts come from. */
interface Entry {
  readonly cluster: UpstreamCluster;
  readonly type: Slot<ClusterType>;
  /** The generation of `type` that the hosts come from. */
  generation: Slot<ClusterType>["current"];
  stop: () => void;
  /** On the control thread: what was published last. */
  published: readonly HostSpec[] | undefined;
}

/** What the control thread tells all others about the hosts of a cluster. */
interface HostList {
  /** A list for another config of that name (prepared, and perhaps never put into service) is not for us. */
  readonly config: string;
  readonly hosts: readonly HostSpec[];
}

/** All clusters of one generation, on one thread. */
export class ClusterManager implements Service {
  readonly clusters: Clusters;
  readonly #cx: SetupContext;
  readonly #entries = new Map<string, Entry>();
  readonly #previous: Estate | undefined;
  readonly #estate: Estate;
  readonly #membership: Membership | undefined;
  readonly #look: Timer;
  readonly #heir: Heir;
  #active = false;

  constructor(config: Config, cx: SetupContext) {
    this.#cx = cx;
    this.#previous = estateOf(cx.previous);
    this.#membership =
      cx.role === "control" ? new Membership(cx, config, this.#previous) : undefined;
    this.#estate = this.#makeEstate(config);
    this.clusters = { get: (name) => this.#entries.get(name)?.cluster };
    this.#look = cx.timer(() => this.#lookForNewCode());
    this.#heir = this.#asHeir();
    // First of all, for a cluster that is refused below must not leave those before it behind.
    cx.onDispose(() => this.#dispose());
    const codec = cx.shipped("codec", "codec/http1");
    for (const [k, cluster] of config.entries()) this.#add(cluster, `[${k}]`, codec);
    if (cx.role === "canary") return;
    cx.onHandover(() => this.#estate);
    this.#look.arm(LOOK_MS);
    if (this.#previous !== undefined) this.#previous.heir = this.#heir;
    else this.#heir.begin();
  }

  #add(config: ClusterConfig, at: string, codec: Slot<CodecFactory>): void {
    const { balancer, type } = this.#packages(config, at);
    const cluster = new UpstreamCluster({
      cx: this.#cx,
      config,
      balancer,
      codec,
      estate: this.#previous,
      hostNames: this.#estate.hostNames,
    });
    const entry: Entry = {
      cluster,
      type,
      generation: type.current,
      stop: () => {},
      published: undefined,
    };
    entry.generation.acquire();
    this.#entries.set(config.name, entry);
    if (this.#cx.role === "canary") return;
    if (type.current.value.discover === undefined)
      this.#onHosts(entry, type.current.value.initialHosts);
    this.#listen(entry, config.wait_for_warm_on_init ?? true);
    this.#discover(entry);
  }

  /** The packages of a type and a policy are found by Envoy's own words for them. */
  #packages(
    config: ClusterConfig,
    at: string,
  ): { balancer: Slot<BalancerFactory>; type: Slot<ClusterType> } {
    const policy = (config.lb_policy ?? "ROUND_ROBIN").toLowerCase();
    const type = (config.type ?? "STATIC").toLowerCase();
    const options = config[`${policy}_lb_config` as keyof ClusterConfig] ?? {};
    return {
      type: placed(at, "type", () => this.#cx.shipped("cluster", `cluster/${type}`, config)),
      balancer: placed(at, "lb_policy", () =>
        this.#cx.shipped("balancer", `balancer/${policy}`, options),
      ),
    };
  }

  // ---- hosts

  /** Lists come from the control thread; it hears its own the same way. */
  #listen(entry: Entry, wait: boolean): void {
    const { cluster } = entry;
    let warmed = () => {};
    const warm = new Promise<void>((resolve) => {
      warmed = resolve;
    });
    this.#cx.subscribe(topicOf(cluster.name), (value) => {
      const list = value as HostList | undefined;
      if (list?.config !== cluster.fingerprint || entry.generation.value.discover === undefined)
        return;
      this.#onHosts(entry, list.hosts);
      warmed();
    });
    if (entry.generation.value.discover === undefined) return;
    if (wait) this.#cx.waitFor(warm, `the hosts of cluster "${cluster.name}"`);
  }

  #onHosts(entry: Entry, hosts: readonly HostSpec[]): void {
    entry.cluster.update(hosts);
    this.#membership?.update(entry.cluster.name, hosts, entry.cluster.hostIds());
  }

  #discover(entry: Entry): void {
    const { discover } = entry.generation.value;
    if (this.#cx.role !== "control" || discover === undefined) return;
    let stopped = false;
    const stop = discover.call(
      entry.generation.value,
      (hosts) => {
        if (!stopped) this.#publish(entry, hosts);
      },
      this.#cx,
    );
    entry.stop = () => {
      stopped = true;
      stop?.();
    };
  }

  #publish(entry: Entry, hosts: readonly HostSpec[]): void {
    entry.published = hosts;
    const list: HostList = { config: entry.cluster.fingerprint, hosts };
    this.#cx.publish(topicOf(entry.cluster.name), list);
  }

  /** A reload of a cluster package replaces where the hosts come from, and the hosts only as far as they differ. */
  #lookForNewCode(): void {
    for (const entry of this.#entries.values()) {
      if (entry.type.current === entry.generation) continue;
      entry.stop();
      entry.stop = () => {};
      entry.generation.release();
      entry.generation = entry.type.current;
      entry.generation.acquire();
      const { discover, initialHosts } = entry.generation.value;
      if (discover === undefined) this.#onHosts(entry, initialHosts);
      else this.#discover(entry);
    }
    this.#look.arm(LOOK_MS);
  }

  // ---- generations

  #makeEstate(config: Config): Estate {
    return {
      version: VERSION,
      fingerprints: new Map(config.map((cluster) => [cluster.name, JSON.stringify(cluster)])),
      members: this.#membership?.members ?? new Map(),
      hostNames: this.#previous?.hostNames ?? new Set(),
      heir: undefined,
      load: (cluster, host) => this.#entries.get(cluster)?.cluster.load(host),
      republish: () => {
        for (const entry of this.#entries.values()) {
          if (entry.published !== undefined) this.#publish(entry, entry.published);
        }
      },
      surrender: (heir) => this.#surrender(heir),
      open: () => {
        let n = this.#previous?.open() ?? 0;
        for (const entry of this.#entries.values()) n += entry.cluster.open();
        return n;
      },
    };
  }

  #asHeir(): Heir {
    return {
      clusters: this.clusters,
      begin: () => {
        this.#active = true;
        this.#membership?.begin();
      },
      adopt: (connection, handler) => this.#cx.adopt(connection, handler),
      fingerprint: (cluster) => this.#entries.get(cluster)?.cluster.fingerprint,
      takeIdle: (cluster, host, facts) =>
        this.#entries.get(cluster)?.cluster.takeIdle(host, facts) ?? false,
    };
  }

  #dispose(): void {
    this.#look.cancel();
    for (const entry of this.#entries.values()) {
      entry.stop();
      entry.generation.release();
    }
    if (this.#active) {
      this.#membership?.end();
      this.#estate.heir?.begin();
      this.#surrender(this.#estate.heir);
    } else {
      // It was prepared and dropped; the one before goes on.
      this.#surrender(undefined);
      if (this.#previous?.heir !== this.#heir) return;
      this.#previous.heir = undefined;
      this.#previous.republish();
    }
  }

  #surrender(heir: Heir | undefined): void {
    for (const entry of this.#entries.values()) entry.cluster.retire(heir);
    if (
      heir !== undefined &&
      this.#active &&
      this.#previous !== undefined &&
      this.#previous.open() > 0
    ) {
      this.#previous.surrender(heir);
    }
  }
}

const topicOf = (cluster: string): string => `cluster/${cluster}/hosts`;

/** Runs the setup of an inner package; what it refuses gets its place in our config. */
function placed<T>(at: string, field: string, setup: () => T): T {
  try {
    return setup();
  } catch (error) {
    const inner = error as { path?: unknown; refusal?: { path?: unknown }; message?: unknown };
    const path = inner.path ?? inner.refusal?.path;
    const message = typeof inner.message === "string" ? inner.message : String(error);
    throw new ConfigError(
      `${at}.${typeof path === "string" && path !== "" ? path : field}`,
      message,
    );
  }
}
