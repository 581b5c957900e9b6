import type { HealthChecker, HostSpec, SetupContext, Slot } from "@tsproxy/sdk";
import type { ClusterConfig } from "./config.ts";
import { FLAG } from "./health-flags.ts";
import { ClusterChecks, HostCheck } from "./host-check.ts";
import { OutlierDetector, OutlierRecord, type SuccessRates } from "./outlier-detector.ts";
import { type OutlierTable, outlierTable, type Row } from "./outlier-monitor.ts";
import type { UpstreamCluster } from "./upstream-cluster.ts";

/** Health of a cluster's hosts, published by the control thread to the workers. */
export interface HealthList {
  /** Fingerprint of the cluster's config; receivers with another config ignore the list. */
  readonly config: string;
  /** Every host with active checks has been checked at least once. */
  readonly warm: boolean;
  /** Bits of FLAG by host id; hosts without a flag are left out. */
  readonly flags: Readonly<Record<string, number>>;
  /** Slots of the outlier table in which workers count, by host id. */
  readonly slots: Readonly<Record<string, number>>;
}

/** Health state of one host, handed over to the next generation. */
export interface HostRecord {
  readonly flags: number;
  readonly slot: number | undefined;
  readonly checked: boolean;
  readonly outlier: OutlierRecord;
}

/** Slots of the outlier table for a discovered cluster; a static one has a slot for each host. */
const DISCOVERED_SLOTS = 512;

/** Number of slots in a cluster's outlier table. */
function outlierSlots(config: ClusterConfig): number {
  if (config.type !== "STATIC") return DISCOVERED_SLOTS;
  const localities = config.load_assignment?.endpoints ?? [];
  return Math.max(
    1,
    localities.reduce((n, locality) => n + (locality.lb_endpoints?.length ?? 0), 0),
  );
}

/** Opens the shared memory for outlier counts. Its name contains the number of slots, as the size depends on that. */
export function openOutlierTable(cx: SetupContext, config: ClusterConfig): OutlierTable {
  const slots = outlierSlots(config);
  return cx.cell(`outlier ${config.name} ${slots}`, outlierTable(slots));
}

/** Health state of one host on the control thread. */
class Member {
  spec: HostSpec;
  flags: number;
  slot: number | undefined;
  check: HostCheck | undefined = undefined;
  checked = false;
  readonly outlier: OutlierRecord;

  constructor(spec: HostSpec, flags: number, outlier = new OutlierRecord()) {
    this.spec = spec;
    this.flags = flags;
    this.outlier = outlier;
  }
}

/** Active checks and outlier detection of one cluster; runs once per process, on the control thread. */
export class ClusterHealth {
  readonly #config: ClusterConfig;
  readonly #checks: ClusterChecks | undefined;
  readonly #detector: OutlierDetector | undefined;
  readonly #table: OutlierTable | undefined;
  readonly #onChanged: () => void;
  readonly #onRemoved: () => void;
  readonly #members = new Map<string, Member>();
  readonly #freeSlots: number[] = [];
  #nextSlot = 0;
  /** Checks and detection have begun, and not ended. */
  started = false;

