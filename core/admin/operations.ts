import type { Readable } from "node:stream";
import { getHeapSnapshot } from "node:v8";
import type { Fleet } from "../fleet.ts";
import { MAIN_LOGGER } from "../logs/log.ts";
import type { LogLevels } from "../logs/log-levels.ts";
import type { LevelName } from "../logs/log-options.ts";
import type { RunOptions } from "../options.ts";
import type { PackageState } from "../packages/package-state.ts";
import type { Problem } from "../problem.ts";
import type { AddressConfig, Profiled, RuntimeConfig } from "../protocol.ts";
import type { Reload } from "../reload/reload.ts";
import type { ContextCertificates } from "../sockets/tls.ts";
import { VERSION } from "../version.ts";
import { commandLineOptions } from "./command-line-options.ts";
import type { HeapDumps } from "./heap-dump.ts";
import type { OpenBreakers } from "./open-breakers.ts";
import type { ProfileAnswer, Profiler, Taken } from "./profiler.ts";
import type { RuntimeLayers } from "./runtime.ts";
import { faultStat, memoryUsage, type ServerStats } from "./server-stats.ts";
import type { StatsReader } from "./stats.ts";

export interface OperationParts {
  readonly options: RunOptions;
  readonly reload: Reload;
  readonly fleet: () => Fleet | undefined;
  readonly stats: StatsReader;
  readonly server: ServerStats;
  readonly breakers: OpenBreakers;
  readonly runtime: RuntimeLayers;
  readonly state: () => "LIVE" | "DRAINING" | "INITIALIZING";
  readonly reopenLogs: () => Promise<void>;
  readonly levels: LogLevels;
  readonly profiler: Profiler;
  readonly heapDumps: HeapDumps;
  /** Called before something that keeps the main thread busy for at most so long. */
  readonly onBusy: (ms: number) => void;
  readonly certificates: () => readonly ContextCertificates[];
  readonly failHealthchecks: (failed: boolean) => void;
  /** Called with each HTTP exchange that `http/recorder` reports. */
  readonly onRecorded: (exchange: unknown) => void;
  readonly quit: () => void;
}
/** Envoy's numbers in `server.state`. */
const STATES = { LIVE: 0, DRAINING: 1, INITIALIZING: 3 } as const;

type Operation = (args: unknown) => unknown;

/** Sets the server's own gauges. As in Envoy, they change only once in each `stats_flush_interval`. */
export function flushServerStats(
  parts: Pick<OperationParts, "server" | "stats" | "reload" | "state" | "certificates">,
): void {
  parts.server.update(STATES[parts.state()], {
    connections: connections(parts.stats, parts.reload.live?.config),
    daysLeft: daysLeft(parts.certificates()),
    lookups: parts.stats.lookups,
    version: parts.reload.live?.config.statsVersion,
  });
}

/** The operations of core that packages may call (`cx.operation("core.…")`), as admin does. */
export function operations(
  parts: OperationParts,
): (name: string, args: unknown) => Promise<unknown> {
  const { options, reload, fleet, stats, server } = parts;
  const table = new Map<string, Operation>([
    [
      "core.stats",
      () => {
        server.setLive(parts.state() === "LIVE");
        server.updateRuntime(parts.runtime);
        return stats.snapshot();
      },
    ],
    ["core.reset_counters", () => stats.resetCounters()],
    [
      "core.config",
      () => ({
        bootstrap: reload.live?.loaded.bootstrap ?? {},
        loadedAt: reload.loadedAt.toISOString(),
      }),
    ],
    ["core.packages", () => shownPackages(parts)],
    ["core.listeners", () => shownListeners(fleet(), reload.live?.config)],
    [
      "core.server_info",
      () => ({
        version: VERSION,
        state: parts.state(),
        uptimeSeconds: server.uptimeSeconds,
        options: commandLineOptions(options),
        // The node as the config file has it, with the id and cluster that flags may have set.
        node: { ...nodeOf(reload.live?.loaded.bootstrap), ...reload.live?.config.node },
      }),
    ],
    ["core.runtime", () => parts.runtime.dump()],
    // Answers false if there is no admin layer.
    ["core.runtime_modify", (args) => parts.runtime.modify(args as Record<string, string>)],
    [
      "core.healthcheck",
      (args) => parts.failHealthchecks((args as { readonly failed: boolean }).failed),
    ],
    ["core.drain_listeners", (args) => drainListeners(parts, args as DrainHow)],
    ["core.reopen_logs", () => parts.reopenLogs()],
    ["core.memory", () => memory()],
    ["core.log_levels", () => shownLevels(parts)],
    [
      "core.set_log_levels",
      (args) => {
        const { changes } = args as { readonly changes: readonly (readonly [string, string])[] };
        for (const [name, level] of changes) parts.levels.set(name, level as LevelName);
        return shownLevels(parts);
      },
    ],
    ["core.profile", (args) => profile(parts, args as ProfileAsked)],
    ["core.allocation_profile", (args) => allocationProfile(parts, args as ProfileAsked)],
    ["core.filter_profile", (args) => filterProfile(parts, args as FilterProfileAsked)],
    [
      "core.heap_dump",
      (args) => parts.heapDumps.open(() => heapSnapshot(parts, args as DumpAsked)),
    ],
    ["core.heap_dump_piece", (args) => parts.heapDumps.next((args as DumpPiece).dump)],
    ["core.heap_dump_end", (args) => parts.heapDumps.close((args as DumpPiece).dump)],
    ["core.recent_lookups", () => ({ recent: stats.recentLookups, total: stats.lookups })],
    [
      "core.change_lookups",
      (args) => {
        const { change } = args as { readonly change: "enable" | "disable" | "clear" };
        if (change === "clear") stats.clearLookups();
        else stats.trackLookups(change === "enable");
      },
    ],
    ["core.recorded", (exchange) => parts.onRecorded(exchange)],
    ["core.quit", () => parts.quit()],
  ]);
  return async (name, args) => {
    const run = table.get(name);
    if (run === undefined) throw new Error(`core has no operation "${name}"`);
    return run(args);
  };
}

