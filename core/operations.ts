import type { Fleet } from "./fleet.ts";
import type { RunOptions } from "./options.ts";
import type { PackageState } from "./package-state.ts";
import type { Problem } from "./problem.ts";
import type { AddressConfig, RuntimeConfig } from "./protocol.ts";
import type { Reload } from "./reload.ts";
import type { RuntimeLayers } from "./runtime.ts";
import type { ServerStats } from "./server-stats.ts";
import type { StatsReader } from "./stats.ts";
import { VERSION } from "./version.ts";

export interface OperationParts {
  readonly options: RunOptions;
  readonly reload: Reload;
  readonly fleet: () => Fleet | undefined;
  readonly stats: StatsReader;
  readonly server: ServerStats;
  readonly runtime: RuntimeLayers;
  readonly state: () => "LIVE" | "DRAINING" | "INITIALIZING";
  readonly quit: () => void;
}
/** Envoy's numbers in `server.state`. */
const STATES = { LIVE: 0, DRAINING: 1, INITIALIZING: 3 } as const;

type Operation = (args: unknown) => unknown;

/** What packages may ask of core as a whole (`cx.operation("core.…")`). Admin does. */
export function operations(
  parts: OperationParts,
): (name: string, args: unknown) => Promise<unknown> {
  const { options, reload, fleet, stats, server } = parts;
  const table = new Map<string, Operation>([
    [
      "core.stats",
      () => {
        server.update(STATES[parts.state()], fleet()?.bound.length ?? 0);
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
    ["core.packages", () => shownPackages(reload)],
    ["core.listeners", () => shownListeners(fleet(), reload.live?.config)],
    [
      "core.server_info",
      () => ({
        version: VERSION,
        state: parts.state(),
        uptimeSeconds: server.uptimeSeconds,
        options: shownOptions(options),
        node: reload.live?.config.node ?? {},
      }),
    ],
    ["core.runtime", () => parts.runtime.dump()],
    // False: there is no layer that takes changes.
    ["core.runtime_modify", (args) => parts.runtime.modify(args as Record<string, string>)],
    ["core.quit", () => parts.quit()],
  ]);
  return async (name, args) => {
    const run = table.get(name);
    if (run === undefined) throw new Error(`core has no operation "${name}"`);
    return run(args);
  };
}

function shownPackages(reload: Reload): unknown[] {
  const uses = usesIn(reload.live?.config);
  return reload.packages().map(({ problems, ...state }: PackageState) => ({
    ...state,
    uses: uses.get(state.package) ?? 0,
    ...(problems.length > 0 && { error: shownError(problems[0]!) }),
  }));
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
  const own = new Set(config?.listeners.filter((l) => l.thread !== "control").map((l) => l.name));
  const byName = new Map<string, AddressConfig[]>();
  for (const { name, address } of fleet?.bound ?? [])
    if (own.has(name)) byName.set(name, [...(byName.get(name) ?? []), address]);
  return [...byName].map(([name, [address, ...additional]]) => ({ name, address, additional }));
}

function shownOptions(options: RunOptions): Record<string, unknown> {
  return {
    concurrency: options.concurrency,
    config_path: options.configFile,
    config_yaml: options.overlays.find(({ name }) => name === "--config-yaml")?.text ?? "",
    allow_unknown_static_fields: options.allowUnknown,
    admin_address_path: options.adminAddressPath,
    local_address_ip_version: options.addressFamily,
    log_level: options.log.level,
    log_format: options.log.format ?? "",
    log_path: options.log.path ?? "",
    service_cluster: options.serviceCluster,
    service_node: options.serviceNode,
    drain_time: `${options.drainTimeMs / 1000}s`,
    parent_shutdown_time: `${options.parentShutdownMs / 1000}s`,
    mode: "Serve",
  };
}
