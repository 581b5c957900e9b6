import { hostname } from "node:os";
import type { Flavor } from "./admin/garbage.ts";
import type { CompiledCode } from "./compiled-code.ts";
import { REGEX_MODULE } from "./inside/regexes.ts";
import { WORD } from "./inside/ring.ts";
import {
  callback,
  type EntryPoint,
  Isolate,
  type LoadedModule,
  share,
  type Watchdog,
} from "./isolate.ts";
import { textOf } from "./packages/module-code.ts";
import type {
  DrainOptions,
  ModuleSource,
  PreludeCode,
  Refusal,
  SharedCode,
  WorkerStart,
} from "./protocol.ts";
import { randomBytes } from "./random.ts";

/** `memoryLimit` of the builtin isolate. The shared memory of the ring and the stats counts against it. */
const MEMORY_LIMIT_MB = 768;
/** The watchdog ends the isolate after so long in one crossing: an endless loop in a shipped package. */
const HANG_MS = 1000;
/** Time limit of the other calls into the isolate, such as setup, by the clock; and of those that carry a config of megabytes. */
const ENTRY_MS = 5000;
const LARGE_ENTRY_MS = 20_000;
const LARGE_CHARS = 1_000_000;

export interface BuiltinOptions {
  readonly role: "worker" | "control" | "canary";
  readonly worker: number;
  /** Its number (isolate-numbers.ts). Absent: it shares no cells. */
  readonly isolate?: number;
  readonly node: WorkerStart["node"];
  readonly prelude: Pick<PreludeCode, "builtin" | "builtinSdk" | "regex">;
  readonly ring: SharedArrayBuffer;
  readonly stats: SharedArrayBuffer;
  readonly turns: SharedArrayBuffer;
  readonly counts: SharedArrayBuffer;
  /** What this isolate has added to `counts`: taken off again when the isolate is lost (shared-counts.ts). */
  readonly ledger: SharedArrayBuffer;
  /** inside/line-chunks.ts */
  readonly chunks: SharedArrayBuffer;
  readonly fileFlush?: WorkerStart["fileFlush"];
  /** Number of stats cells that earlier isolates of this thread have used. */
  readonly statsFrom?: number;
  /** What V8 has made of the prelude and of packages in earlier starts. */
  readonly compiled: CompiledCode;
  /** Ends the isolate when it hangs. Absent: nothing does. */
  readonly watchdog?: Watchdog;
  /** Code of a package: as it runs, or `isPrepared`, of the change that is being prepared, if there is one. */
  readonly moduleOf: (packageName: string, isPrepared: boolean) => ModuleSource | undefined;
  /** Called for a package that belongs into a sandbox: makes its box and calls `defineParked`. Absent: all are loaded here. */
  readonly park?: (module: ModuleSource, isPrepared: boolean) => void;
  /** Calls from the isolate, as a name and a text, JSON except for those of lines and bytes. A call that asks for something returns the answer. */
  readonly onCall: (name: string, text: string) => string | void;
}

/** A package, or REGEX_MODULE, that the isolate needs: as of `moduleOf`. */
interface Demand {
  readonly name: string;
  readonly isPrepared: boolean;
}

/** What the builtin isolate needs to enter a sandbox directly (inside/gate.ts). */
export interface GateShares {
  readonly block: SharedArrayBuffer;
  /** The gate's words, by index of GATE. */
  readonly state: SharedArrayBuffer;
  readonly beats: SharedArrayBuffer;
  readonly insideAt: number;
  readonly turnsAt: number;
  /** A reference to the sandbox's function `run`. */
  readonly run: unknown;
}

/**
 * The isolate of the shipped packages, with core's prelude (core/inside) in it. A package is loaded when a config or another package
 * first names it; most configs name a third of all.
 */
export class Builtin {
  readonly #moduleOf: BuiltinOptions["moduleOf"];
  readonly #regex: SharedCode;
  readonly #park: BuiltinOptions["park"];
  /** By package: the hash of the code loaded last; "" for a package that lives in a sandbox. */
  readonly #loaded = new Map<string, string>();
  readonly #isolate: Isolate;
  readonly #prelude: LoadedModule;
  readonly #watch: () => number | undefined;
  readonly #watchdog: Watchdog | undefined;
  #watched: number | undefined;
  #patience = 1;
  readonly #clock: Float64Array;
  readonly #entries = new Map<string, EntryPoint>();
  readonly run: (events: number) => number;
  /** See BuiltinOptions.isolate. */
  readonly number: number;

