import {
  type BalancerPolicy,
  type ChildContext,
  type Clusters,
  type ClusterType,
  type CodecFactory,
  ConfigError,
  everyOf,
  type HealthChecker,
  type HostSpec,
  type ReadyClusters,
  type Service,
  type SetupContext,
  type Slot,
  type Timer,
} from "@tsproxy/sdk";
import { openUsed, type UsedLimits } from "./circuit-breaker.ts";
import type { HealthList } from "./cluster-health.ts";
import { type ClusterConfig, type Config, check, checkPeerNames, isPlain } from "./config.ts";
import { Connectivity } from "./connectivity.ts";
import { checkDropLimit } from "./drop-overload.ts";
import { type Estate, estateOf, fingerprintOf, type Heir, VERSION } from "./handover.ts";
import { checkerOf } from "./health-checker.ts";
import { HealthDesk, healthTopic, needsHealth } from "./health-desk.ts";
import { idOf, type Load } from "./host.ts";
import { balancerOf } from "./lb-policy.ts";
import { type LocalCluster, localityKey } from "./localities.ts";
import { type Made, MadeRegister, madeConfig } from "./made-clusters.ts";
import { Membership } from "./membership.ts";
import type { Codecs } from "./protocols.ts";
import { starvingTopic } from "./starvation.ts";
import { UpstreamCluster } from "./upstream-cluster.ts";

const LOOK_MS = 1_000; // interval of looking for new code of cluster packages

/** One cluster of the config with the source of its hosts. */
interface Entry {
  readonly cluster: UpstreamCluster;
  readonly config: ClusterConfig;
  /** Ends with the cluster. */
  readonly own: ChildContext;
  /** It was made while the proxy serves; false: it is in the config. */
  readonly isMade: boolean;
  /** It was removed. Another one of that name may be there, and hears of the same hosts. */
  removed: boolean;
  /** Its hosts have been checked, if they are to be before it is used. */
  checked: boolean;
  readonly type: Slot<ClusterType>;
  /** The generation of `type` that currently provides the hosts. */
  generation: Slot<ClusterType>["current"];
  stop: () => void;
  /** The first list of hosts has arrived. */
  warm: boolean;
  onWarm: () => void;
  /** The config is the same as in the previous generation, which checks the hosts until it ends. */
  readonly inherited: boolean;
  /** The hosts published last; only on the control thread. */
  published: readonly HostSpec[] | undefined;
  /** The last result of discovery; published hosts may include others that were kept because they are healthy. */
  discovered: readonly HostSpec[] | undefined;
}

/** Hosts of a cluster, published by the control thread to all others. */
interface HostList {
  /** Fingerprint of the cluster's config: lists for another one, perhaps only prepared, are ignored. */
  readonly config: string;
  readonly hosts: readonly HostSpec[];
}

/** The clusters of one generation on one thread. */
export class ClusterManager implements Service {
  readonly clusters: Clusters;
  readonly #cx: SetupContext;
  readonly #entries = new Map<string, Entry>();
  /** Made clusters that are not ready yet, and removed ones whose last connections are open. */
  readonly #warming = new Map<string, Entry>();
  /** Of the clusters of the config: what they count in is given back once no generation has a cluster of that name. */
  readonly #contexts = new Map<string, ChildContext>();
  readonly #leaving = new Set<Entry>();
  readonly #usedLimits: UsedLimits;
  readonly #made: MadeRegister;
  /** By the cluster that has made it: told of each made cluster that gets ready. */
  readonly #ready = new Map<string, ReadyClusters>();
  /** Clusters that are set up at their first use (`isPlain`), by name. */
  readonly #unused = new Map<string, { readonly config: ClusterConfig; readonly at: string }>();
  readonly #codecs: Codecs;
  /** Undefined if no cluster uses predictive preconnect. */
  readonly #connectivity: Connectivity | undefined;
  /** The generation that this one replaces; undefined once it has. */
  #previous: Estate | undefined;
  /** Earlier generations that still finish exchanges, the latest first. */
  #ancestors: readonly Estate[];
  readonly #estate: Estate;
  readonly #ownLocality: string;
  readonly #membership: Membership | undefined;
  readonly #desk: HealthDesk | undefined;
  readonly #look: Timer;
  readonly #heir: Heir;
  #active = false;
  /** After the end of this generation: where clusters are that it never set up. */
  #successor: Clusters | undefined = undefined;

