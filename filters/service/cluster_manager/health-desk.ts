import type { Counter, HealthChecker, HostSpec, SetupContext, Slot, Timer } from "@tsproxy/sdk";
import { ClusterHealth, type HealthList, type HostRecord } from "./cluster-health.ts";
import type { ClusterConfig } from "./config.ts";
import type { Row } from "./outlier-monitor.ts";
import type { UpstreamCluster } from "./upstream-cluster.ts";

/** What a worker has seen of a host. */
export interface HealthReport {
  readonly cluster: string;
  readonly config: string;
  readonly host: string;
  readonly what: Row | "IMMEDIATE_HEALTH_CHECK_FAIL";
}
const REPORTS = "cluster_manager/report";
export const healthTopic = (cluster: string): string => `cluster/${cluster}/health`;

export function needsHealth(config: ClusterConfig): boolean {
  return (config.health_checks ?? []).length > 0 || config.outlier_detection !== undefined;
}

export function report(cx: SetupContext, said: HealthReport): void {
  cx.publish(REPORTS, said);
}

interface Desk {
  readonly health: ClusterHealth;
  readonly cluster: UpstreamCluster;
  readonly mergeMs: number;
  readonly timer: Timer;
  lastToldMs: number;
}

/** On the control thread: the health of all clusters that have any, and what workers are told of it. */
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
    // What was said before we began is not for us: the topic keeps its last value.
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
      cx: this.#cx,
      config,
      cluster,
      checker,
      hadTraffic,
      onChanged: () => this.#changed(name),
      onRemoved: () => this.#onRemoved(name),
    });
    const mergeMs = config.common_lb_config?.update_merge_window ?? 1_000;
    const timer = this.#cx.timer(() => this.#onMerged(name));
    this.#desks.set(name, { health, cluster, mergeMs, timer, lastToldMs: -1_000_000 });
  }

  get(cluster: string): ClusterHealth | undefined {
    return this.#desks.get(cluster)?.health;
  }

  /** Begins to check and to judge. `before`: what the generation before knew of the same cluster. */
  start(cluster: string, before: ReadonlyMap<string, HostRecord> | undefined): void {
    this.#desks.get(cluster)?.health.start(before);
  }

  stop(): void {
    for (const { health, timer } of this.#desks.values()) {
      health.stop();
      timer.cancel();
    }
  }

  /** Hosts have come or gone: what is known of them is told before they are. */
  onHosts(cluster: string, hosts: ReadonlyMap<string, HostSpec>): void {
    const desk = this.#desks.get(cluster);
    if (desk === undefined) return;
    desk.health.update(hosts);
    if (desk.timer.armed) this.#mergeCancelled.inc();
    this.tell(cluster);
  }

  /** Workers hear of it now. */
  tell(cluster: string): void {
    const desk = this.#desks.get(cluster);
    if (desk === undefined) return;
    desk.timer.cancel();
    desk.lastToldMs = this.#cx.now();
    this.#updated.inc();
    this.#publish(desk);
  }

  #publish({ cluster, health }: Desk): void {
    const list: HealthList = health.list(cluster.fingerprint);
    this.#cx.publish(healthTopic(cluster.name), list);
  }

  /** Changes of health that follow each other closely are told together (`update_merge_window`), as balancers are built anew. */
  #changed(name: string): void {
    const desk = this.#desks.get(name);
    if (desk === undefined) return;
    desk.cluster.setHealth(desk.health.list(desk.cluster.fingerprint));
    this.#onChanged(name);
    // Nobody has been told of these hosts yet: the configuration waits for it.
    const outside = this.#cx.now() - desk.lastToldMs > desk.mergeMs;
    if (desk.mergeMs > 0 && !outside && desk.cluster.served) {
      if (!desk.timer.armed) desk.timer.arm(desk.mergeMs);
      return;
    }
    if (desk.mergeMs > 0 && outside) this.#outOfWindow.inc();
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

  #onReport({ cluster, config, host, what }: HealthReport): void {
    const desk = this.#desks.get(cluster);
    if (desk === undefined || desk.cluster.fingerprint !== config) return;
    if (what === "IMMEDIATE_HEALTH_CHECK_FAIL") desk.health.onImmediateFail(host);
    else desk.health.onRow(host, what);
  }
}
