import type { HostSpec, SetupContext } from "@tsproxy/sdk";
import { firstFlags, type HealthList, openOutlierTable } from "./cluster-health.ts";
import type { ClusterConfig } from "./config.ts";
import { isEnforced, mayEject } from "./ejection.ts";
import { fingerprintOf } from "./handover.ts";
import type { OutlierDetection } from "./health-config.ts";
import { type HealthReport, report } from "./health-desk.ts";
import { FLAG } from "./health-flags.ts";
import {
  type HostSurroundings,
  idOf,
  type Load,
  type PoolMaker,
  sameMetadata,
  UpstreamHost,
} from "./host.ts";
import { OutlierMonitor, type OutlierTable, type Row } from "./outlier-monitor.ts";
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
  readonly hosts: () => readonly UpstreamHost[];
  /** Sets flags of a host ahead of the control thread's list; false: as other changes they wait to be told together. */
  readonly flagAhead: (host: UpstreamHost, flags: number) => boolean;
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
        this.#onRow(id, host, row, detection),
      );
    }
    if (detection?.detect_degraded_hosts === true)
      host.onDegraded = () => {
        const flag = FLAG.DEGRADED_OUTLIER_DETECTION;
        if (!host.has(flag)) this.#report(id, "DEGRADED", true, this.#flagAhead(host, flag));
      };
    if ((config.health_checks ?? []).length > 0)
      host.onImmediateHealthCheckFail = () => {
        const flags = FLAG.FAILED_ACTIVE_HC | FLAG.EXCLUDED_VIA_IMMEDIATE_HC_FAIL;
        const ahead = this.#flagAhead(host, flags);
        this.#report(id, "IMMEDIATE_HEALTH_CHECK_FAIL", true, ahead);
      };
  }

  /** A row that ejects the host takes it out on this worker now: the control thread and its list may be slow. */
  #onRow(id: string, host: UpstreamHost, row: Row, detection: OutlierDetection): void {
    const { runtime } = this.#parts.cx;
    const flag = FLAG.FAILED_OUTLIER_CHECK;
    const enforced = isEnforced(detection, runtime, row);
    const hosts = this.#parts.hosts();
    let ejected = 0;
    for (const other of hosts) if (other.has(flag)) ejected++;
    const ejects =
      enforced && !host.has(flag) && mayEject(detection, runtime, { ejected, all: hosts.length });
    this.#report(id, row, enforced, ejects ? this.#flagAhead(host, flag) : 0);
  }

  /** Returns the flags that were set. */
  #flagAhead(host: UpstreamHost, flags: number): number {
    return this.#parts.flagAhead(host, flags) ? flags : 0;
  }

  #report(host: string, what: HealthReport["what"], enforced: boolean, ahead: number): void {
    const { cx, config } = this.#parts;
    const { name } = config;
    report(cx, { cluster: name, config: fingerprintOf(config), host, what, enforced, ahead });
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
