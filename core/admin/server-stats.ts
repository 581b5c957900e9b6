import type { Histogram } from "@tsproxy/sdk";
import { ScopedStats, StatsTable } from "../inside/stats.ts";
import type { WriterStats } from "../logs/file-writer.ts";
import type { ListenerConfig } from "../protocol.ts";
import { VERSION } from "../version.ts";
import type { RuntimeLayers } from "./runtime.ts";
import type { StatsReader } from "./stats.ts";

const CELLS = 4096;

/** Envoy's names; each shows as 0 until something counts it. */
const COUNTERS = [
  ...["listener_added", "listener_create_failure", "listener_create_success"],
  ...["listener_in_place_updated", "listener_modified", "listener_removed", "listener_stopped"],
].map((name) => `listener_manager.${name}`);
COUNTERS.push(
  ...["debug_assertion_failures", "dropped_stat_flushes", "dynamic_unknown_fields"].map(server),
  ...["envoy_bug_failures", "envoy_notifications", "static_unknown_fields", "wip_protos"].map(
    server,
  ),
  ...["main_thread.watchdog_miss", "main_thread.watchdog_mega_miss"].flatMap((n) => [n, server(n)]),
  ...["workers.watchdog_miss", "workers.watchdog_mega_miss"],
  ...["load_success", "load_error", "override_dir_exists", "override_dir_not_exists"].map(runtime),
  runtime("deprecated_feature_use"),
  ...["flushed_by_timer", "reopen_failed", "write_buffered", "write_completed", "write_failed"].map(
    (name) => `filesystem.${name}`,
  ),
  "envoy.overload_actions.reset_high_memory_stream.count",
);
const GAUGES = [
  ...["total_filter_chains_draining", "total_listeners_active", "total_listeners_draining"],
  ...["total_listeners_warming", "workers_pinned", "workers_started"],
].map((name) => `listener_manager.${name}`);
GAUGES.push(
  ...["live", "state", "uptime", "version", "parent_connections", "total_connections"].map(server),
  ...["memory_heap_size", "memory_allocated", "memory_physical_size"].map(server),
  ...["stats_recent_lookups", "seconds_until_first_ocsp_response_expiring"].map(server),
  server("compilation_settings.fips_mode"),
  ...["num_keys", "num_layers", "admin_overrides_active"].map(runtime),
  runtime("deprecated_feature_seen_since_process_start"),
  "filesystem.write_total_buffered",
);

/** `server.version`: 10203 for 1.2.3. Envoy shows digits of its commit. */
const OWN_VERSION = VERSION.split(".").reduce((sum, part) => sum * 100 + Number(part), 0);

function server(name: string): string {
  return `server.${name}`;
}
function runtime(name: string): string {
  return `runtime.${name}`;
}

/** The stat that counts how often isolates of a package were stopped, or its hooks threw. */
export const faultStat = (packageName: string): string =>
  `filters.${packageName.replaceAll("/", ".")}.fault`;

/** A stat of what a sandboxed package costs: `entries`, `records`, `bytes_in`, `bytes_out`, or `cpu_us` inside its isolates. */
export const sandboxStat = (packageName: string, what: string): string =>
  `filters.${packageName.replaceAll("/", ".")}.${what}`;

/** The stats that main itself counts: of the server, its listeners and reloads. Named as in Envoy where Envoy has them. */
export class ServerStats {
  readonly #started = performance.now();
  readonly #stats: ScopedStats;
  /** Tells the reader of stats that were made since the last call. */
  readonly #define: () => void;
  readonly #initialization: Histogram;
  readonly #concurrency: number;
  /** Names of the listeners that `/drain_listeners` has stopped, each of which is counted once. */
  readonly #stopped = new Set<string>();
  readonly #runtimeCounts = new Map<string, number>();
  /** `/runtime_modify` has set a value at some time. */
  #overridden = false;
  readonly reloads: { readonly committed: () => void; readonly refused: () => void };
  readonly faults: (packageName: string) => void;
  /** A breaker of the package has opened. */
  readonly opened: (packageName: string) => void;
  readonly files: WriterStats;

  constructor(reader: StatsReader, concurrency: number) {
    const memory = new SharedArrayBuffer(CELLS * Float64Array.BYTES_PER_ELEMENT);
    const table = new StatsTable(new Float64Array(memory), () => {});
    this.#define = () => reader.define(memory, table.defined.splice(0));
    this.#stats = new ScopedStats(table, "");
    const committed = this.#stats.counter("filters.reload.committed");
    const refused = this.#stats.counter("filters.reload.refused");
    this.reloads = { committed: () => committed.inc(), refused: () => refused.inc() };
    this.faults = (packageName) => {
      this.#stats.counter(faultStat(packageName)).inc();
      this.#define();
    };
    this.opened = (packageName) => {
      this.#stats.counter(sandboxStat(packageName, "opened")).inc();
      this.#define();
    };
    this.files = {
      completed: this.#stats.counter("filesystem.write_completed"),
      failed: this.#stats.counter("filesystem.write_failed"),
      reopenFailed: this.#stats.counter("filesystem.reopen_failed"),
    };
    for (const name of COUNTERS) this.#stats.counter(name);
    for (const name of GAUGES) this.#stats.gauge(name);
    for (let k = 0; k < concurrency; k++) {
      this.#stats.counter(`server.worker_${k}.watchdog_miss`);
      this.#stats.counter(`server.worker_${k}.watchdog_mega_miss`);
    }
    this.#initialization = this.#stats.histogram("server.initialization_time_ms", "ms");
    // In Envoy too it has values only where a monitor looks at its resource now and then.
    this.#stats.histogram("overload.refresh_interval_delay", "ms");
    this.#concurrency = concurrency;
    // A value that was set counts as used, even if it is 0.
    for (const name of ["dynamic_unknown_fields", "static_unknown_fields", "wip_protos"])
      this.#stats.counter(server(name)).add(0);
    this.#set("server.compilation_settings.fips_mode", 0);
    this.#set("listener_manager.total_listeners_warming", 0);
    this.#set("server.concurrency", concurrency);
    this.#set("server.hot_restart_epoch", 0);
    this.#set("server.hot_restart_generation", 1);
    // Envoy's value for "there is no certificate".
    this.#set("server.days_until_first_cert_expiring", 0xffff_ffff);
    this.#define();
  }

