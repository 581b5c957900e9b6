import type { WriterStats } from "./file-writer.ts";
import { ScopedStats, StatsTable } from "./inside/stats.ts";
import type { RuntimeLayers } from "./runtime.ts";
import type { StatsReader } from "./stats.ts";

const CELLS = 1024;

/** What main itself counts: the server as a whole, its listeners, and reloads. Envoy's names where it has them. */
export class ServerStats {
  readonly #started = performance.now();
  readonly #stats: ScopedStats;
  readonly #runtimeCounts = new Map<string, number>();
  readonly reloads: { readonly committed: () => void; readonly refused: () => void };
  readonly faults: (packageName: string) => void;
  readonly files: WriterStats;

  constructor(reader: StatsReader, concurrency: number) {
    const memory = new SharedArrayBuffer(CELLS * Float64Array.BYTES_PER_ELEMENT);
    const table = new StatsTable(new Float64Array(memory), () => {});
    const define = () => reader.define(memory, table.defined.splice(0));
    this.#stats = new ScopedStats(table, "");
    const committed = this.#stats.counter("filters.reload.committed");
    const refused = this.#stats.counter("filters.reload.refused");
    this.reloads = { committed: () => committed.inc(), refused: () => refused.inc() };
    this.faults = (packageName) => {
      this.#stats.counter(`filters.${packageName.replaceAll("/", ".")}.fault`).inc();
      define();
    };
    this.files = {
      completed: this.#stats.counter("filesystem.write_completed"),
      failed: this.#stats.counter("filesystem.write_failed"),
      reopenFailed: this.#stats.counter("filesystem.reopen_failed"),
    };
    this.#stats.gauge("server.concurrency").set(concurrency);
    for (const name of ["live", "state", "uptime", "memory_heap_size", "memory_allocated"])
      this.#gauge(name);
    this.#stats.gauge("listener_manager.total_listeners_active");
    this.#stats.gauge("listener_manager.workers_started");
    for (const name of ["load_success", "load_error", "override_dir_exists"])
      this.#stats.counter(`runtime.${name}`);
    for (const name of ["override_dir_not_exists", "deprecated_feature_use"])
      this.#stats.counter(`runtime.${name}`);
    for (const name of ["num_keys", "num_layers", "admin_overrides_active"])
      this.#stats.gauge(`runtime.${name}`);
    define();
  }

  #gauge(name: string) {
    return this.#stats.gauge(`server.${name}`);
  }

  /** `state` is Envoy's number: 0 live, 1 draining, 3 initialising. */
  update(state: 0 | 1 | 3, listeners: number): void {
    this.#gauge("state").set(state);
    this.#gauge("live").set(state === 0 ? 1 : 0);
    this.#gauge("uptime").set(Math.floor((performance.now() - this.#started) / 1000));
    const { rss, heapUsed, external } = process.memoryUsage();
    this.#gauge("memory_heap_size").set(rss);
    this.#gauge("memory_allocated").set(heapUsed + external);
    this.#stats.gauge("listener_manager.total_listeners_active").set(listeners);
    this.#stats.gauge("listener_manager.workers_started").set(state === 3 ? 0 : 1);
  }

  updateRuntime({ counts, keys, layers, overrides }: RuntimeLayers): void {
    const counter = (name: string, value: number) => {
      const seen = this.#runtimeCounts.get(name) ?? 0;
      this.#stats.counter(`runtime.${name}`).add(value - seen);
      this.#runtimeCounts.set(name, value);
    };
    counter("load_success", counts.loadSuccess);
    counter("load_error", counts.loadError);
    counter("override_dir_exists", counts.overrideExists);
    counter("override_dir_not_exists", counts.overrideNotExists);
    this.#stats.gauge("runtime.num_keys").set(keys);
    this.#stats.gauge("runtime.num_layers").set(layers);
    this.#stats.gauge("runtime.admin_overrides_active").set(overrides > 0 ? 1 : 0);
  }

  get uptimeSeconds(): number {
    return (performance.now() - this.#started) / 1000;
  }
}
