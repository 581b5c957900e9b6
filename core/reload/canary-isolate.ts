import { Builtin } from "../builtin.ts";
import { CompiledCode } from "../compiled-code.ts";
import { chunkMemory } from "../inside/line-chunks.ts";
import { createRing } from "../inside/ring.ts";
import { COUNTS_BYTES, LEDGER_BYTES } from "../inside/shared-counts.ts";
import { LocalServices } from "../local-services.ts";
import { COMPILED } from "../packages/build-cache.ts";
import { watchWaiting } from "../process/cpu-limit.ts";
import type { ModuleSource, PreludeCode, Refusal } from "../protocol.ts";
import { ServedFiles } from "../served-files.ts";
import { Contexts } from "../sockets/tls.ts";
import { refusalOf } from "./refusal.ts";
import type { WrittenChange } from "./stage.ts";

/** Minimal rings, since no traffic passes through them; the stats block has room for all stats that a config defines. */
const RING = { events: 8, commands: 8, segments: 2, slots: 2 } as const;
const STATS_BYTES = 32 * 1024 * 1024;
/** The canary has no connections to drain. */
const NO_DRAIN = { ms: 0, immediate: true } as const;
/**
 * With more memory than this the isolate's garbage is collected after a commit, as module versions pile up in its heap (every 30th
 * save of the router: 12 MiB of 24 are left). If it still has more it is disposed of and built again for the next change, which takes
 * 60 ms and more: a config of a thousand clusters need not stay there between changes.
 */
const MEMORY_BYTES = STATS_BYTES + 24 * 1024 * 1024;

export interface CanaryOptions {
  readonly prelude: Pick<PreludeCode, "builtin" | "builtinSdk" | "regex">;
  /** This node's names, read whenever an isolate is built. */
  readonly node: () => { readonly id: string; readonly cluster: string };
  /**
   * Packages that live in a sandbox. `left out`: they are not loaded here; the threads set them up before the commit, each in a
   * new isolate with time limits. `set up`: no thread will, so the canary has to find out what they say of the config.
   */
  readonly sandboxed: "left out" | "set up";
  /** What a process before has served (ServedFiles), in the place of what is on disk. */
  readonly files?: string | undefined;
}

/**
 * An isolate of this thread in which every change is set up first, without any effect on traffic. If a package hangs or breaks it,
 * it is built again with what serves.
 */
export class CanaryIsolate {
  readonly #options: CanaryOptions;
  readonly #modules = new Map<string, ModuleSource>();
  #config: string | undefined;
  #generation = 0;
  #builtin: Builtin | undefined;
  #pending: WrittenChange | undefined;
  #patience = 1;

  constructor(options: CanaryOptions) {
    this.#options = options;
  }

  /** As a Stage does; so are the others. What was stopped by the clock while it waited for a CPU is tried again, with patience. */
  prepare(change: WrittenChange): readonly Refusal[] {
    const waited = watchWaiting();
    const refusals = this.#attempt(change);
    const patience = refusals.some(({ stopped }) => stopped) ? waited() : undefined;
    if (patience === undefined) return refusals;
    this.#drop();
    this.#patience = patience;
    const again = this.#attempt(change);
    this.#patience = 1;
    if (this.#builtin !== undefined) this.#builtin.patience = 1;
    return again;
  }

  #attempt(change: WrittenChange): readonly Refusal[] {
    try {
      return this.#prepare(change);
    } catch (error) {
      // The isolate was stopped during a call, or has been disposed of.
      this.#drop();
      return [refusalOf(blamed(change.modules, error), error)];
    }
  }

