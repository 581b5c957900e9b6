import { randomBytes, randomInt } from "node:crypto";
import { hostname } from "node:os";
import type { Flavor } from "./garbage.ts";
import { WORD } from "./inside/ring.ts";
import {
  callback,
  type EntryPoint,
  Isolate,
  type LoadedModule,
  share,
  type Watchdog,
} from "./isolate.ts";
import { textOf } from "./module-code.ts";
import type { DrainOptions, ModuleSource, PreludeCode, Refusal, WorkerStart } from "./protocol.ts";

/** `memoryLimit` of the builtin isolate; the ring and the stats count against it. */
const MEMORY_LIMIT_MB = 768;
/** `while (true)` in a shipped package ends here. */
const HANG_MS = 1000;
/** Setting up may take longer, and that of a config of megabytes longer still. */
const ENTRY_MS = 5000;
const LARGE_ENTRY_MS = 20_000;
const LARGE_CHARS = 1_000_000;

export interface BuiltinOptions {
  readonly role: "worker" | "control" | "canary";
  readonly worker: number;
  readonly node: WorkerStart["node"];
  readonly prelude: Pick<PreludeCode, "builtin" | "builtinSdk">;
  readonly ring: SharedArrayBuffer;
  readonly stats: SharedArrayBuffer;
  readonly turns: SharedArrayBuffer;
  readonly counts: SharedArrayBuffer;
  /** What this isolate holds of the counts; whoever outlives it gives that back. */
  readonly ledger: SharedArrayBuffer;
  readonly fileFlushMs?: number | undefined;
  /** Cells of stats that isolates before this one have used. */
  readonly statsFrom?: number;
  /** Ends it when it hangs; without one, nobody does. */
  readonly watchdog?: Watchdog;
  /** Code of a package, as it is or, while a change is prepared, is to be. */
  readonly moduleOf: (packageName: string) => ModuleSource | undefined;
  /** Gives one with an isolate of its own a place there, and defines it here (`defineParked`). Absent: all are loaded here. */
  readonly park?: (module: ModuleSource) => void;
  /** Calls of the isolate: name and text (JSON, but for "append"). Those that ask for something get their answer at once. */
  readonly onCall: (name: string, text: string) => string | void;
}

/** What a sandbox shares with the chain that may enter it. */
export interface GateShares {
  readonly block: SharedArrayBuffer;
  /** Words by GATE. */
  readonly state: SharedArrayBuffer;
  readonly beats: SharedArrayBuffer;
  readonly insideAt: number;
  /** A reference to its `run`. */
  readonly run: unknown;
}

/**
 * The isolate of the shipped packages, with core's prelude in it. A package is loaded when a config, or another package, first names
 * it: most configs name a third of them.
 */
export class Builtin {
  readonly #moduleOf: BuiltinOptions["moduleOf"];
  readonly #park: BuiltinOptions["park"];
  /** Hash of the code that was last loaded, by package; "" for one that lives in a sandbox. */
  readonly #loaded = new Map<string, string>();
  readonly #isolate: Isolate;
  readonly #prelude: LoadedModule;
  readonly #unwatch: () => void;
  readonly #clock: Float64Array;
  readonly #entries = new Map<string, EntryPoint>();
  readonly run: (events: number) => number;