function connections(stats: StatsReader, config: RuntimeConfig | undefined): number {
  const own = (config?.listeners ?? []).filter((listener) => listener.thread !== "control");
  const name = (prefix: string) => `listener.${prefix.replaceAll(":", "_")}.downstream_cx_active`;
  return own.reduce((sum, { statPrefix }) => sum + stats.value(name(statPrefix)), 0);
}

/** Days until the first certificate expires; as in Envoy 2^32 - 1 if there is none. */
function daysLeft(contexts: readonly ContextCertificates[]): number {
  const ends = contexts.flatMap(({ chains }) => chains.map((certificate) => certificate.notAfter));
  if (ends.length === 0) return 0xffff_ffff;
  return Math.max(0, Math.floor((Math.min(...ends) - Date.now()) / DAY_MS));
}

interface ProfileAsked {
  readonly enable: boolean;
  readonly thread?: string;
  /** One filter in that thread, by the name of its package or the end of that. */
  readonly filter?: string;
  readonly kind?: string;
}

/** Starts or stops a profile. Its file is the config's `admin.profile_path`, else a temporary one. */
function profile(
  { profiler, reload }: OperationParts,
  asked: ProfileAsked,
): Promise<ProfileAnswer> {
  const { admin } = (reload.live?.loaded.bootstrap ?? {}) as {
    readonly admin?: { readonly profile_path?: string };
  };
  const file = admin?.profile_path || undefined;
  if (!asked.enable) return profiler.stop(file);
  return orError(async () => {
    return profiler.start(threadOf(asked), file, profiled(reload, { ...asked, kind: "cpu" }));
  });
}

/** Starts a profile of what is allocated, or ends it and answers it. */
function allocationProfile(
  { profiler, reload }: OperationParts,
  asked: ProfileAsked,
): Promise<Taken> {
  if (!asked.enable) return profiler.stopAllocations();
  return orError(async () =>
    profiler.startAllocations(threadOf(asked), profiled(reload, { ...asked, kind: "heap" })),
  );
}

/** Of a thread, unless a filter is named. */
function profiled(
  reload: Reload,
  asked: ProfileAsked & { readonly kind: "cpu" | "heap" },
): Profiled {
  return asked.filter === undefined ? { kind: asked.kind } : profiledFilter(reload, asked);
}

function threadOf({ thread = "worker 0" }: { readonly thread?: string | undefined }): string {
  return thread.replace("_", " ");
}

/** Throws an error that says what to do if there is no such filter, or it cannot be profiled. */
function profiledFilter(reload: Reload, { filter = "", kind = "cpu" }: ProfileAsked): Profiled {
  if (kind !== "cpu" && kind !== "heap" && kind !== "snapshot")
    throw new Error(`there is no profile "${kind}"; there are cpu, heap and snapshot`);
  const isMeant = (name: string) => name === filter || name.endsWith(`/${filter}`);
  const found = reload.sandboxed().find((target) => isMeant(target.package));
  if (found !== undefined) return { filter: found.package, kind };
  const shared = reload.packages().find((state) => isMeant(state.package));
  if (shared !== undefined && kind === "snapshot")
    return { filter: shared.package, kind, isShared: true };
  if (shared !== undefined)
    throw new Error(
      `"${shared.package}" shares an isolate with the shipped filters, and V8 takes no profile of that; take a snapshot of its heap, profile a sandboxed filter, or its thread with /cpuprofiler`,
    );
  const names = reload
    .sandboxed()
    .map((target) => target.package)
    .sort();
  throw new Error(`no filter "${filter}" is in a sandbox; there: ${names.join(", ") || "none"}`);
}

interface FilterProfileAsked extends ProfileAsked {
  readonly seconds: number;
}

