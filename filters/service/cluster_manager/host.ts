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
import { excludedBy, FLAG, healthBy } from "./health-flags.ts";
import { localityKey } from "./localities.ts";
import { NamedPools } from "./named-pools.ts";
import type { OutlierMonitor } from "./outlier-monitor.ts";
import type { PeerNames } from "./peer-names.ts";
import type { Pool } from "./pool.ts";
import type { HostCells } from "./stats.ts";

/** What passes to new generations of a host, while streams of old ones still count in it. */
export interface Load {
  /** Requests in progress. */
  active: number;
  /** Undefined: it has never been healthy. */
  healthySince?: number | undefined;
}

/** What the hosts of a cluster share. */
export interface HostSurroundings {
  readonly pools: PoolMaker;
  now(): number;
  /** Makes a host's stats. */
  cellsOf(spec: HostSpec): HostCells;
}

/** Creates and drops the connection pools of hosts. */
export interface PoolMaker {
  make(host: UpstreamHost, priority: Priority, peer?: PeerNames): readonly Pool[];
  /** Closes the pool's connections, which are all idle. */
  drop(pool: Pool): void;
}

/** A host of a cluster on this worker. Remains the same object through all updates that contain its id. */
export class UpstreamHost implements Host {
  address: Address;
  key: string;
  readonly load: Load;
  /** All pools of the host, of both priorities and for all names. */
  readonly pools: Pool[] = [];
  readonly #around: HostSurroundings;
  /** The spec that it was made with: stats keep that name. */
  readonly #first: HostSpec;
  #cells: HostCells | undefined = undefined;
  /** Pools by priority: one, or with `use_downstream_protocol_config` one for HTTP/1.1 and one for HTTP/2, in that order. */
  #defaultPools: readonly Pool[] | undefined = undefined;
  #highPools: readonly Pool[] | undefined = undefined;
  #named: NamedPools | undefined = undefined;
  /** Transport socket of its connections; undefined: plain TCP. */
  transport: Slot<TransportFactory> | undefined = undefined;
  spec: HostSpec;
  health: HostHealth;
  /** The host does not count in the totals for priorities and panic, e.g. because it has not been checked yet. */
  excluded: boolean;
  localityKey: string;
  /** Undefined without outlier detection. */
  outlier: OutlierMonitor | undefined = undefined;
  /** Undefined without active checks, so that x-envoy-immediate-health-check-fail is not looked for. */
  onImmediateHealthCheckFail: (() => void) | undefined = undefined;
  onDegraded: (() => void) | undefined = undefined;
  onLoadReport: Host["onLoadReport"] = undefined;
  #flags: number;

  constructor(spec: HostSpec, load: Load, around: HostSurroundings, flags: number) {
    this.address = addressOf(spec);
    this.key = formatAddress(this.address);
    this.spec = spec;
    this.#around = around;
    this.#first = spec;
    this.#flags = flags;
    this.health = healthBy(spec, flags);
    this.excluded = excludedBy(spec, flags);
    this.localityKey = localityKey(spec.locality);
    this.load = load;
    if (this.health === "healthy") load.healthySince ??= around.now();
  }

  get healthySince(): number | undefined {
    return this.load.healthySince;
  }

  get canary(): boolean {
    return isCanary(this.spec.metadata);
  }

  get zone(): string {
    return this.spec.locality?.zone ?? "";
  }

  /** Created on first use, as most hosts of a large config have no requests on most workers. */
  get cells(): HostCells {
    this.#cells ??= this.#around.cellsOf(this.#first);
    return this.#cells;
  }