  #set(name: string, value: number): void {
    this.#stats.gauge(name).set(value);
  }

  /** Called when the first configuration serves. */
  onLive(): void {
    this.#initialization.record(Math.round(performance.now() - this.#started));
    this.#define();
    this.#set("listener_manager.workers_started", 1);
  }

  /** Called when a configuration was put into service. */
  onListeners(before: readonly ListenerConfig[], after: readonly ListenerConfig[]): void {
    this.#stopped.clear();
    const known = byName(before);
    const now = byName(after);
    let made = 0;
    for (const [name, text] of now) {
      if (known.get(name) === text) continue;
      made++;
      const how = known.has(name) ? "modified" : "added";
      this.#stats.counter(`listener_manager.listener_${how}`).inc();
    }
    for (const name of known.keys())
      if (!now.has(name)) this.#stats.counter("listener_manager.listener_removed").inc();
    this.#stats.counter("listener_manager.listener_create_success").add(made * this.#concurrency);
    this.#set("listener_manager.total_listeners_active", now.size);
  }

  /** Called when `/drain_listeners` has made these listeners stop accepting. */
  onStopped(names: readonly string[]): void {
    for (const name of names) {
      if (this.#stopped.has(name)) continue;
      this.#stopped.add(name);
      this.#stats.counter("listener_manager.listener_stopped").inc();
    }
  }

  setLive(live: boolean): void {
    this.#set("server.live", live ? 1 : 0);
  }

  /** Called in each `stats_flush_interval`. `state` is Envoy's number: 0 live, 1 draining, 3 initialising. */
  update(
    state: 0 | 1 | 3,
    facts: {
      readonly connections: number;
      readonly daysLeft: number;
      /** Names of stats looked up since the last reset. */
      readonly lookups: number;
      /** `stats_server_version_override` */
      readonly version: number | undefined;
    },
  ): void {
    this.#set("server.state", state);
    this.#set("server.uptime", Math.floor((performance.now() - this.#started) / 1000));
    const { rss, heapUsed, heapTotal, external } = memoryUsage();
    this.#set("server.memory_heap_size", heapTotal + external);
    this.#set("server.memory_allocated", heapUsed + external);
    this.#set("server.memory_physical_size", rss);
    this.#set("server.version", facts.version ?? OWN_VERSION);
    this.#set("server.total_connections", facts.connections);
    this.#set("server.days_until_first_cert_expiring", facts.daysLeft);
    this.#set("server.stats_recent_lookups", facts.lookups);
  }

  updateRuntime({ counts, keys, layers, overrides }: RuntimeLayers): void {
    const counter = (name: string, value: number) => {
      const seen = this.#runtimeCounts.get(name) ?? 0;
      // A counter that something was added to counts as used, even if that was 0.
      if (value > seen) this.#stats.counter(`runtime.${name}`).add(value - seen);
      this.#runtimeCounts.set(name, value);
    };
    counter("load_success", counts.loadSuccess);
    counter("load_error", counts.loadError);
    counter("override_dir_exists", counts.overrideExists);
    counter("override_dir_not_exists", counts.overrideNotExists);
    this.#stats.gauge("runtime.num_keys").set(keys);
    this.#stats.gauge("runtime.num_layers").set(layers);
    if (overrides > 0 || this.#overridden)
      this.#set("runtime.admin_overrides_active", overrides > 0 ? 1 : 0);
    this.#overridden ||= overrides > 0;
  }

  get uptimeSeconds(): number {
    return (performance.now() - this.#started) / 1000;
  }
}

/** JSON of the workers' listeners by name. As in Envoy's listener manager, admin's listener does not count. */
function byName(listeners: readonly ListenerConfig[]): ReadonlyMap<string, string> {
  const own = listeners.filter((listener) => listener.thread !== "control");
  return new Map(
    own.map(({ source: _, ...listener }) => [listener.name, JSON.stringify(listener)]),
  );
}

let lastUsage: NodeJS.MemoryUsage = {
  rss: 0,
  heapTotal: 0,
  heapUsed: 0,
  external: 0,
  arrayBuffers: 0,
};

/** `process.memoryUsage()`, which has to open a file; its last result while connections have taken all file descriptors. */
export function memoryUsage(): NodeJS.MemoryUsage {
  try {
    lastUsage = process.memoryUsage();
  } catch {
    // EMFILE: no file descriptor is free.
  }
  return lastUsage;
}