/** Takes a profile of a filter and answers it. */
function filterProfile(
  { profiler, reload }: OperationParts,
  asked: FilterProfileAsked,
): Promise<Taken> {
  return orError(async () =>
    profiler.take(threadOf(asked), profiledFilter(reload, asked), asked.seconds * 1000),
  );
}

async function orError<T>(answer: () => Promise<T>): Promise<T | { readonly error: string }> {
  try {
    return await answer();
  } catch (error) {
    return { error: (error as Error).message };
  }
}

interface DumpAsked {
  /** `main`, `worker_0`, `control`. Absent: `main`, or `worker_0` for a filter. */
  readonly thread?: string;
  readonly filter?: string;
}
/** More than a heap snapshot of the main thread takes on a busy machine. */
const SNAPSHOT_MS = 60_000;

interface DumpPiece {
  readonly dump: number;
}

/** Of core's half of a thread, or of the isolate that a filter lives in there. */
async function heapSnapshot(
  parts: OperationParts,
  { thread, filter }: DumpAsked,
): Promise<Readable | string> {
  if (filter !== undefined) {
    const of = profiledFilter(parts.reload, { enable: true, filter, kind: "snapshot" });
    const { profile = "", error } = await parts.profiler.take(threadOf({ thread }), of, 0);
    if (error !== undefined) throw new Error(error);
    return profile;
  }
  if (thread === undefined || thread === "main") {
    parts.onBusy(SNAPSHOT_MS);
    // Lets the message go out.
    await new Promise(setImmediate);
    return getHeapSnapshot();
  }
  const fleet = parts.fleet();
  if (fleet === undefined) throw new Error("no threads run");
  return fleet.heapSnapshot(threadOf({ thread }));
}

interface DrainHow {
  readonly graceful: boolean;
  readonly inboundOnly: boolean;
  readonly skipExit: boolean;
}

/** Asks clients to leave, and closes the listeners: gracefully once the drain time is over, else now (`skipExit`: never). */
function drainListeners({ fleet, reload, options, server }: OperationParts, how: DrainHow): void {
  const names = (reload.live?.config.listeners ?? [])
    .filter((l) => l.thread !== "control" && (!how.inboundOnly || l.direction === "INBOUND"))
    .map((l) => l.name);
  fleet()?.drainListeners(names, { ask: true, stop: false });
  if (how.skipExit) return;
  const stop = () => {
    server.onStopped(names);
    fleet()?.drainListeners(names, { ask: false, stop: true });
  };
  if (how.graceful) setTimeout(stop, options.drainTimeMs).unref();
  else stop();
}

function memory(): unknown {
  const { rss, heapUsed, heapTotal, external, arrayBuffers } = memoryUsage();
  return {
    allocated: heapUsed + external,
    heapSize: heapTotal + external,
    unmapped: 0,
    free: heapTotal - heapUsed,
    cached: arrayBuffers,
    physical: rss,
  };
}

const DAY_MS = 86_400_000;

function shownLevels({ levels, reload }: OperationParts): (readonly [string, string])[] {
  const packages = reload.packages().map((state) => state.package);
  const names = [MAIN_LOGGER, ...new Set(packages)].sort();
  return names.map((name) => [name, levels.level(name)] as const);
}

function nodeOf(bootstrap: object | undefined): object {
  const { node } = (bootstrap ?? {}) as { readonly node?: object };
  return node ?? {};
}

function shownPackages({ reload, stats, breakers }: OperationParts): unknown[] {
  const uses = usesIn(reload.live?.config);
  return reload.packages().map(({ problems, ...state }: PackageState) => {
    const open = breakers.of(state.package);
    return {
      ...state,
      uses: uses.get(state.package) ?? 0,
      faults: stats.value(faultStat(state.package)),
      ...(open.length > 0 && { open }),
      ...(problems.length > 0 && { errors: problems.map(shownError) }),
    };
  });
}

function shownError({ message, file, line, column, frame }: Problem): unknown {
  return { message, ...(file !== "" && { file, line, column }), ...(frame !== "" && { frame }) };
}

/** How often the config names each package. */
function usesIn(config: RuntimeConfig | undefined): Map<string, number> {
  const uses = new Map<string, number>();
  JSON.stringify(config ?? {}, (key, value) => {
    if (key === "package" && typeof value === "string") uses.set(value, (uses.get(value) ?? 0) + 1);
    return value;
  });
  return uses;
}

function shownListeners(fleet: Fleet | undefined, config: RuntimeConfig | undefined): unknown[] {
  const bound = new Map<string, AddressConfig[]>();
  for (const { name, address } of fleet?.bound ?? [])
    bound.set(name, [...(bound.get(name) ?? []), address]);
  const own = config?.listeners.filter((l) => l.thread !== "control") ?? [];
  return own.flatMap(({ name, bindToPort, ...listener }) => {
    // A listener without a socket is shown with its configured address; one that has been drained is not shown.
    const unbound = bindToPort === false ? [listener.address] : [];
    const [address, ...additional] = bound.get(name) ?? unbound;
    return address === undefined ? [] : [{ name, address, additional }];
  });
}