  constructor(options: BuiltinOptions) {
    this.#moduleOf = options.moduleOf;
    this.#regex = options.prelude.regex;
    this.#park = options.park;
    this.number = options.isolate ?? 1;
    this.#isolate = new Isolate({
      memoryLimitMb: MEMORY_LIMIT_MB,
      sdk: textOf({ code: options.prelude.builtinSdk }),
      compiled: options.compiled,
    });
    this.#prelude = this.#isolate.loadOwn(
      "tsproxy:inside",
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
      share(options.chunks),
      callback((name, text) =>
        name === "module" ? this.#demand(JSON.parse(text)) : options.onCall(name, text),
      ),
      JSON.stringify({
        role,
        worker,
        node,
        hostname: hostname(),
        environment: process.env,
        fileFlush: options.fileFlush,
        statsFrom: options.statsFrom,
        isolate: this.number,
        seed: randomBytes(32).toString("latin1"),
      }),
    );
    this.run = this.#prelude.numberEntry("run");
    const { watchdog, ring } = options;
    this.#watchdog = watchdog;
    this.#watch = () => watchdog?.watch(this.#isolate, ring, WORD.BEAT, HANG_MS);
    this.#watched = this.#watch();
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
  /** The thread has to wait at its next entry until the snapshot is made; the watchdog must not take that for a hang. */
  async heapSnapshot(): Promise<string> {
    this.#unwatch();
    try {
      return await this.#isolate.heapSnapshot();
    } finally {
      if (!this.disposed) this.#watched = this.#watch();
    }
  }

  #unwatch(): void {
    if (this.#watched !== undefined) this.#watchdog?.unwatch(this.#watched);
    this.#watched = undefined;
  }

  /** From now on calls may take so many times as long as usual. */
  set patience(patience: number) {
    this.#patience = patience;
    this.#entries.clear();
  }

  #enter(name: string, ...args: unknown[]): unknown {
    this.#clock[0] = performance.now();
    let entry = this.#entries.get(name);
    if (entry === undefined) {
      entry = this.#prelude.entry(name, ENTRY_MS * this.#patience);
      this.#entries.set(name, entry);
    }
    return entry(...args);
  }

  #enterLarge(name: string, ...args: unknown[]): unknown {
    this.#clock[0] = performance.now();
    return this.#prelude.entry(name, LARGE_ENTRY_MS * this.#patience)(...args);
  }

  /** Loads new code of packages that are loaded already; it is used from the next preparation on. Answers their names. */
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

  /** True once the package has been named, and so loaded or parked. */
  knows(packageName: string): boolean {
    return this.#loaded.has(packageName);
  }

  #load(module: ModuleSource): void {
    if (this.#loaded.get(module.package) === module.hash) return;
    const { package: name, filename } = module;
    const timeoutMs = ENTRY_MS * this.#patience;
    const text = { code: textOf(module), filename };
    const loaded = module.isShipped
      ? this.#isolate.loadOwn(name, text, timeoutMs)
      : this.#isolate.load(text, timeoutMs);
    this.#enter("define", module.package, loaded.namespace);
    loaded.release();
    this.#loaded.set(module.package, module.hash);
  }

  #loadRegexes(): void {
    const text = { code: textOf({ code: this.#regex }), filename: REGEX_MODULE };
    const loaded = this.#isolate.loadOwn(REGEX_MODULE, text, ENTRY_MS * this.#patience);
    this.#enter("defineRegexes", loaded.namespace);
    loaded.release();
  }

  /** The isolate needs this package, or REGEX_MODULE, now. Answers what went wrong, or "". */
  #demand({ name, isPrepared }: Demand): string {
    try {
      if (name === REGEX_MODULE) {
        this.#loadRegexes();
        return "";
      }
      const module = this.#moduleOf(name, isPrepared);
      if (module === undefined) return "";
      if (module.group === "builtin" || this.#park === undefined) this.#load(module);
      else this.#park(module, isPrepared);
      return "";
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Defines a stand-in for a package that lives in a sandbox. `description`: JSON of a ParkedDescription. */
  defineParked(packageName: string, box: number, description: string): void {
    this.#loaded.set(packageName, "");
    this.#enter("defineParked", packageName, box, description);
  }

  /** From now on the isolate may enter that box directly, while the words in `gate.state` allow it. */
  openGate(box: number, gate: GateShares): void {
    const { block, state, beats, insideAt, turnsAt, run } = gate;
    this.#enter("openGate", box, share(block), share(state), share(beats), insideAt, turnsAt, run);
  }
  closeGate(box: number): void {
    this.#enter("closeGate", box);
  }

  prepare(change: {
    readonly generation: number;
    readonly changed: readonly string[];
    readonly removed: readonly string[];
    /** The canary has set this change up without a refusal. Absent: true. */
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

  /** Adds the listeners that services bring along to the preparation. `listeners`: their JSON; `nth`: how many the config has. */
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
  /** JSON of the listeners that services bring along (the admin's, for one). */
  serviceListeners(): string {
    return this.#enter("serviceListeners") as string;
  }
  reply(call: number, value: unknown, error: string | undefined): void {
    this.#enter("onReply", JSON.stringify({ call, value: value ?? null, error }));
  }
  /** The filters of a sandboxed use read only these parts of their streams: the rest need not be sent. */
  narrow(use: number, mask: number): void {
    this.#enter("narrow", use, mask);
  }
  /** That account of a sandboxed package keeps away from the package's gate (true), or may use it again. */
  confine(use: number, part: number, isConfined: boolean): void {
    this.#enter("confine", use, part, isConfined);
  }
  learnPolicy(use: number, told: string): void {
    this.#enter("learnPolicy", use, told);
  }
  /** A sandboxed filter calls a cluster. `bytes`: the body, one char a byte. */
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
  /** Writes what access logs have gathered. Answers how many entries still wait to be sent to sandboxed loggers. */
  flushFiles(): number {
    return this.#enter("flushFiles") as number;
  }

  dispose(): void {
    this.#unwatch();
    this.#isolate.dispose();
  }
}