  /** The pool for requests of a downstream protocol. */
  poolFor(downstream: string | undefined, priority: Priority = "default"): Pool {
    return ofProtocol(priority === "default" ? this.#default() : this.#high(), downstream);
  }

  /** The pool for requests with the given peer names; undefined if there are too many such pools. */
  namedPoolFor(
    downstream: string | undefined,
    priority: Priority,
    peer: PeerNames,
  ): Pool | undefined {
    this.#named ??= new NamedPools((pool) => {
      this.pools.splice(this.pools.indexOf(pool), 1);
      this.#around.pools.drop(pool);
    });
    const make = () => {
      const made = this.#around.pools.make(this, priority, peer);
      this.pools.push(...made);
      return made;
    };
    const pools = this.#named.get(`${priority} ${peer.key}`, make, peer.most);
    return pools && ofProtocol(pools, downstream);
  }

  #default(): readonly Pool[] {
    if (this.#defaultPools === undefined) {
      this.#defaultPools = this.#around.pools.make(this, "default");
      this.pools.push(...this.#defaultPools);
    }
    return this.#defaultPools;
  }

  /** Created on first use, as few routes have high priority. */
  #high(): readonly Pool[] {
    if (this.#highPools === undefined) {
      this.#highPools = this.#around.pools.make(this, "high");
      this.pools.push(...this.#highPools);
    }
    return this.#highPools;
  }

  /** Applies an update; returns false if nothing that balancers use has changed. */
  update(spec: HostSpec): boolean {
    const old = this.spec;
    if (spec === old) return false;
    this.spec = spec;
    this.localityKey = localityKey(spec.locality);
    if (spec.id !== undefined) {
      // The host's address may have changed: open connections stay, new ones use the new address.
      this.address = addressOf(spec);
      this.key = formatAddress(this.address);
    }
    const changed =
      old.weight !== spec.weight ||
      old.priority !== spec.priority ||
      old.localityWeight !== spec.localityWeight ||
      localityKey(old.locality) !== this.localityKey ||
      !sameMetadata(old, spec);
    return this.#judge() || changed;
  }

  /** True if all of these bits of FLAG are set. */
  has(flags: number): boolean {
    return (this.#flags & flags) === flags;
  }

  /** Sets flags before the list of the control thread has them; returns false if nothing that balancers use has changed. */
  addFlags(flags: number): boolean {
    return this.setFlags(this.#flags | flags);
  }

  /** Sets the flags of active checks and outlier detection; returns false if nothing that balancers use has changed. */
  setFlags(flags: number): boolean {
    if (flags === this.#flags) return false;
    if ((this.#flags & ~flags & FLAG.FAILED_ACTIVE_HC) !== 0)
      this.load.healthySince = this.#around.now();
    this.#flags = flags;
    return this.#judge();
  }

  /**
   * Determines health anew from spec and flags; returns true if it has changed. As in Envoy, a host begins slowly when it is
   * healthy for the first time or active checks succeed again, not when outlier detection lets it back.
   */
  #judge(): boolean {
    const health = healthBy(this.spec, this.#flags);
    const excluded = excludedBy(this.spec, this.#flags);
    const changed = health !== this.health || excluded !== this.excluded;
    if (health === "healthy") this.load.healthySince ??= this.#around.now();
    this.health = health;
    this.excluded = excluded;
    return changed;
  }

  /** The health status for `override_host_status`: that of checks takes precedence over that of discovery. */
  get status(): string {
    const { healthStatus } = this.spec;
    if (this.health === "healthy") return healthStatus;
    const said = healthBy(this.spec, 0);
    return said === this.health ? healthStatus : this.health.toUpperCase();
  }
  get hostname(): string {
    return this.spec.hostname;
  }
  get locality(): HostSpec["locality"] {
    return this.spec.locality;
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
  /** `begun`: the response had begun, so the timeout is no error of the host. */
  onTimeout(begun = false, told = false): void {
    this.cells.rqTimeout.inc();
    if (begun) return;
    this.cells.rqError.inc();
    if (!told) this.outlier?.onLocalFailure(504);
  }
  onSlow(): void {
    this.outlier?.onLocalFailure(504);
  }
  onReset(): void {
    this.cells.rqError.inc();
    this.outlier?.onLocalFailure(503);
  }
}

const ofProtocol = (pools: readonly Pool[], downstream: string | undefined): Pool =>
  pools[downstream === "HTTP/2" ? pools.length - 1 : 0]!;

/** Id of a host within its cluster: given by discovery, else the address. */
export function idOf(spec: HostSpec): string {
  return spec.id ?? formatAddress(addressOf(spec));
}

export function sameMetadata(a: HostSpec, b: HostSpec): boolean {
  return a.metadata === b.metadata || JSON.stringify(a.metadata) === JSON.stringify(b.metadata);
}

export function addressOf(spec: HostSpec): Address {
  return spec.path === undefined
    ? { ip: spec.ip, port: spec.port }
    : { ip: "", port: 0, path: spec.path };
}

/** True for `metadata: { filter_metadata: { envoy.lb: { canary: true } } }`. */
export function isCanary(metadata: unknown): boolean {
  const filters = (
    metadata as { filter_metadata?: Record<string, { canary?: unknown }> } | undefined
  )?.filter_metadata;
  return filters?.["envoy.lb"]?.canary === true;
}
