import { Builtin } from "./builtin.ts";
import type { Change } from "./fleet.ts";
import { createRing } from "./inside/ring.ts";
import { COUNTS_BYTES, LEDGER_BYTES } from "./inside/shared-counts.ts";
import { LocalServices } from "./local-services.ts";
import type { ModuleSource, PreludeCode, Refusal, RuntimeConfig } from "./protocol.ts";
import { refusalOf } from "./refusal.ts";
import type { RehearsalStage } from "./rehearsal.ts";
import { Contexts } from "./tls.ts";
import { WrittenConfig } from "./written-config.ts";

/** Rings of a size that nothing passes through, and cells for as many stats as a config defines. */
const RING = { events: 8, commands: 8, segments: 2, slots: 2 } as const;
const STATS_BYTES = 32 * 1024 * 1024;
/** It has no connections. */
const NO_DRAIN = { ms: 0, immediate: true } as const;
/**
 * Past this it is dropped, and built anew for the next change: module versions pile up in an isolate's heap, and a config of a
 * thousand clusters need not stand there between two changes.
 */
const MEMORY_BYTES = STATS_BYTES + 24 * 1024 * 1024;

export interface CanaryOptions {
  readonly prelude: Pick<PreludeCode, "builtin" | "builtinSdk">;
  /** Who this node is, when an isolate is built. */
  readonly node: () => { readonly id: string; readonly cluster: string };
  /**
   * Packages with an isolate of their own. `left out`: the threads set them up, each in a fresh isolate with time boxes, where
   * they harm nobody before the commit. `set up`: no thread will; the canary has to find out what they say of the config.
   */
  readonly sandboxed: "left out" | "set up";
}

/**
 * An isolate on main's own thread that every change passes first: all setups run in it, and none of what they ask for takes
 * effect. What hangs or breaks it costs no traffic; it is built anew with what runs.
 */
export class Canary implements RehearsalStage {
  readonly #options: CanaryOptions;
  readonly #modules = new Map<string, ModuleSource>();
  #config: RuntimeConfig | undefined;
  #generation = 0;
  #builtin: Builtin | undefined;
  #pending: Change | undefined;

  constructor(options: CanaryOptions) {
    this.#options = options;
  }

  async prepare(change: Change): Promise<readonly Refusal[]> {
    const builtin = this.#ready();
    this.#pending = change;
    const refusals: Refusal[] = [];
    const changed = this.#load(builtin, change.modules, refusals);
    if (refusals.length > 0) return refusals;
    try {
      return builtin.prepare({
        generation: change.generation,
        changed,
        removed: change.removed,
        config: change.config && WrittenConfig.of(change.config).text(),
      });
    } catch (error) {
      // The isolate was stopped in the middle of something, or is gone.
      this.#drop();
      return [refusalOf(change.modules.length === 1 ? change.modules[0]!.package : "", error)];
    }
  }

  /** The listeners that services bring along, as they stand in the present preparation. */
  serviceListeners(): readonly unknown[] {
    return JSON.parse(this.#builtin?.serviceListeners() ?? "[]");
  }

  async extend(config: RuntimeConfig, nth: number): Promise<readonly Refusal[]> {
    const builtin = this.#builtin;
    if (this.#pending === undefined || builtin === undefined)
      throw new Error("nothing is prepared");
    try {
      const refusals = builtin.extend(WrittenConfig.of(config).listeners(nth), nth);
      this.#pending = { ...this.#pending, config };
      return refusals;
    } catch (error) {
      this.#drop();
      return [refusalOf("", error)];
    }
  }

  /** Runs a tool of a package that has been prepared. Throws what it throws. */
  tool(packageName: string, name: string, input: unknown): unknown {
    return this.#ready().tool(packageName, name, input);
  }

  async commit(generation: number): Promise<void> {
    const change = this.#pending;
    if (change?.generation !== generation) return;
    this.#pending = undefined;
    this.#generation = generation;
    for (const name of change.removed) this.#modules.delete(name);
    for (const module of change.modules) this.#modules.set(module.package, module);
    this.#config = change.config ?? this.#config;
    this.#guarded((builtin) => builtin.commit(NO_DRAIN));
    if (this.#builtin !== undefined && this.#builtin.memory > MEMORY_BYTES) this.#drop();
  }

  async abort(generation: number): Promise<void> {
    if (this.#pending?.generation !== generation) return;
    this.#pending = undefined;
    this.#guarded((builtin) => builtin.abort());
  }

  /** What serves was set up by others. */
  adopt({ generation, modules, config }: Change): void {
    this.#drop();
    this.#pending = undefined;
    this.#generation = generation;
    for (const module of modules) this.#modules.set(module.package, module);
    this.#config = config;
  }

  /** Nothing is to be tried for a while: the isolate is built anew with the next change. */
  rest(): void {
    if (this.#pending === undefined) this.#drop();
  }

  /** What changes have left behind. */
  collectGarbage(): void {
    this.#guarded((builtin) => builtin.collectGarbage());
  }

  async dispose(): Promise<void> {
    this.#drop();
  }

  /** Answers the packages that the isolate knows, and so has to set up again. */
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

  #isParked(module: ModuleSource): boolean {
    return module.group !== "builtin" && this.#options.sandboxed === "left out";
  }

  #moduleOf(packageName: string): ModuleSource | undefined {
    const pending = this.#pending;
    if (pending?.removed.includes(packageName)) return undefined;
    const changed = pending?.modules.find((module) => module.package === packageName);
    const found = changed ?? this.#modules.get(packageName);
    return found === undefined || this.#isParked(found) ? undefined : found;
  }

  #guarded(enter: (builtin: Builtin) => void): void {
    try {
      if (this.#builtin !== undefined) enter(this.#builtin);
    } catch {
      this.#drop();
    }
  }

  #drop(): void {
    this.#builtin?.dispose();
    this.#builtin = undefined;
  }

  /** The isolate, caught up with what runs. */
  #ready(): Builtin {
    if (this.#builtin !== undefined) return this.#builtin;
    const services = new LocalServices(new Contexts(""));
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
      moduleOf: (name) => this.#moduleOf(name),
      // The threads will say and ask the same; here nothing takes effect, but what is asked is answered.
      onCall: (name, text) => services.call(name, text),
    });
    this.#builtin = builtin;
    if (this.#generation === 0) return builtin;
    const modules = [...this.#modules.values()];
    builtin.prepare({
      generation: this.#generation,
      changed: this.#load(builtin, modules, []),
      removed: [],
      config: this.#config && WrittenConfig.of(this.#config).text(),
    });
    builtin.commit(NO_DRAIN);
    return builtin;
  }
}