  constructor(options: BuiltinOptions) {
    this.#moduleOf = options.moduleOf;
    this.#park = options.park;
    this.#isolate = new Isolate({
      memoryLimitMb: MEMORY_LIMIT_MB,
      sdk: textOf({ code: options.prelude.builtinSdk }),
    });
    this.#prelude = this.#isolate.load(
      { code: textOf({ code: options.prelude.builtin }), filename: "tsproxy:inside" },
      10_000,
    );
    this.#clock = new Float64Array(options.ring, WORD.NOW * 4, 1);
    const { role, worker, node } = options;
    this.#enter(
      "init",
      share(options.ring),
      share(options.stats),
      share(options.turns),
      share(options.counts),
      share(options.ledger),
      callback((name, text) =>
        name === "module" ? this.#demand(JSON.parse(text)) : options.onCall(name, text),
      ),
      JSON.stringify({
        role,
        worker,
        node,
        hostname: hostname(),
        environment: process.env,
        fileFlushMs: options.fileFlushMs,
        statsFrom: options.statsFrom,
        isolate: randomInt(2 ** 31),
        seed: randomBytes(32).toString("latin1"),
      }),
    );
    this.run = this.#prelude.numberEntry("run");
    const { watchdog } = options;
    const watched = watchdog?.watch(this.#isolate, options.ring, WORD.BEAT, HANG_MS);
    this.#unwatch = () => watched !== undefined && watchdog?.unwatch(watched);
  }

  get memory(): number {
    return this.#isolate.memory;
  }
  get disposed(): boolean {
    return this.#isolate.disposed;
  }
  collectGarbage(flavor?: Flavor): void {
    this.#isolate.collectGarbage(flavor);
  }

  #enter(name: string, ...args: unknown[]): unknown {
    this.#clock[0] = performance.now();
    let entry = this.#entries.get(name);
    if (entry === undefined) {
      entry = this.#prelude.entry(name, ENTRY_MS);
      this.#entries.set(name, entry);
    }
    return entry(...args);
  }

  #enterLarge(name: string, ...args: unknown[]): unknown {
    this.#clock[0] = performance.now();
    return this.#prelude.entry(name, LARGE_ENTRY_MS)(...args);
  }

  /** New code of packages that are loaded already goes beside what they have. Throws what it throws. Answers whose code that is. */
  update(
    modules: readonly ModuleSource[],
    onError: (module: ModuleSource, error: unknown) => void,
  ): string[] {
    const updated: string[] = [];
    for (const module of modules) {
      if (!this.#loaded.has(module.package)) continue;
      updated.push(module.package);
      try {
        this.#load(module);
      } catch (error) {
        onError(module, error);
      }
    }
    return updated;
  }

  /** Somebody has named that package. */
  knows(packageName: string): boolean {
    return this.#loaded.has(packageName);
  }

  #load(module: ModuleSource): void {
    if (this.#loaded.get(module.package) === module.hash) return;
    const loaded = this.#isolate.load({ code: textOf(module), filename: module.filename });
    this.#enter("define", module.package, loaded.namespace);
    loaded.release();
    this.#loaded.set(module.package, module.hash);
  }

  /** Called from within: what went wrong. */
  #demand(packageName: string): string {
    const module = this.#moduleOf(packageName);
    if (module === undefined) return "";
    try {
      if (module.group === "builtin" || this.#park === undefined) this.#load(module);
      else this.#park(module);
      return "";
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** A package that lives in a sandbox: a stand-in for it takes its places in chains. */
  defineParked(packageName: string, box: number, description: string): void {
    this.#loaded.set(packageName, "");
    this.#enter("defineParked", packageName, box, description);
  }

  /** The chain may enter that box by itself, as far as `gate.state` says. */
  openGate(box: number, gate: GateShares): void {
    const { block, state, beats, insideAt, run } = gate;
    this.#enter("openGate", box, share(block), share(state), share(beats), insideAt, run);
  }
  closeGate(box: number): void {
    this.#enter("closeGate", box);
  }

  prepare(change: {
    readonly generation: number;
    readonly changed: readonly string[];
    readonly removed: readonly string[];
    /** The canary has set it up before. Absent: so it is, or this is the canary. */
    readonly rehearsed?: boolean;
    /** JSON of a RuntimeConfig. */
    readonly config: string | undefined;
  }): readonly Refusal[] {
    const { config = "", ...rest } = change;
    for (const name of change.removed) this.#loaded.delete(name);
    const args = [JSON.stringify(rest), config] as const;
    const refusals =
      config.length > LARGE_CHARS
        ? this.#enterLarge("prepare", ...args)
        : this.#enter("prepare", ...args);
    return JSON.parse(refusals as string) as Refusal[];
  }

  /** `listeners`: JSON of those that services bring along, which are the nth and following of the config. */
  extend(listeners: string, nth: number): readonly Refusal[] {
    return JSON.parse(this.#enter("extend", listeners, nth) as string) as Refusal[];
  }

  commit(drain: DrainOptions): void {
    this.#enter("commit", JSON.stringify(drain));
  }
  abort(): void {
    this.#enter("abort");
  }
  tool(packageName: string, name: string, input: unknown): unknown {
    return JSON.parse(this.#enter("tool", packageName, name, JSON.stringify(input)) as string);
  }
  /** JSON of the listeners that services bring along. */
  serviceListeners(): string {
    return this.#enter("serviceListeners") as string;
  }
  reply(call: number, value: unknown, error: string | undefined): void {
    this.#enter("onReply", JSON.stringify({ call, value: value ?? null, error }));
  }
  /** Filters of a sandboxed use read no more than these parts of their streams. */
  narrow(use: number, mask: number): void {
    this.#enter("narrow", use, mask);
  }
  learnPolicy(use: number, told: string): void {
    this.#enter("learnPolicy", use, told);
  }
  /** `bytes`: one char each. */
  fetch(box: number, text: string, bytes: string): void {
    this.#enter("fetch", box, text, bytes);
  }
  /** `text`: JSON of the value. */
  publish(topic: string, text: string): void {
    this.#enter("onPublished", topic, text);
  }
  drain(): void {
    this.#enter("drain");
  }
  drainListeners(names: readonly string[], drain: DrainOptions): void {
    this.#enter("drainListeners", JSON.stringify(names), JSON.stringify(drain));
  }
  get activeConnections(): number {
    return this.#enter("activeConnections") as number;
  }
  /** Answers how many entries of access logs are still to go over to sandboxes: a turn later there are fewer. */
  flushFiles(): number {
    return this.#enter("flushFiles") as number;
  }

  dispose(): void {
    this.#unwatch();
    this.#isolate.dispose();
  }
}
