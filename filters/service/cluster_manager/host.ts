import {
  type Address,
  formatAddress,
  type Host,
  type HostHealth,
  type HostSpec,
  type Priority,
  type Slot,
  type TransportFactory,
} from "@tsproxy/sdk";
import { excludedBy, healthBy } from "./health-flags.ts";
import { localityKey } from "./localities.ts";
import { NamedPools } from "./named-pools.ts";
import type { OutlierMonitor } from "./outlier-monitor.ts";
import type { PeerNames } from "./peer-names.ts";
import type { Pool } from "./pool.ts";
import type { HostCells } from "./stats.ts";

/** Requests in progress, apart from its host: it outlives code, for old streams go on counting in it. */
export interface Load {
  active: number;
}

export interface PoolMaker {
  make(host: UpstreamHost, priority: Priority, peer?: PeerNames): readonly Pool[];
  /** Its connections, all idle, close. */
  drop(pool: Pool): void;
}

/** An endpoint that is alive. It stays the same object through all updates that still name its address. */
export class UpstreamHost implements Host {
  address: Address;
  key: string;
  readonly load: Load;
  /** Of both priorities, as far as there are any. */
  readonly pools: Pool[] = [];
  readonly #makeCells: () => HostCells;
  #cells: HostCells | undefined = undefined;
  /** One each, or with `use_downstream_protocol_config` one for HTTP/1.1 and then one for HTTP/2. */
  #defaultPools: readonly Pool[] | undefined = undefined;
  #highPools: readonly Pool[] | undefined = undefined;
  #named: NamedPools | undefined = undefined;
  readonly #poolMaker: PoolMaker;
  /** What its connections pass; undefined: plain bytes. */
  transport: Slot<TransportFactory> | undefined = undefined;
  spec: HostSpec;
  health: HostHealth;
  /** Left out of the numbers that priorities and panic go by: nobody has checked it yet. */
  excluded: boolean;
  localityKey: string;
  healthySince: number;
  /** Undefined: the cluster has no outlier detection. */
  outlier: OutlierMonitor | undefined = undefined;
  /** Undefined: the cluster has no active checks, and nobody need look for the header. */
  onImmediateHealthCheckFail: (() => void) | undefined = undefined;
  onLoadReport: Host["onLoadReport"] = undefined;
  readonly #now: () => number;
  #flags: number;

  constructor(
    spec: HostSpec,
    makeCells: () => HostCells,
    load: Load,
    poolMaker: PoolMaker,
    now: () => number,
    flags: number,
  ) {
    this.address = addressOf(spec);
    this.key = formatAddress(this.address);
    this.spec = spec;
    this.#now = now;
    this.#flags = flags;
    this.health = healthBy(spec, flags);
    this.excluded = excludedBy(spec, flags);
    this.localityKey = localityKey(spec.locality);
    this.healthySince = now();
    this.#makeCells = makeCells;
    this.load = load;
    this.#poolMaker = poolMaker;
  }

  get canary(): boolean {
    return isCanary(this.spec.metadata);
  }

  get zone(): string {
    return this.spec.locality?.zone ?? "";
  }

  /** Made for the first request: most hosts of a large config have none on most workers. */
  get cells(): HostCells {
    this.#cells ??= this.#makeCells();
    return this.#cells;
  }

