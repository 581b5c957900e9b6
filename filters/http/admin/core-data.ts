import type { ClusterManagerStatus, Regex, SetupContext } from "@tsproxy/sdk";
import { withEndpoints } from "./endpoint-stats.ts";

/** Core's answer to `core.stats`. Names that begin with `@host|` are figures for /clusters and not shown as stats. */
export interface StatsSnapshot {
  readonly counters: readonly NamedValue[];
  readonly gauges: readonly NamedValue[];
  readonly histograms: readonly HistogramSnapshot[];
  /** Of each host of the clusters that ask for them (`per_endpoint_stats`); core has none. */
  readonly hosts?: readonly HostStats[];
}
export interface HostStats {
  readonly counters: readonly NamedValue[];
  readonly gauges: readonly NamedValue[];
}
/** `used`: it has been written, even if only with 0. */
export type NamedValue = readonly [name: string, value: number, used: boolean];

export interface Distribution {
  readonly count: number;
  readonly sum: number;
  readonly buckets: readonly (readonly [upperBound: number, count: number])[];
}
export interface HistogramSnapshot extends Distribution {
  readonly name: string;
  readonly unit: string;
  /** The last interval that has ended (`stats_flush_interval`); null: nothing was recorded in it. */
  readonly interval: Distribution | null;
}

export interface SocketAddress {
  readonly ip: string;
  readonly port: number;
  readonly path?: string;
}
interface ListenerSnapshot {
  readonly name: string;
  readonly address: SocketAddress;
  readonly additional: readonly SocketAddress[];
}

export interface ConfigSnapshot {
  /** Canonical v3 JSON. */
  readonly bootstrap: Record<string, unknown>;
  readonly loadedAt: string;
  readonly clustersUpdatedAt?: string;
}

export interface PackageError {
  readonly message: string;
  readonly file?: string;
  readonly line?: number;
  readonly column?: number;
  readonly frame?: string;
}

export interface PackageSnapshot {
  readonly package: string;
  readonly kind: string;
  readonly name: string;
  readonly origin: string;
  readonly group: string;
  readonly generation: number;
  readonly state: "active" | "failed";
  /** Why its state is `failed`. Absent: it is not. */
  readonly errors?: readonly PackageError[];
  readonly builtAt: string | number;
  readonly uses: number;
  /** How often the sandbox was stopped, or a hook threw. */
  readonly faults?: number;
  /** Places of the config that are in their failure policy now, because their code has failed too often; `*`: all. */
  readonly open?: readonly string[];
  readonly types?: readonly string[];
}

export interface ServerSnapshot {
  readonly version: string;
  readonly state: string;
  readonly uptimeSeconds: number;
  readonly options: Record<string, unknown>;
  readonly node: Record<string, unknown>;
}

interface RuntimeSnapshot {
  readonly layers: readonly string[];
  readonly entries: Readonly<
    Record<string, { readonly layer_values: readonly string[]; readonly final_value: string }>
  >;
}

/** Published by core under `core.certificates`: what each TLS context of a worker has loaded. */
interface ContextSnapshot {
  readonly trusted: readonly CertificateSnapshot[];
  readonly chains: readonly CertificateSnapshot[];
}
export interface CertificateSnapshot {
  /** The file, or `<inline>`. */
  readonly path: string;
  readonly serial: string;
  readonly names: readonly { readonly type: string; readonly value: string }[];
  readonly notBefore: number;
  readonly notAfter: number;
}

/** Bytes. */
interface MemorySnapshot {
  readonly allocated: number;
  readonly heapSize: number;
  readonly unmapped: number;
  readonly free: number;
  readonly cached: number;
  readonly physical: number;
}

/** What admin's pages are made of. Most of it is asked of core for each page; some is published and kept here. */
export class CoreData {
  readonly #cx: SetupContext;
  #certificates: readonly ContextSnapshot[] = [];

  constructor(cx: SetupContext) {
    this.#cx = cx;
    cx.subscribe("core.certificates", (certificates) => {
      this.#certificates = certificates as readonly ContextSnapshot[];
    });
  }