  constructor(config: Config, cx: SetupContext) {
    this.#cx = cx;
    this.#usedLimits = openUsed(cx);
    this.#previous = estateOf(cx.previous);
    this.#ancestors =
      this.#previous === undefined ? [] : [this.#previous, ...this.#previous.ancestors()];
    // Those that are set up later hold what the generation before has counted.
    for (const { name } of config)
      if (this.#previous?.fingerprints.has(name)) this.#contextOf(name);
    const contextOf = (name: string) => this.#contextOf(name);
    this.#membership =
      cx.role === "control"
        ? new Membership(cx, contextOf, this.#usedLimits, config, this.#previous)
        : undefined;
    this.#made = new MadeRegister(cx, {
      printOf: (name) => this.#estate.fingerprints.get(name),
      add: (name, made) => this.#addMade(name, made),
      remove: (name) => this.#removeMade(name),
    });
    this.#desk =
      cx.role === "control"
        ? new HealthDesk(
            cx,
            (name) => this.#onHealth(this.#entryOf(name)),
            (name) => this.#onHealthyNoMore(this.#entryOf(name)),
          )
        : undefined;
    this.#estate = this.#makeEstate(config);
    this.#ownLocality = localityKey(cx.node.locality);
    this.clusters = {
      get: (name) =>
        (this.#entries.get(name) ?? this.#late(name))?.cluster ?? this.#successor?.get(name),
      has: (name) => this.#entries.has(name) || this.#unused.has(name),
      status: () => this.#membership?.status(),
    };
    this.#look = cx.timer(() => this.#onLook());
    this.#heir = this.#asHeir();
    // Registered before clusters are added: if one is refused below, those before it must be released.
    cx.onDispose(() => this.#dispose());
    let http2: Slot<CodecFactory> | undefined;
    this.#codecs = {
      http1: cx.shipped("codec", "codec/http1"),
      http2: () => (http2 ??= cx.shipped("codec", "codec/http2")),
    };
    const ahead = config.some(
      ({ preconnect_policy }) => (preconnect_policy?.predictive_preconnect_ratio ?? 1) > 1,
    );
    this.#connectivity = ahead ? new Connectivity() : undefined;
    const mayWait = cx.role === "worker" && cx.rehearsed === true;
    everyOf(config, (cluster, k) => {
      const isLate = mayWait && cluster.name !== cx.node.localCluster && isPlain(cluster);
      if (isLate) this.#unused.set(cluster.name, { config: cluster, at: `[${k}]` });
      else this.#add(cluster, `[${k}]`);
    });
    if (cx.role === "canary") return;
    this.#made.follow();
    cx.onHandover(() => this.#estate);
    this.#look.arm(LOOK_MS);
    if (this.#previous !== undefined) this.#previous.heir = this.#heir;
    else this.#heir.begin();
  }

  /** The cluster that this proxy belongs to, for zone-aware routing; undefined if the config names none. */
  #local(): LocalCluster | undefined {
    const { localCluster } = this.#cx.node;
    return localCluster === undefined
      ? undefined
      : this.#entries.get(localCluster)?.cluster.asLocal();
  }

  /**
   * Sets up a cluster at its first use: of a thousand clusters most workers use few. Never throws: the canary has found what is
   * wrong with a config.
   */
  #late(name: string): Entry | undefined {
    const unused = this.#unused.get(name);
    if (unused === undefined) return undefined;
    this.#unused.delete(name);
    try {
      this.#add(unused.config, unused.at);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#cx.log.error("a cluster cannot be set up", { cluster: name, error: message });
    }
    return this.#entries.get(name);
  }

  #entryOf(name: string): Entry | undefined {
    return this.#entries.get(name) ?? this.#warming.get(name);
  }

