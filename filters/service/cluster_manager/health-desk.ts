import type { Counter, HealthChecker, HostSpec, SetupContext, Slot, Timer } from "@tsproxy/sdk";
import { ClusterHealth, type HealthList, type HostRecord } from "./cluster-health.ts";
import type { ClusterConfig } from "./config.ts";
import type { Row } from "./outlier-monitor.ts";
import type { UpstreamCluster } from "./upstream-cluster.ts";

/** A worker's report about a host. */
export interface HealthReport {
  readonly cluster: string;
  readonly config: string;
  readonly host: string;
  readonly what: Row | "DEGRADED" | "IMMEDIATE_HEALTH_CHECK_FAIL";
  /** Of a row: the ejection is to be carried out. */
  readonly enforced: boolean;
  /** The flags that the worker has set ahead of the list; 0: none. */
  readonly ahead: number;
}
const REPORTS = "cluster_manager/report";
/** Topic on which the control thread publishes a cluster's HealthList. */
export const healthTopic = (cluster: string): string => `cluster/${cluster}/health`;

/** True if the cluster has active checks or outlier detection. */
export function needsHealth(config: ClusterConfig): boolean {
  return (config.health_checks ?? []).length > 0 || config.outlier_detection !== undefined;
}

/** Sends a worker's report to the control thread. */
export function report(cx: SetupContext, said: HealthReport): void {
  cx.publish(REPORTS, said);
}

/** One cluster's health, and the timer that merges its changes. */
interface Desk {
  readonly health: ClusterHealth;
  readonly cluster: UpstreamCluster;
  readonly timer: Timer;
  lastToldMs: number;
}

/** On the control thread: holds the health of clusters with checks or outlier detection, and publishes it to workers. */
export class HealthDesk {
  readonly #cx: SetupContext;
  readonly #onChanged: (cluster: string) => void;
  readonly #onRemoved: (cluster: string) => void;
  readonly #desks = new Map<string, Desk>();
  readonly #updated: Counter;
  readonly #updatedViaMerge: Counter;
  readonly #mergeCancelled: Counter;
  readonly #outOfWindow: Counter;

  constructor(
    cx: SetupContext,
    onChanged: (cluster: string) => void,
    onRemoved: (cluster: string) => void,
  ) {
    this.#cx = cx;
    this.#onChanged = onChanged;
    this.#onRemoved = onRemoved;
    const stats = cx.stats.scope("cluster_manager.");
    this.#updated = stats.counter("cluster_updated");
    this.#updatedViaMerge = stats.counter("cluster_updated_via_merge");
    this.#mergeCancelled = stats.counter("update_merge_cancelled");
    this.#outOfWindow = stats.counter("update_out_of_merge_window");
    // Ignores the topic's last value, which was published before this generation.
    let live = false;
    cx.subscribe(REPORTS, (value) => {
      if (live) this.#onReport(value as HealthReport);
    });
    live = true;
  }

  add(
    config: ClusterConfig,
    cluster: UpstreamCluster,
    checker: Slot<HealthChecker> | undefined,
    hadTraffic: () => boolean,
  ): void {
    const { name } = config;
    const health = new ClusterHealth({
      cx: cluster.cx,
      config,
      cluster,
      checker,
      hadTraffic,
      onChanged: () => this.#changed(name),
      onRemoved: () => this.#onRemoved(name),
    });
    const timer = this.#cx.timer(() => this.#onMerged(name));
    this.#desks.set(name, { health, cluster, timer, lastToldMs: -1_000_000 });
  }

  get(cluster: string): ClusterHealth | undefined {
    return this.#desks.get(cluster)?.health;
  }

  /** Starts checks and outlier detection. `before`: state of the same cluster in the previous generation. */
  start(cluster: string, before: ReadonlyMap<string, HostRecord> | undefined): void {
    this.#desks.get(cluster)?.health.start(before);
  }

  stop(): void {
    for (const name of [...this.#desks.keys()]) this.remove(name);
  }

  remove(cluster: string): void {
    const desk = this.#desks.get(cluster);
    desk?.health.stop();
    desk?.timer.cancel();
    this.#desks.delete(cluster);
  }

  /** Called when hosts are added or removed; publishes their health before the hosts themselves are published. */
  onHosts(cluster: string, hosts: ReadonlyMap<string, HostSpec>): void {
    const desk = this.#desks.get(cluster);
    if (desk === undefined) return;
    desk.health.update(hosts);
    // Until this generation starts, what the previous one has told of the same hosts holds.
    if (!desk.health.started) return;
    if (desk.timer.armed) this.#mergeCancelled.inc();
    this.tell(cluster);
  }

  /** Publishes the cluster's health to the workers now. */
  tell(cluster: string): void {
    const desk = this.#desks.get(cluster);
    if (desk === undefined) return;
    desk.timer.cancel();
    // As in Envoy, the first hosts of a cluster are no update: the first change of their health waits for nothing.
    if (desk.cluster.served) {
      desk.lastToldMs = this.#cx.now();
      this.#updated.inc();
    }
    this.#publish(desk);
  }

  #publish({ cluster, health }: Desk): void {
    const list: HealthList = health.list(cluster.fingerprint);
    this.#cx.publish(healthTopic(cluster.name), list);
  }

  /** Publishes changes of health; those within `update_merge_window` together, as each makes workers rebuild balancers. */
  #changed(name: string): void {
    const desk = this.#desks.get(name);
    if (desk === undefined) return;
    desk.cluster.setHealth(desk.health.list(desk.cluster.fingerprint));
    this.#onChanged(name);
    // No delay until the cluster is served: a new config waits for the first health of its hosts.
    const { mergeMs, served } = desk.cluster;
    if (mergeMs > 0 && served) {
      if (this.#cx.now() - desk.lastToldMs <= mergeMs) {
        if (!desk.timer.armed) desk.timer.arm(mergeMs);
        return;
      }
      this.#outOfWindow.inc();
    }
    this.tell(name);
    if (desk.health.warm) desk.cluster.served = true;
  }

  #onMerged(name: string): void {
    const desk = this.#desks.get(name);
    if (desk === undefined) return;
    desk.lastToldMs = this.#cx.now();
    this.#updatedViaMerge.inc();
    this.#publish(desk);
  }

  #onReport({ cluster, config, host, what, enforced, ahead }: HealthReport): void {
    const desk = this.#desks.get(cluster);
    if (desk === undefined || desk.cluster.fingerprint !== config) return;
    if (what === "IMMEDIATE_HEALTH_CHECK_FAIL") desk.health.onImmediateFail(host);
    else if (what === "DEGRADED") desk.health.onDegraded(host);
    else desk.health.onRow(host, what, enforced);
    // Two workers may have ejected a host each where only one may be: who has done too much is told.
    if (desk.health.started && !desk.health.has(host, ahead)) this.#publish(desk);
  }
}