  constructor(parts: {
    readonly cx: SetupContext;
    readonly config: ClusterConfig;
    readonly cluster: UpstreamCluster;
    readonly checker: Slot<HealthChecker> | undefined;
    readonly hadTraffic: () => boolean;
    /** Called when flags of hosts have changed. */
    readonly onChanged: () => void;
    /** Called when a host that was kept only because it was healthy has failed. */
    readonly onRemoved: () => void;
  }) {
    const { cx, config, cluster, checker } = parts;
    this.#config = config;
    this.#onChanged = parts.onChanged;
    this.#onRemoved = parts.onRemoved;
    const check = config.health_checks?.[0];
    if (check !== undefined && checker !== undefined) {
      const { stats } = cluster;
      const { hadTraffic } = parts;
      const clusterName = config.name;
      this.#checks = new ClusterChecks({
        cx,
        config: check,
        clusterName,
        checker,
        connectOptionsFor: (spec, address) =>
          cluster.connector.optionsForCheck(spec, address, check),
        stats,
        hadTraffic,
      });
    }
    if (config.outlier_detection !== undefined) {
      this.#table = openOutlierTable(cx, config);
      this.#detector = new OutlierDetector({
        cx,
        config: config.outlier_detection,
        clusterName: config.name,
        stats: cluster.stats,
        table: this.#table,
        hosts: () => this.#members.values(),
        onChanged: parts.onChanged,
      });
    }
  }

  /** Starts checks and detection. `before`: state of the previous generation, if it had the same cluster. */
  start(before: ReadonlyMap<string, HostRecord> | undefined): void {
    this.started = true;
    for (const [id, record] of before ?? []) {
      const member = this.#members.get(id);
      if (member === undefined) continue;
      this.#leaveSlot(member);
      // The record may be from another version of this package, so only its fields are copied.
      const outlier = Object.assign(new OutlierRecord(), record.outlier, { counted: [0, 0, 0, 0] });
      const taken = new Member(member.spec, record.flags, outlier);
      taken.checked = record.checked;
      this.#members.set(id, taken);
    }
    for (const member of this.#members.values()) this.#begin(member);
    this.#detector?.start();
    this.#onChanged();
  }

  stop(): void {
    if (!this.started) return;
    this.started = false;
    this.#detector?.stop();
    for (const member of this.#members.values()) {
      member.check?.close();
      member.check = undefined;
    }
  }

  records(): ReadonlyMap<string, HostRecord> {
    return this.#members;
  }

  /** Adds hosts to the list that discovery no longer names but that are still healthy by active checks. */
  retain(hosts: readonly HostSpec[], idOf: (spec: HostSpec) => string): readonly HostSpec[] {
    const ignores = this.#config.ignore_health_on_host_removal === true;
    if (this.#checks === undefined || ignores || !this.started) return hosts;
    const named = new Set(hosts.map(idOf));
    const kept: HostSpec[] = [];
    for (const [id, member] of this.#members) {
      if (named.has(id)) member.flags &= ~FLAG.PENDING_DYNAMIC_REMOVAL;
      else if ((member.flags & FLAG.FAILED_ACTIVE_HC) === 0) {
        member.flags |= FLAG.PENDING_DYNAMIC_REMOVAL;
        kept.push(member.spec);
      }
    }
    return kept.length === 0 ? hosts : [...hosts, ...kept];
  }

  update(hosts: ReadonlyMap<string, HostSpec>): void {
    for (const [id, member] of this.#members) {
      if (hosts.has(id)) continue;
      member.check?.close();
      this.#leaveSlot(member);
      this.#members.delete(id);
    }
    for (const [id, spec] of hosts) {
      const known = this.#members.get(id);
      if (known !== undefined) {
        known.spec = spec;
        continue;
      }
      const member = new Member(spec, this.#firstFlags(spec));
      this.#members.set(id, member);
      if (this.started) this.#begin(member);
    }
    this.#detector?.onHosts();
  }

  /** Initial flags of a host, see `firstFlags`; 0 if this cluster has no active checks. */
  #firstFlags(spec: HostSpec): number {
    return this.#checks === undefined ? 0 : firstFlags(this.#config, spec);
  }

  #begin(member: Member): void {
    if (this.#table !== undefined && member.slot === undefined) {
      member.slot = this.#freeSlots.pop();
      if (member.slot === undefined && this.#nextSlot < this.#table.slots)
        member.slot = this.#nextSlot++;
      if (member.slot !== undefined) this.#table.reset(member.slot);
      member.outlier.counted.fill(0);
    }
    if (this.#checks === undefined || member.spec.healthCheck?.disabled === true) return;
    member.check = new HostCheck(this.#checks, member, member.checked, (changed, ok) =>
      this.#onChecked(member, changed, ok),
    );
    member.check.start();
  }

  #leaveSlot(member: Member): void {
    if (member.slot !== undefined) this.#freeSlots.push(member.slot);
    member.slot = undefined;
  }

  #onChecked(member: Member, changed: boolean, ok: boolean): void {
    const first = !member.checked;
    member.checked = true;
    if (ok) this.#detector?.onHealthy(member);
    const leaving = FLAG.PENDING_DYNAMIC_REMOVAL | FLAG.FAILED_ACTIVE_HC;
    if ((member.flags & leaving) === leaving) this.#onRemoved();
    if (changed || first) this.#onChanged();
  }

  // ---- reports from workers

  onRow(id: string, row: Row, enforced: boolean): void {
    const member = this.#members.get(id);
    if (member !== undefined && this.started) this.#detector?.onRow(member, row, enforced);
  }

  onDegraded(id: string): void {
    const member = this.#members.get(id);
    if (member !== undefined && this.started) this.#detector?.onDegraded(member);
  }

  onImmediateFail(id: string): void {
    this.#members.get(id)?.check?.onPassiveFailure();
  }

  // ---- state for workers and admin

  get warm(): boolean {
    if (!this.started) return false;
    for (const member of this.#members.values())
      if (member.check !== undefined && !member.checked) return false;
    return true;
  }

  has(id: string, flag: number): boolean {
    return ((this.#members.get(id)?.flags ?? 0) & flag) === flag;
  }

  flags(): Map<string, number> {
    const flags = new Map<string, number>();
    for (const [id, member] of this.#members) if (member.flags !== 0) flags.set(id, member.flags);
    return flags;
  }

  list(config: string): HealthList {
    const slots: Record<string, number> = {};
    for (const [id, { slot }] of this.#members) if (slot !== undefined) slots[id] = slot;
    return { config, warm: this.warm, flags: Object.fromEntries(this.flags()), slots };
  }

  successRates(id: string): { readonly external: number; readonly local: number } {
    const outlier = this.#members.get(id)?.outlier;
    return { external: outlier?.successRate ?? -1, local: outlier?.localSuccessRate ?? -1 };
  }

  /** Success rates of the cluster; undefined without outlier detection. */
  rates(): { readonly external: SuccessRates; readonly local: SuccessRates } | undefined {
    return this.#detector;
  }
}

/** Initial flags of a host: with active checks it counts as failed until its first check succeeds. */
export function firstFlags(config: ClusterConfig, spec: HostSpec): number {
  if ((config.health_checks ?? []).length === 0 || spec.healthCheck?.disabled === true) return 0;
  const pending = config.common_lb_config?.ignore_new_hosts_until_first_hc === true;
  return FLAG.FAILED_ACTIVE_HC | (pending ? FLAG.PENDING_ACTIVE_HC : 0);
}