  /** The pool of exchanges that come in that protocol. */
  poolFor(downstream: string | undefined, priority: Priority = "default"): Pool {
    return ofProtocol(priority === "default" ? this.#default() : this.#high(), downstream);
  }

  /** The same for a connection to a peer of those names; undefined: too many names. */
  namedPoolFor(
    downstream: string | undefined,
    priority: Priority,
    peer: PeerNames,
  ): Pool | undefined {
    this.#named ??= new NamedPools((pool) => {
      this.pools.splice(this.pools.indexOf(pool), 1);
      this.#poolMaker.drop(pool);
    });
    const make = () => {
      const made = this.#poolMaker.make(this, priority, peer);
      this.pools.push(...made);
      return made;
    };
    const pools = this.#named.get(`${priority} ${peer.key}`, make, peer.most);
    return pools && ofProtocol(pools, downstream);
  }

  #default(): readonly Pool[] {
    if (this.#defaultPools === undefined) {
      this.#defaultPools = this.#poolMaker.make(this, "default");
      this.pools.push(...this.#defaultPools);
    }
    return this.#defaultPools;
  }

  /** Few routes ask for them. */
  #high(): readonly Pool[] {
    if (this.#highPools === undefined) {
      this.#highPools = this.#poolMaker.make(this, "high");
      this.pools.push(...this.#highPools);
    }
    return this.#highPools;
  }

  /** Takes over what an update says of it. False: nothing that a balancer looks at has changed. */
  update(spec: HostSpec): boolean {
    const old = this.spec;
    if (spec === old) return false;
    this.spec = spec;
    this.localityKey = localityKey(spec.locality);
    if (spec.id !== undefined) {
      // It has moved: connections that are open stay where they are, new ones go there.
      this.address = addressOf(spec);
      this.key = formatAddress(this.address);
    }
    const changed =
      old.weight !== spec.weight ||
      old.priority !== spec.priority ||
      old.localityWeight !== spec.localityWeight ||
      localityKey(old.locality) !== this.localityKey ||
      JSON.stringify(old.metadata) !== JSON.stringify(spec.metadata);
    return this.#judge() || changed;
  }

  /** What active checks and outlier detection say of it. False: nothing that a balancer looks at has changed. */
  setFlags(flags: number): boolean {
    if (flags === this.#flags) return false;
    this.#flags = flags;
    return this.#judge();
  }

  #judge(): boolean {
    const health = healthBy(this.spec, this.#flags);
    const excluded = excludedBy(this.spec, this.#flags);
    const changed = health !== this.health || excluded !== this.excluded;
    if (health === "healthy" && this.health !== "healthy") this.healthySince = this.#now();
    this.health = health;
    this.excluded = excluded;
    return changed;
  }

  /** As `override_host_status` names it: what is found out of it first, then what discovery says. */
  get status(): string {
    const { healthStatus } = this.spec;
    if (this.health === "healthy") return healthStatus;
    const said = healthBy(this.spec, 0);
    return said === this.health ? healthStatus : this.health.toUpperCase();
  }
  get hostname(): string {
    return this.spec.hostname;
  }
  get weight(): number {
    return this.spec.weight;
  }
  get priority(): number {
    return this.spec.priority;
  }
  get metadata(): unknown {
    return this.spec.metadata;
  }
  get healthy(): boolean {
    return this.health !== "unhealthy";
  }
  get activeRequests(): number {
    return this.load.active;
  }
  set activeRequests(active: number) {
    this.load.active = active;
  }

  onResponse(status: number, retried = false, deferred = false): void {
    if (!deferred) this.#count(status < 500 && !retried);
    this.outlier?.onCode(status);
  }
  onDeferredEnd(ok: boolean): void {
    this.#count(ok);
  }
  #count(ok: boolean): void {
    if (ok) this.cells.rqSuccess.inc();
    else this.cells.rqError.inc();
  }
  onTimeout(): void {
    this.cells.rqTimeout.inc();
    this.cells.rqError.inc();
    this.outlier?.onLocalFailure(504);
  }
  onReset(): void {
    this.cells.rqError.inc();
    this.outlier?.onLocalFailure(503);
  }
}

const ofProtocol = (pools: readonly Pool[], downstream: string | undefined): Pool =>
  pools[downstream === "HTTP/2" ? pools.length - 1 : 0]!;

/** Who a host is among those of its cluster. */
export function idOf(spec: HostSpec): string {
  return spec.id ?? formatAddress(addressOf(spec));
}

export function addressOf(spec: HostSpec): Address {
  return spec.path === undefined
    ? { ip: spec.ip, port: spec.port }
    : { ip: "", port: 0, path: spec.path };
}

/** `metadata: { filter_metadata: { envoy.lb: { canary: true } } }` */
export function isCanary(metadata: unknown): boolean {
  const filters = (
    metadata as { filter_metadata?: Record<string, { canary?: unknown }> } | undefined
  )?.filter_metadata;
  return filters?.["envoy.lb"]?.canary === true;
}
