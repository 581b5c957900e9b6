import { type Address, formatAddress, type Host, type HostSpec } from "@tsproxy/sdk";
import type { Pool } from "./pool.ts";
import type { HostCells } from "./stats.ts";

export type Health = "healthy" | "degraded" | "unhealthy";

/** Requests in progress, apart from its host: it outlives code, for old streams go on counting in it. */
export interface Load {
  active: number;
}

/** An endpoint that is alive. It stays the same object through all updates that still name its address. */
export class UpstreamHost implements Host {
  readonly address: Address;
  readonly key: string;
  readonly load: Load;
  readonly cells: HostCells;
  /** One, or with `use_downstream_protocol_config` one for HTTP/1.1 and then one for HTTP/2. */
  readonly pools: readonly Pool[];
  spec: HostSpec;
  health: Health;

  constructor(
    spec: HostSpec,
    cells: HostCells,
    load: Load,
    makePools: (host: UpstreamHost) => readonly Pool[],
  ) {
    this.address = addressOf(spec);
    this.key = formatAddress(this.address);
    this.spec = spec;
    this.health = healthOf(spec);
    this.cells = cells;
    this.load = load;
    this.pools = makePools(this);
  }

  /** The pool of exchanges that come in that protocol. */
  poolFor(downstream: string | undefined): Pool {
    return this.pools[downstream === "HTTP/2" ? this.pools.length - 1 : 0]!;
  }

  /** Takes over what an update says of it. False: nothing that a balancer looks at has changed. */
  update(spec: HostSpec): boolean {
    const old = this.spec;
    const health = healthOf(spec);
    const changed =
      old.weight !== spec.weight || old.priority !== spec.priority || this.health !== health;
    this.spec = spec;
    this.health = health;
    return changed;
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

  onResponse(status: number): void {
    if (status >= 500) this.cells.rqError.inc();
    else this.cells.rqSuccess.inc();
  }
  onTimeout(): void {
    this.cells.rqTimeout.inc();
    this.cells.rqError.inc();
  }
  onReset(): void {
    this.cells.rqError.inc();
  }
}

export function addressOf(spec: HostSpec): Address {
  return spec.path === undefined
    ? { ip: spec.ip, port: spec.port }
    : { ip: "", port: 0, path: spec.path };
}

export function healthOf(spec: HostSpec): Health {
  switch (spec.healthStatus) {
    case "UNHEALTHY":
    case "DRAINING":
    case "TIMEOUT":
      return "unhealthy";
    case "DEGRADED":
      return "degraded";
    default:
      return "healthy";
  }
}
