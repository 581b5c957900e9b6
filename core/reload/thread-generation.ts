import type { ModuleSource, ThreadConfig } from "../protocol.ts";

/** The code and config that run in a thread: enough to build its isolates again. */
export interface Live {
  readonly modules: ReadonlyMap<string, ModuleSource>;
  readonly config: ThreadConfig | undefined;
}

/** A change that is being set up in a thread beside what runs. */
export interface Pending {
  readonly generation: number;
  live: Live;
  /** The boxes made for it, by package. */
  readonly boxes: Map<string, number>;
  readonly removed: readonly string[];
  builtinReady: boolean;
  boxesReady: boolean;
  /** Called when it is ready, instead of telling main. */
  readonly onReady?: () => void;
}

/** What a change makes of what runs. Without a config it is that of before. */
export function changedBy(
  live: Live,
  modules: readonly ModuleSource[],
  removed: readonly string[],
  config: ThreadConfig | undefined,
): Live {
  const next = new Map(live.modules);
  for (const name of removed) next.delete(name);
  for (const module of modules) next.set(module.package, module);
  return { modules: next, config: config ?? live.config };
}

/** The packages of the builtin isolate that have changed: what runs in a sandbox cannot bring it down. */
export function changedPackages(before: Live, after: Live): string[] {
  const names: string[] = [];
  for (const [name, { group, hash }] of after.modules)
    if (group === "builtin" && before.modules.get(name)?.hash !== hash) names.push(name);
  return names;
}

/** What runs, with the config of before, and these packages as they were then. */
export function withCodeOf(before: Live, after: Live, names: readonly string[]): Live {
  const modules = new Map(after.modules);
  for (const name of names) {
    const module = before.modules.get(name);
    if (module === undefined) modules.delete(name);
    else modules.set(name, module);
  }
  return { modules, config: before.config };
}

export function changeLost(): Error {
  return new Error("the isolate of the shipped filters was lost while this was set up");
}