  *#all(): IterableIterator<Entry> {
    yield* this.#entries.values();
    yield* this.#warming.values();
  }

  #contextOf(name: string): ChildContext {
    let own = this.#contexts.get(name);
    if (own === undefined) this.#contexts.set(name, (own = this.#cx.child(name)));
    return own;
  }

  /** `made`: the context of a made cluster. */
  #add(config: ClusterConfig, at: string, made?: ChildContext): void {
    if (this.#cx.role === "canary") checkDropLimit(config, at, this.#cx.runtime);
    const own = made ?? this.#contextOf(config.name);
    const { balancer, type } = this.#packages(config, at, own);
    const cluster = new UpstreamCluster({
      cx: own,
      config,
      balancer,
      codecs: this.#codecs,
      loadOf: (name, host) => this.#loadOf(name, host),
      hostNames: this.#estate.hostNames,
      usedLimits: this.#usedLimits,
      connectivity: this.#connectivity,
      made: this.#readyOf(config.name),
      type: type.current.value,
      clusterOf: (name) => (this.#entries.get(name) ?? this.#late(name))?.cluster,
      onChanged: () => {
        if (config.name !== this.#cx.node.localCluster) return;
        for (const entry of this.#entries.values())
          if (entry.cluster.name !== config.name) entry.cluster.onLocalChanged();
      },
      ownLocality: this.#ownLocality,
      // As in Envoy, the local cluster is not zone-aware itself: it is where the shares come from.
      local: () => (config.name === this.#cx.node.localCluster ? undefined : this.#local()),
    });
    const waits = (config.health_checks ?? []).length > 0 && config.wait_for_warm_on_init !== false;
    const entry: Entry = {
      cluster,
      config,
      own,
      isMade: made !== undefined,
      removed: false,
      checked: !waits,
      type,
      generation: type.current,
      stop: () => {},
      warm: false,
      onWarm: () => {},
      inherited: this.#previous?.fingerprints.get(config.name) === cluster.fingerprint,
      published: undefined,
      discovered: undefined,
    };
    entry.generation.acquire();
    (entry.isMade ? this.#warming : this.#entries).set(config.name, entry);
    if (this.#membership !== undefined) cluster.onOwnHosts = () => this.#count(entry);
    const checker = this.#checker(config, at, own);
    if (this.#cx.role === "canary") return;
    if (needsHealth(config)) this.#followHealth(entry, config, checker);
    if (type.current.value.discover === undefined)
      this.#onHosts(entry, type.current.value.initialHosts);
    this.#follow(entry, config.wait_for_warm_on_init ?? true);
  }

  /** Finds the packages of a cluster's type, by Envoy's name of the type, and of its load-balancing policy. */
  #packages(
    config: ClusterConfig,
    at: string,
    cx: SetupContext,
  ): { balancer: Slot<BalancerPolicy> | undefined; type: Slot<ClusterType> } {
    const name = `cluster/${(config.type ?? "STATIC").toLowerCase()}`;
    const named = config.cluster_type;
    const type =
      named === undefined
        ? placed(at, "type", () => cx.shipped("cluster", name, config))
        : placed(`${at}.cluster_type`, "typed_config", () => cx.extension("cluster", named));
    const { value } = type.current;
    checkPeerNames(config, value, at);
    const provides = value.provide !== undefined || value.clusters !== undefined;
    const chosen = balancerOf(config);
    if (provides !== (chosen === undefined))
      throw new ConfigError(
        `${at}.lb_policy`,
        provides
          ? `a cluster of type ${config.type ?? named?.name} chooses its hosts itself; write CLUSTER_PROVIDED`
          : "CLUSTER_PROVIDED is for clusters that choose their hosts themselves; this one does not",
      );
    const balancer = chosen && placed(at, chosen.place, () => cx.extension("balancer", chosen.ref));
    return { balancer, type };
  }

  #checker(config: ClusterConfig, at: string, cx: SetupContext): Slot<HealthChecker> | undefined {
    const check = config.health_checks?.[0];
    // Workers do not check hosts; the canary has validated the checker's config.
    if (check === undefined || this.#cx.role === "worker") return undefined;
    const where = `${at}.health_checks[0]`;
    const { place, ref } = checkerOf(check, where);
    return placed(where, place, () => cx.extension("health", ref));
  }

  // ---- clusters made while serving

  #addMade(name: string, made: Made): void {
    const parent = this.#entries.get(made.parent);
    if (parent === undefined) return;
    const { peerNames } = parent.generation.value;
    const config = madeConfig(name, parent.config, peerNames, made.fields);
    const own = this.#cx.child(name);
    this.#estate.fingerprints.set(name, fingerprintOf(config));
    this.#membership?.add(config, made, own);
    try {
      check([config]);
      this.#add(config, `cluster "${name}"`, own);
    } catch (error) {
      this.#estate.fingerprints.delete(name);
      this.#membership?.forget(name);
      own.end();
      throw error;
    }
    this.#membership?.onAdded(name);
  }

  #removeMade(name: string): void {
    const entry = this.#entryOf(name);
    this.#membership?.remove(name);
    this.#estate.fingerprints.delete(name);
    this.#ready.delete(name);
    if (this.#active) this.#retract(name);
    if (entry === undefined) return;
    this.#entries.delete(name);
    this.#warming.delete(name);
    this.#desk?.remove(name);
    entry.stop();
    entry.generation.release();
    entry.cluster.retire(undefined);
    entry.removed = true;
    this.#leaving.add(entry);
    this.#forgetLeaving();
  }

  /** The cluster is gone, and what was published of it. */
  #retract(name: string): void {
    if (this.#cx.role !== "control") return;
    for (const topic of [topicOf(name), healthTopic(name), starvingTopic(name)])
      this.#cx.retract(topic);
  }

  /** Gives back what removed clusters had, once their last connections have closed. */
  #forgetLeaving(): void {
    for (const entry of this.#leaving) {
      if (entry.cluster.open() > 0) continue;
      this.#leaving.delete(entry);
      entry.cluster.dispose(true);
      entry.own.end();
    }
  }

  /** Puts a made cluster to use once its first hosts are known, and checked. */
  #onWarm(entry: Entry): void {
    const { name } = entry.cluster;
    if (!entry.warm || !entry.checked || !this.#warming.delete(name)) return;
    this.#entries.set(name, entry);
    this.#membership?.onWarm(name);
    const parent = this.#made.get(name)?.parent;
    if (parent !== undefined) this.#ready.get(parent)?.onReady?.(name);
  }

  #readyOf(parent: string): ReadyClusters {
    const ready: ReadyClusters = {
      parent,
      has: (name) => this.#entries.has(name) && this.#made.get(name)?.parent === parent,
      choose: (name, context) => this.#entries.get(name)?.cluster.hostFor(context),
      onReady: undefined,
    };
    this.#ready.set(parent, ready);
    return ready;
  }

  // ---- hosts

  /** On the control thread, starts to determine the health of hosts; elsewhere subscribes to the result. */
  #followHealth(
    entry: Entry,
    config: ClusterConfig,
    checker: Slot<HealthChecker> | undefined,
  ): void {
    const { cluster } = entry;
    if (this.#desk !== undefined) {
      this.#desk.add(config, cluster, checker, () => cluster.hadTraffic);
      return;
    }
    const warm = new Promise<void>((resolve) => {
      cluster.cx.subscribe(healthTopic(cluster.name), (value) => {
        const list = value as HealthList | undefined;
        if (list?.config !== cluster.fingerprint) return;
        cluster.setHealth(list);
        if (!list.warm) return;
        resolve();
        this.#onChecked(entry);
      });
    });
    // Outlier detection is there as soon as the control thread is prepared, and every thread waits for that.
    if (!entry.checked && !entry.isMade)
      this.#cx.waitFor(warm, `the first health checks of cluster "${cluster.name}"`);
  }

  /** On the control thread, starts the discovery of hosts; elsewhere subscribes to the result. */
  #follow(entry: Entry, wait: boolean): void {
    const { cluster } = entry;
    if (this.#cx.role === "control") this.#discover(entry);
    else {
      cluster.cx.subscribe(topicOf(cluster.name), (value) => {
        const list = value as HostList | undefined;
        if (list?.config !== cluster.fingerprint) return;
        if (entry.generation.value.discover !== undefined) this.#onHosts(entry, list.hosts);
      });
    }
    if (entry.generation.value.discover === undefined) return;
    const warm = new Promise<void>((resolve) => {
      if (entry.warm) resolve();
      else entry.onWarm = resolve;
    });
    if (wait && !entry.isMade) this.#cx.waitFor(warm, `the hosts of cluster "${cluster.name}"`);
  }

  #onHosts(entry: Entry, hosts: readonly HostSpec[], changes?: number): void {
    const { cluster } = entry;
    if (entry.removed) return;
    cluster.update(hosts);
    const desk = this.#desk;
    if (desk?.get(cluster.name) !== undefined) {
      desk.onHosts(cluster.name, cluster.specs());
      // With the first list health checks start, unless the previous generation still checks these hosts.
      if (!entry.warm && !entry.inherited) desk.start(cluster.name, undefined);
    }
    entry.warm = true;
    entry.onWarm();
    this.#count(entry, changes);
    this.#onWarm(entry);
  }

  #onChecked(entry: Entry): void {
    if (entry.removed) return;
    entry.checked = true;
    this.#onWarm(entry);
  }

  #onHealth(entry: Entry | undefined): void {
    this.#count(entry);
    if (entry !== undefined && this.#desk?.get(entry.cluster.name)?.warm) this.#onChecked(entry);
  }

  #count(entry: Entry | undefined, changes?: number): void {
    if (entry === undefined) return;
    const { name } = entry.cluster;
    this.#membership?.update(name, entry.cluster.specs(), this.#desk?.get(name), changes);
  }

  /** Removes hosts that discovery no longer names and that were kept only while they were healthy. */
  #onHealthyNoMore(entry: Entry | undefined): void {
    if (entry?.discovered !== undefined) this.#onDiscovered(entry, entry.discovered);
  }

  #onDiscovered(entry: Entry, found: readonly HostSpec[], changes?: number): void {
    entry.discovered = found;
    const hosts = this.#desk?.get(entry.cluster.name)?.retain(found, idOf) ?? found;
    this.#onHosts(entry, hosts, changes);
    this.#publish(entry, hosts);
  }

  #discover(entry: Entry): void {
    const { discover } = entry.generation.value;
    if (discover === undefined) return;
    let stopped = false;
    const stop = discover.call(
      entry.generation.value,
      (hosts, changes, heard = true) => {
        if (stopped || (!heard && entry.isMade)) return;
        this.#onDiscovered(entry, hosts, changes);
      },
      entry.cluster.cx,
      this.#made.of(entry.cluster.name),
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

  /** Looks for reloaded cluster packages: the source of hosts is replaced, hosts that stay the same are kept. */
  #onLook(): void {
    this.#forgetLeaving();
    for (const entry of this.#all()) {
      if (entry.type.current === entry.generation) continue;
      entry.stop();
      entry.stop = () => {};
      entry.generation.release();
      entry.generation = entry.type.current;
      entry.generation.acquire();
      const { discover, initialHosts } = entry.generation.value;
      if (discover === undefined) this.#onHosts(entry, initialHosts);
      else if (this.#cx.role === "control") this.#discover(entry);
    }
    this.#forgetAncestors();
    this.#look.arm(LOOK_MS);
  }

  // ---- generations

  #makeEstate(config: Config): Estate {
    const estate: Estate = {
      version: VERSION,
      fingerprints: new Map(config.map((cluster) => [cluster.name, fingerprintOf(cluster)])),
      members: this.#membership?.members ?? new Map(),
      hostNames: this.#previous?.hostNames ?? new Set(),
      heir: undefined,
      load: (cluster, host) => this.#entryOf(cluster)?.cluster.load(host),
      republish: () => {
        for (const entry of this.#all()) {
          this.#desk?.tell(entry.cluster.name);
          if (entry.published !== undefined) this.#publish(entry, entry.published);
        }
      },
      health: (cluster) => this.#desk?.get(cluster)?.records(),
      surrender: (heir) => this.#surrender(heir),
      open: () => {
        let n = 0;
        for (const entry of [...this.#all(), ...this.#leaving]) n += entry.cluster.open();
        return n;
      },
      ancestors: () => this.#ancestors,
      release: () => {
        for (const { cluster } of [...this.#all(), ...this.#leaving])
          cluster.dispose(estate.heir?.fingerprint(cluster.name) === undefined);
        Object.assign(estate, NOTHING_LEFT);
      },
    };
    return estate;
  }

  #loadOf(cluster: string, host: string): Load | undefined {
    for (const ancestor of this.#ancestors) {
      const load = ancestor.load(cluster, host);
      if (load !== undefined) return load;
    }
    return undefined;
  }

  /** Releases earlier generations without open sockets, so that their code can be freed. */
  #forgetAncestors(): void {
    if (!this.#active || this.#ancestors.length === 0) return;
    const finished = this.#ancestors.filter((ancestor) => ancestor.open() === 0);
    this.#ancestors = this.#ancestors.filter((ancestor) => !finished.includes(ancestor));
    for (const ancestor of finished) ancestor.release();
  }

  #asHeir(): Heir {
    return {
      clusters: this.clusters,
      begin: () => {
        const previous = this.#previous;
        this.#active = true;
        for (const name of previous?.fingerprints.keys() ?? [])
          if (!this.#estate.fingerprints.has(name)) this.#retract(name);
        this.#previous = undefined;
        for (const { cluster, inherited } of this.#all())
          if (inherited) this.#desk?.start(cluster.name, previous?.health(cluster.name));
        this.#membership?.begin();
        this.#made.begin();
      },
      adopt: (connection, handler) => this.#cx.adopt(connection, handler),
      fingerprint: (cluster) => this.#estate.fingerprints.get(cluster),
      takeIdle: (cluster, host, facts) =>
        (this.#entries.get(cluster) ?? this.#late(cluster))?.cluster.takeIdle(host, facts) ?? false,
    };
  }

  #dispose(): void {
    this.#look.cancel();
    this.#unused.clear();
    this.#successor = this.#estate.heir?.clusters;
    for (const entry of this.#all()) {
      entry.stop();
      entry.generation.release();
    }
    this.#desk?.stop();
    this.#made.end();
    if (this.#active) {
      this.#membership?.end();
      this.#estate.heir?.begin();
      this.#surrender(this.#estate.heir);
    } else {
      // This generation was prepared and then dropped; the previous one continues.
      this.#membership?.dispose();
      this.#surrender(undefined);
      if (this.#previous?.heir !== this.#heir) return;
      this.#previous.heir = undefined;
      this.#previous.republish();
    }
  }

  #surrender(heir: Heir | undefined): void {
    for (const entry of [...this.#all(), ...this.#leaving]) entry.cluster.retire(heir);
    if (!this.#active) return;
    const ancestors = this.#ancestors;
    this.#ancestors = [];
    if (heir !== undefined) for (const ancestor of ancestors) ancestor.surrender(heir);
  }
}

/** Content of an estate after its generation has finished. */
const NOTHING_LEFT: Partial<Estate> = {
  fingerprints: new Map(),
  members: new Map(),
  heir: undefined,
  load: () => undefined,
  health: () => undefined,
  republish: () => {},
  surrender: () => {},
  open: () => 0,
  ancestors: () => [],
  release: () => {},
};

const topicOf = (cluster: string): string => `cluster/${cluster}/hosts`;

/** Runs the setup of an inner package and adds the place in our config to its errors. */
function placed<T>(at: string, field: string, setup: () => T): T {
  try {
    return setup();
  } catch (error) {
    const inner = error as { path?: unknown; refusals?: { path?: unknown }[]; message?: unknown };
    const path = inner.path ?? inner.refusals?.[0]?.path;
    const message = typeof inner.message === "string" ? inner.message : String(error);
    throw new ConfigError(
      `${at}.${typeof path === "string" && path !== "" ? path : field}`,
      message,
    );
  }
}
