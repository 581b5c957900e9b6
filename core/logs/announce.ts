import { existsSync } from "node:fs";
import type { RunOptions } from "../options.ts";
import type { PackageState } from "../packages/package-state.ts";
import { shortPath } from "../problem.ts";
import type { RuntimeConfig } from "../protocol.ts";
import { shown } from "../sockets/addresses.ts";
import type { Bound } from "../sockets/bound.ts";
import type { Log } from "./log.ts";

/** Sockets that are bound, and abstract ones that the proxy before has not given up yet. */
interface OwnSockets {
  readonly bound: readonly Bound[];
  readonly unfree: readonly Bound[];
}

/** Logs, after the start, where the proxy and its admin listen and which packages run where. */
export function announce(
  log: Log,
  options: RunOptions,
  config: RuntimeConfig,
  { bound, unfree }: OwnSockets,
  packages: readonly PackageState[],
): void {
  const control = new Set(
    config.listeners.filter((l) => l.thread === "control").map((l) => l.name),
  );
  const listeners = bound.filter(({ name }) => !control.has(name));
  const admin = bound.filter(({ name }) => control.has(name));
  const at = ({ name, address }: Bound) =>
    name === shown(address) ? name : `${shown(address)} (${name})`;
  const workers = options.concurrency === 1 ? "1 worker" : `${options.concurrency} workers`;
  const nothing = unfree.length === 0 ? "nothing" : "nothing yet";
  const later =
    unfree.length === 0
      ? ""
      : `; on ${some(unfree.map(at))} as soon as the proxy before gives it up`;
  log.info(
    `listening on ${listeners.length === 0 ? nothing : some(listeners.map(at))}, with ${workers}${later}`,
  );
  for (const { address } of admin.slice(0, 1)) log.info(`admin at ${url(address)}`);
  const used = JSON.stringify(config);
  const isUsed = ({ package: name }: PackageState) =>
    used.includes(`"package":${JSON.stringify(name)}`);
  const shipped = packages.filter((p) => p.group === "builtin" && isUsed(p)).map((p) => p.package);
  const sandboxed = packages.filter((p) => p.origin === "dropped-in" && p.generation > 0);
  log.info(`shipped filters in use: ${shipped.length === 0 ? "none" : some(shipped)}`);
  if (sandboxed.length > 0) log.info(`dropped-in filters: ${some(sandboxed.map(place))}`);
  const folders = options.filters.map((folder) =>
    existsSync(folder) ? shortPath(folder) : `${shortPath(folder)} (not there yet)`,
  );
  const watched = [shortPath(options.configFile), ...folders];
  log.info(`watching ${some(watched)}; save a file and it serves the next request`);
}

function place({ package: name, group, folder }: PackageState): string {
  return `${name} (${group === "builtin" ? "trusted, beside the shipped ones" : "in its own sandbox"}, ${shortPath(folder)})`;
}

function url(address: Bound["address"]): string {
  const local = address.ip === "0.0.0.0" ? "127.0.0.1" : address.ip === "::" ? "::1" : address.ip;
  return address.path ?? `http://${shown({ ...address, ip: local })}`;
}

function some(names: readonly string[]): string {
  const most = 8;
  return names.length > most
    ? `${names.slice(0, most).join(", ")} and ${names.length - most} more`
    : names.join(", ");
}