  #prepare(change: WrittenChange): readonly Refusal[] {
    const builtin = this.#ready();
    this.#pending = change;
    const refusals: Refusal[] = [];
    const changed = this.#load(builtin, change.modules, refusals);
    if (refusals.length > 0) return refusals;
    return builtin.prepare({
      generation: change.generation,
      changed,
      removed: change.removed,
      config: change.config,
    });
  }

  /** JSON of the listeners that services bring along, as the present preparation has them: each an Envoy Listener. */
  serviceListeners(): string {
    return this.#builtin?.serviceListeners() ?? "[]";
  }

  /** `config`: the whole of it; `listeners`: JSON of those from the nth on. */
  extend(config: string, listeners: string, nth: number): readonly Refusal[] {
    const builtin = this.#builtin;
    if (this.#pending === undefined || builtin === undefined)
      throw new Error("nothing is prepared");
    try {
      const refusals = builtin.extend(listeners, nth);
      this.#pending = { ...this.#pending, config };
      return refusals;
    } catch (error) {
      this.#drop();
      return [refusalOf("", error)];
    }
  }

  /** Runs a prepared package's tool, by the tool's name. Throws what the tool throws. */
  tool(packageName: string, name: string, input: unknown): unknown {
    return this.#ready().tool(packageName, name, input);
  }

  commit(generation: number): void {
    const change = this.#pending;
    if (change?.generation !== generation) return;
    this.#pending = undefined;
    this.#generation = generation;
    for (const name of change.removed) this.#modules.delete(name);
    for (const module of change.modules) this.#modules.set(module.package, module);
    this.#config = change.config ?? this.#config;
    this.#guarded((builtin) => builtin.commit(NO_DRAIN));
    if (this.#isLarge) this.#guarded((builtin) => builtin.collectGarbage("regular"));
    if (this.#isLarge) this.#drop();
  }

  abort(generation: number): void {
    if (this.#pending?.generation !== generation) return;
    this.#pending = undefined;
    this.#guarded((builtin) => builtin.abort());
  }

  /** What serves, and has not passed this canary: the next isolate is built with it. */
  adopt({ generation, modules, config }: WrittenChange): void {
    this.#drop();
    this.#pending = undefined;
    this.#generation = generation;
    for (const module of modules) this.#modules.set(module.package, module);
    this.#config = config;
  }

  /** Collects the isolate's garbage. */
  collectGarbage(): void {
    this.#guarded((builtin) => builtin.collectGarbage());
  }

  dispose(): void {
    this.#drop();
  }

  /**
   * Loads new code of packages that the isolate has loaded before, and stand-ins for those that live in sandboxes. Answers their
   * names; all of them have to be set up again.
   */
  #load(builtin: Builtin, modules: readonly ModuleSource[], refusals: Refusal[]): string[] {
    const parked = modules.filter((module) => this.#isParked(module));
    for (const { package: name } of parked) {
      const [kind, own] = name.split("/");
      builtin.defineParked(name, 0, JSON.stringify({ kind, name: own, hooks: 0 }));
    }
    const own = modules.filter((module) => !this.#isParked(module));
    const updated = builtin.update(own, (module, error) =>
      refusals.push(refusalOf(module.package, error)),
    );
    return [...updated, ...parked.map((module) => module.package)];
  }

  /** True for a package that lives in a sandbox and is left out here. */
  #isParked(module: ModuleSource): boolean {
    return module.group !== "builtin" && this.#options.sandboxed === "left out";
  }

  #moduleOf(packageName: string, isPrepared: boolean): ModuleSource | undefined {
    const pending = isPrepared ? this.#pending : undefined;
    if (pending?.removed.includes(packageName)) return undefined;
    const changed = pending?.modules.find((module) => module.package === packageName);
    const found = changed ?? this.#modules.get(packageName);
    return found === undefined || this.#isParked(found) ? undefined : found;
  }

  /** Calls the isolate if there is one, and disposes of it if the call fails. */
  #guarded(enter: (builtin: Builtin) => void): void {
    try {
      if (this.#builtin !== undefined) enter(this.#builtin);
    } catch {
      this.#drop();
    }
  }

  get #isLarge(): boolean {
    return this.#builtin !== undefined && this.#builtin.memory > MEMORY_BYTES;
  }

  #drop(): void {
    this.#builtin?.dispose();
    this.#builtin = undefined;
  }

  /** Answers the isolate. If there is none, builds it and sets up what serves. */
  #ready(): Builtin {
    if (this.#builtin !== undefined) return this.#builtin;
    const files = new ServedFiles();
    if (this.#options.files !== undefined) files.adopt(this.#options.files);
    const services = new LocalServices(new Contexts(""), files);
    const builtin = new Builtin({
      role: "canary",
      worker: -1,
      node: this.#options.node(),
      prelude: this.#options.prelude,
      ring: createRing(RING),
      stats: new SharedArrayBuffer(STATS_BYTES),
      turns: new SharedArrayBuffer(4),
      counts: new SharedArrayBuffer(COUNTS_BYTES),
      ledger: new SharedArrayBuffer(LEDGER_BYTES),
      chunks: chunkMemory(),
      compiled: new CompiledCode(COMPILED, false),
      moduleOf: (name, isPrepared) => this.#moduleOf(name, isPrepared),
      // Calls that ask for a file or a TLS context are answered. All others are dropped: the threads will make them again.
      onCall: (name, text) => services.call(name, text),
    });
    builtin.patience = this.#patience;
    this.#builtin = builtin;
    if (this.#generation === 0) return builtin;
    const modules = [...this.#modules.values()];
    builtin.prepare({
      generation: this.#generation,
      changed: this.#load(builtin, modules, []),
      removed: [],
      config: this.#config,
    });
    builtin.commit(NO_DRAIN);
    return builtin;
  }
}

/** The changed package in whose code the isolate was stopped, by the stack; "": unknown. */
function blamed(modules: readonly ModuleSource[], error: unknown): string {
  const [only] = modules;
  if (modules.length === 1) return only!.package;
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  return modules.find(({ filename }) => stack.includes(`${filename}:`))?.package ?? "";
}