  get certificates(): readonly ContextSnapshot[] {
    return this.#certificates;
  }
  get clusters(): ClusterManagerStatus {
    return this.#cx.clusters.status?.() ?? { clusters: [] };
  }
  async stats(): Promise<StatsSnapshot> {
    const snapshot = await this.#ask<StatsSnapshot>("core.stats");
    return withEndpoints(snapshot, this.clusters);
  }
  listeners(): Promise<readonly ListenerSnapshot[]> {
    return this.#ask("core.listeners");
  }
  config(): Promise<ConfigSnapshot> {
    return this.#ask("core.config");
  }
  packages(): Promise<readonly PackageSnapshot[]> {
    return this.#ask("core.packages");
  }
  server(): Promise<ServerSnapshot> {
    return this.#ask("core.server_info");
  }
  /** The whole number that runtime has under `key`, else `fallback`. */
  runtimeInteger(key: string, fallback: number): number {
    return this.#cx.runtime.integer(key, fallback);
  }
  runtime(): Promise<RuntimeSnapshot> {
    return this.#ask("core.runtime");
  }
  /** False: no layer of the config takes changes. */
  modifyRuntime(changes: Readonly<Record<string, string>>): Promise<boolean> {
    return this.#ask("core.runtime_modify", changes);
  }
  /** How a pattern is compiled (RE2). */
  readonly regex = (pattern: string): Regex => this.#cx.regex(pattern);
  async healthcheck(failed: boolean): Promise<void> {
    await this.#ask("core.healthcheck", { failed });
  }
  async drainListeners(how: {
    readonly graceful: boolean;
    readonly inboundOnly: boolean;
    readonly skipExit: boolean;
  }): Promise<void> {
    await this.#ask("core.drain_listeners", how);
  }
  async reopenLogs(): Promise<void> {
    await this.#ask("core.reopen_logs");
  }
  memory(): Promise<MemorySnapshot> {
    return this.#ask("core.memory");
  }
  logLevels(): Promise<readonly (readonly [logger: string, level: string])[]> {
    return this.#ask("core.log_levels");
  }
  /** Answers all levels after the change. Logger "": all of them. */
  setLogLevels(
    changes: readonly (readonly [logger: string, level: string])[],
  ): Promise<readonly (readonly [logger: string, level: string])[]> {
    return this.#ask("core.set_log_levels", { changes });
  }
  /**
   * Begins or ends a CPU profile of a thread (`worker_0`, the default; `control`), or of one filter that has a sandbox there.
   * Answers the file that it was written to.
   */
  profile(
    enable: boolean,
    of: { readonly thread: string | undefined; readonly filter: string | undefined },
  ): Promise<{ file?: string; error?: string }> {
    return this.#ask("core.profile", { enable, ...of });
  }
  /** Begins a profile of what a thread or a filter allocates, or ends it and answers it: JSON as DevTools opens it. */
  allocationProfile(
    enable: boolean,
    of: { readonly thread: string | undefined; readonly filter: string | undefined },
  ): Promise<{ profile?: string; error?: string }> {
    return this.#ask("core.allocation_profile", { enable, ...of });
  }
  /** A profile of one filter, when its time is over: JSON as DevTools opens it. */
  filterProfile(asked: {
    readonly filter: string;
    readonly kind: string;
    readonly seconds: number;
    readonly thread: string | undefined;
  }): Promise<{ profile?: string; error?: string }> {
    return this.#ask("core.filter_profile", asked);
  }
  /** Takes a heap snapshot (JSON as DevTools opens it) of a thread, or of the isolate of a filter in it. */
  heapDump(of: {
    readonly thread: string | undefined;
    readonly filter: string | undefined;
  }): Promise<{ dump?: number; error?: string }> {
    return this.#ask("core.heap_dump", of);
  }
  /** Its next piece; "" at the end, undefined if core has dropped it. */
  heapDumpPiece(dump: number): Promise<string | undefined> {
    return this.#ask("core.heap_dump_piece", { dump });
  }
  /** Called when it need not be kept any longer. */
  endHeapDump(dump: number): void {
    this.#ask("core.heap_dump_end", { dump }).catch(() => {});
  }
  recentLookups(): Promise<{
    readonly recent?: readonly (readonly [name: string, times: number])[];
    readonly total: number;
  }> {
    return this.#ask("core.recent_lookups");
  }
  async changeLookups(change: "enable" | "disable" | "clear"): Promise<void> {
    await this.#ask("core.change_lookups", { change });
  }
  async resetCounters(): Promise<void> {
    await this.#ask("core.reset_counters");
  }
  quit(): void {
    this.#ask("core.quit").catch((error: unknown) => {
      this.#cx.log.error("admin: core did not take /quitquitquit", { error: String(error) });
    });
  }

  /** Core's answers come from our own process, so their shape is not checked. */
  #ask<T>(operation: string, args: unknown = {}): Promise<T> {
    return this.#cx.operation(operation, args) as Promise<T>;
  }
}
