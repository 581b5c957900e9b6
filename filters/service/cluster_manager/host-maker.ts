import type { HostSpec, SetupContext } from "@tsproxy/sdk";
import { firstFlags, type HealthList, openOutlierTable } from "./cluster-health.ts";
import type { ClusterConfig } from "./config.ts";
import { fingerprintOf } from "./handover.ts";
import { type HealthReport, report } from "./health-desk.ts";
import {
  type HostSurroundings,
  idOf,
  type Load,
  type PoolMaker,
  sameMetadata,
  UpstreamHost,
} from "./host.ts";
import { OutlierMonitor, type OutlierTable } from "./outlier-monitor.ts";
import { HostCells } from "./stats.ts";
import type { Transports } from "./transports.ts";

/** Limit for hosts with own stats, as DNS may bring ever new addresses and stats stay as long as the cluster; further hosts share stats. */
export const MAX_HOST_NAMES = 16_384;

/** Parameters of HostMaker. */
export interface HostMakerParts {
  readonly cx: SetupContext;
  readonly config: ClusterConfig;
  readonly transports: Transports;
  readonly pools: PoolMaker;
  /** What earlier generations know of a host, and count in; undefined if they lack the host. */
  readonly loadOf: (cluster: string, hostId: string) => Load | undefined;
  /** Names of hosts that have own stats on this worker. */
  readonly hostNames: Set<string>;
}

/** Makes the hosts of one cluster, and gives them the health that the control thread publishes. */
export class HostMaker {
  readonly #parts: HostMakerParts;
  readonly #around: HostSurroundings;
  readonly #outliers: OutlierTable | undefined;
  /** Those of `hostNames` that it has added. */
  readonly #named = new Set<string>();
  /** Health published by the control thread; undefined before the first. */
  health: HealthList | undefined = undefined;

  constructor(parts: HostMakerParts) {
    const { cx, config, pools } = parts;
    this.#parts = parts;
    this.#around = { pools, now: () => cx.now(), cellsOf: (spec) => this.#cellsOf(spec) };
    // Only workers have attempts to count.
    this.#outliers =
      config.outlier_detection === undefined || cx.role !== "worker"
        ? undefined
        : openOutlierTable(cx, config);
  }

  /** The cluster was removed, and its stats with it. */
  dispose(): void {
    for (const name of this.#named) this.#parts.hostNames.delete(name);
  }

  make(spec: HostSpec, id: string): UpstreamHost {
    const { config, loadOf, transports } = this.#parts;
    const load = loadOf(config.name, id) ?? { active: 0, healthySince: undefined };
    const host = new UpstreamHost(spec, load, this.#around, this.flagsOf(id, spec));
    host.transport = transports.choose(spec);
    return host;
  }

  /** Applies an update to a host; returns false if nothing that balancers use has changed. */
  update(host: UpstreamHost, spec: HostSpec): boolean {
    // Open connections keep their transport; new ones use the one that the new metadata selects.
    if (!sameMetadata(host.spec, spec)) host.transport = this.#parts.transports.choose(spec);
    return host.update(spec);
  }

  /** Health flags of a host: the published ones, or before the first publication its initial flags. */
  flagsOf(id: string, spec: HostSpec): number {
    return this.health === undefined
      ? firstFlags(this.#parts.config, spec)
      : (this.health.flags[id] ?? 0);
  }

  /** Sets the host's outlier monitor, which counts in the slot that the control thread assigned, and its health callback. */
  watch(id: string, host: UpstreamHost): void {
    const { cx, config } = this.#parts;
    const slot = this.health?.slots[id];
    const table = this.#outliers;
    const detection = config.outlier_detection;
    if (slot === undefined || table === undefined || detection === undefined) {
      host.outlier = undefined;
    } else if (host.outlier?.slot !== slot) {
      host.outlier = new OutlierMonitor(table, slot, detection, cx.runtime, (row) =>
        this.#report(id, row),
      );
    }
    if (detection?.detect_degraded_hosts === true)
      host.onDegraded = () => {
        if (!host.isDegraded) this.#report(id, "DEGRADED");
      };
    if ((config.health_checks ?? []).length > 0)
      host.onImmediateHealthCheckFail = () => this.#report(id, "IMMEDIATE_HEALTH_CHECK_FAIL");
  }

  #report(host: string, what: HealthReport["what"]): void {
    const { cx, config } = this.#parts;
    report(cx, { cluster: config.name, config: fingerprintOf(config), host, what });
  }

  #cellsOf(spec: HostSpec): HostCells {
    const { cx, config, hostNames } = this.#parts;
    const key = idOf(spec);
    const name = `${config.name}|${key}`;
    if (hostNames.size >= MAX_HOST_NAMES && !hostNames.has(name)) {
      return new HostCells(cx.stats, config.name, "others");
    }
    hostNames.add(name);
    this.#named.add(name);
    return new HostCells(cx.stats, config.name, key);
  }
}
