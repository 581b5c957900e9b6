import { COLLECTOR, type Flavor, findCollector } from "./admin/garbage.ts";
import type { CompiledCode, NamedScript } from "./compiled-code.ts";
import { setIsolateFlags } from "./isolate-flags.ts";
import { isolatedVm } from "./own-files.ts";
import { moduleFunction } from "./packages/module-function.ts";
import { clockMs, lateBy, silence } from "./process/thread-cpu.ts";
import { BEAT } from "./protocol.ts";

/** isolated-vm, as far as the builtin isolate, the canary and the describer need it. Text, shared memory and numbers go in. */
const ivm = isolatedVm() as Ivm;

interface Ivm {
  readonly Isolate: new (options: {
    memoryLimit: number;
    inspector?: boolean;
    onCatastrophicError?: () => void;
  }) => IvmIsolate;
  readonly ExternalCopy: new (
    value: unknown,
    options?: { transferOut: true },
  ) => { copyInto(): unknown };
  readonly Callback: new (
    f: (...args: string[]) => unknown,
    options?: { sync?: boolean; ignored?: boolean },
  ) => unknown;
}
interface IvmIsolate {
  readonly isDisposed: boolean;
  readonly cpuTime: bigint;
  createContextSync(): IvmContext;
  createInspectorSession(): IvmSession;
  getHeapStatistics(): Promise<unknown>;
  compileModuleSync(code: string, options: { filename: string }): IvmModule;
  compileScriptSync(code: string, options: ScriptOptions): IvmScript;
  compileScript(code: string, options: ScriptOptions): Promise<IvmScript>;
  getHeapStatisticsSync(): { used_heap_size: number; externally_allocated_size: number };
  dispose(): void;
}
interface ScriptOptions {
  readonly filename: string;
  readonly lineOffset: number;
  /** An ExternalCopy. */
  readonly cachedData?: unknown;
  readonly produceCachedData?: true;
}
interface IvmScript {
  readonly cachedData?: { copy(): ArrayBuffer };
  readonly cachedDataRejected?: boolean;
  runSync(context: IvmContext, options: { reference: true }): IvmReference;
  release(): void;
}
interface IvmSession {
  onNotification: (message: string) => void;
  onResponse: (call: number, message: string) => void;
  dispatchProtocolMessage(message: string): void;
  dispose(): void;
}
interface IvmContext {
  readonly global: { setSync(name: string, value: unknown): void; deleteSync(name: string): void };
  evalSync(code: string, options: { reference: true }): IvmReference;
  release(): void;
}
interface IvmModule {
  release(): void;
  readonly namespace: IvmReference;
  instantiateSync(context: IvmContext, resolve: (specifier: string) => IvmModule): void;
  evaluateSync(options?: { timeout?: number }): void;
}
interface IvmReference {
  readonly typeof: string;
  getSync(name: string, options: { reference: true }): IvmReference;
  applySync(receiver: undefined, args: readonly unknown[], options?: { timeout?: number }): unknown;
  applySync(
    receiver: undefined,
    args: readonly unknown[],
    options: { timeout?: number; result: { reference: true } },
  ): IvmReference;
  apply(receiver: undefined, args: readonly unknown[]): Promise<unknown>;
  derefInto(): unknown;
  release(): void;
}

export interface ModuleText {
  readonly code: string;
  readonly filename: string;
}

/** A function inside an isolate. Arguments and result are numbers, strings, or what `share` and `callback` made. */
export type EntryPoint = (...args: readonly unknown[]) => unknown;

/** A module's function (module-function.ts) begins on the line before the module. */
const LINE_OFFSET = -1;
/** The global variable that holds the SDK while its module is made. */
const SDK = "tsproxy:sdk";

/** Memory limit of an isolate that compiles one script after the other. */
const COMPILE_MB = 128;

export interface IsolateOptions {
  readonly memoryLimitMb: number;
  /** Code of the SDK. */
  readonly sdk: string;
  /** What V8 has made of our own modules. Absent: they are compiled. */
  readonly compiled?: CompiledCode;
}

/** An isolate with the SDK. Its modules can import the SDK, and nothing else. */
export class Isolate {
  readonly #isolate: IvmIsolate;
  readonly #context: IvmContext;
  readonly #compiled: CompiledCode | undefined;
  readonly #sdk: IvmReference;
  /** Names of the SDK's exports, as one text: each by itself is a part of the SDK's code to V8, and would keep all of it (250 KiB). */
  readonly #sdkExports: string;
  #sdkModule: IvmModule | undefined;

  constructor({ memoryLimitMb, sdk, compiled }: IsolateOptions) {
    setIsolateFlags();
    // For heap snapshots. An entry takes 1.17 µs with it, 1.16 without.
    this.#isolate = new ivm.Isolate({ memoryLimit: memoryLimitMb, inspector: true });
    this.#context = this.#isolate.createContextSync();
    this.#compiled = compiled;
    const { code, exports } = moduleFunction(sdk)!;
    this.#sdkExports = exports.join(", ");
    this.#sdk = this.#run({ name: SDK, code, filename: "@tsproxy/sdk" }, [], undefined);
  }

  get disposed(): boolean {
    return this.#isolate.isDisposed;
  }

  /** Compiles a module, links it to the SDK and evaluates it. Throws what the module throws. `timeoutMs` bounds its top level. */
  load(module: ModuleText, timeoutMs = 5000): LoadedModule {
    this.#sdkModule ??= this.#moduleOfSdk();
    const loaded = this.#link(module, this.#sdkModule, timeoutMs);
    return new LoadedModule(loaded.namespace, loaded);
  }

  /**
   * As `load`, for core's own modules and shipped packages: takes their compiled form if there is one. `name`: of the module in all its
   * versions.
   */
  loadOwn(name: string, module: ModuleText, timeoutMs = 5000): LoadedModule {
    const made = moduleFunction(module.code);
    if (made === undefined) return this.load(module, timeoutMs);
    const { filename } = module;
    const args = [this.#sdk.derefInto()];
    return new LoadedModule(this.#run({ name, code: made.code, filename }, args, timeoutMs));
  }

  /** Calls a module's function. `timeoutMs` undefined: no limit: a machine that stands still for a while must not prevent a start. */
  #run(script: NamedScript, args: readonly unknown[], timeoutMs: number | undefined): IvmReference {
    const { code, filename } = script;
    const found = this.#compiled?.find(script);
    const compiled = this.#isolate.compileScriptSync(code, {
      filename,
      lineOffset: LINE_OFFSET,
      ...(found && { cachedData: new ivm.ExternalCopy(found, { transferOut: true }) }),
    });
    if (compiled.cachedDataRejected) this.#compiled?.forget(script);
    const make = compiled.runSync(this.#context, { reference: true });
    try {
      return make.applySync(undefined, args, {
        ...(timeoutMs !== undefined && { timeout: timeoutMs }),
        result: { reference: true },
      });
    } finally {
      make.release();
      compiled.release();
    }
  }

  /** A module with the SDK's exports: few isolates load any that import it. */
  #moduleOfSdk(): IvmModule {
    const { global } = this.#context;
    global.setSync(SDK, this.#sdk.derefInto());
    const code = `export const { ${this.#sdkExports} } = globalThis["${SDK}"];`;
    const module = this.#link({ code, filename: "@tsproxy/sdk" }, undefined, undefined);
    global.deleteSync(SDK);
    return module;
  }

  #link(module: ModuleText, sdk: IvmModule | undefined, timeoutMs: number | undefined): IvmModule {
    const compiled = this.#isolate.compileModuleSync(module.code, { filename: module.filename });
    compiled.instantiateSync(this.#context, (specifier) => {
      if (specifier === "@tsproxy/sdk" && sdk !== undefined) return sdk;
      throw new Error(`cannot import "${specifier}": filters see the SDK and their own files`);
    });
    compiled.evaluateSync(timeoutMs === undefined ? {} : { timeout: timeoutMs });
    return compiled;
  }

  /** Bytes of heap and of shared or external memory. */
  get memory(): number {
    const statistics = this.#isolate.getHeapStatisticsSync();
    return statistics.used_heap_size + statistics.externally_allocated_size;
  }

  /** Collects its garbage. */
  collectGarbage(flavor: Flavor = "last-resort"): void {
    collectGarbageOf(this.#isolate, flavor);
  }

  /**
   * A heap snapshot, as DevTools opens it. Nothing else can enter the isolate until it has been made: 8 s for a million objects.
   * Rejects if it has more than `most` chars.
   */
  async heapSnapshot(most = SNAPSHOT_CHARS): Promise<string> {
    const session = this.#isolate.createInspectorSession();
    const pieces: string[] = [];
    let size = 0;
    session.onNotification = (message) => {
      const { method, params } = JSON.parse(message) as HeapMessage;
      if (method !== "HeapProfiler.addHeapSnapshotChunk") return;
      size += params.chunk.length;
      if (size <= most) pieces.push(params.chunk);
    };
    await new Promise<void>((resolve) => {
      session.onResponse = () => resolve();
      session.dispatchProtocolMessage('{"id":1,"method":"HeapProfiler.takeHeapSnapshot"}');
    });
    // The inspector calls a session once more after its last response, on the isolate's thread, and aborts the process if it is
    // gone by then. A call into the isolate waits until that is over.
    await this.#isolate.getHeapStatistics();
    session.dispose();
    if (size > most) throw new Error(`the heap snapshot is larger than ${most >> 20} MiB`);
    return pieces.join("");
  }

  /** A reference to the isolate, for a watchdog. */
  get handle(): unknown {
    return this.#isolate;
  }

  dispose(): void {
    if (!this.#isolate.isDisposed) this.#isolate.dispose();
  }
}

/** V8's strings have 2^29 chars at most. */
const SNAPSHOT_CHARS = 500 * 1024 * 1024;

interface HeapMessage {
  readonly method: string;
  readonly params: { readonly chunk: string };
}

/** Evaluated in a context of its own, so that modules of the isolate see no `gc`. */
function collectGarbageOf(isolate: IvmIsolate, flavor: Flavor): void {
  const collector = findCollector(() => {
    const context = isolate.createContextSync();
    const found = context.evalSync(COLLECTOR, { reference: true });
    context.release();
    return found.typeof === "function" ? found : undefined;
  });
  collector?.applySync(undefined, [flavor]);
  collector?.release();
}

export class LoadedModule {
  readonly #exports: IvmReference;
  readonly #module: IvmModule | undefined;

  /** `module`: absent for one that was run as a function. */
  constructor(exports: IvmReference, module?: IvmModule) {
    this.#exports = exports;
    this.#module = module;
  }

  /**
   * Called when core needs the module no more: what the isolate does not use of it can be collected. Without this call all of it
   * stays until this thread's own collector finds the handle.
   */
  release(): void {
    this.#exports.release();
    this.#module?.release();
  }

  /** Its exports, as an argument for a function of the same isolate. */
  get namespace(): unknown {
    return this.#exports.derefInto();
  }

  /** An exported function. `timeoutMs` bounds each call and costs about 1 µs; 0: no limit. */
  entry(name: string, timeoutMs = 0): EntryPoint {
    const reference = this.#exports.getSync(name, { reference: true });
    if (timeoutMs === 0) return (...args) => reference.applySync(undefined, args);
    const options = { timeout: timeoutMs };
    return (...args) => reference.applySync(undefined, args, options);
  }

  /** As `entry`, for a function of one number that answers a number; the fastest way in. */
  numberEntry(name: string): (n: number) => number {
    const reference = this.#exports.getSync(name, { reference: true });
    const args = [0];
    return (n) => {
      args[0] = n;
      return reference.applySync(undefined, args) as number;
    };
  }
}

/** Compiles modules' functions for CompiledCode, in an isolate of their own, on another thread. */
export async function* compileScripts(
  scripts: readonly NamedScript[],
): AsyncGenerator<ArrayBuffer> {
  setIsolateFlags();
  const isolate = new ivm.Isolate({ memoryLimit: COMPILE_MB });
  try {
    for (const { code, filename } of scripts) {
      const script = await isolate.compileScript(code, {
        filename,
        lineOffset: LINE_OFFSET,
        produceCachedData: true,
      });
      yield script.cachedData!.copy();
      script.release();
    }
  } finally {
    isolate.dispose();
  }
}

/** Makes an argument of shared memory. */
export function share(memory: SharedArrayBuffer): unknown {
  return new ivm.ExternalCopy(memory).copyInto();
}

/** Makes an argument of a function of core: it is called synchronously with strings, and answers a string or nothing. */
export function callback(f: (...args: string[]) => string | void): unknown {
  return new ivm.Callback(f, { sync: true });
}

/** Words of a watchdog's control memory: the number of changes asked for; 1 once it is to end. */
const CHANGES = 0;
const END = 1;
/** Least milliseconds between two looks at a target. */
const STEP_MIN_MS = 10;
/** And most, as a thread may be told to be stricter (BEAT.MOST_MS) while its watchdog sleeps. */
const STEP_MAX_MS = 125;
const WATCH = `
const silence = ${silence};
const clockMs = ${clockMs};
const lateBy = ${lateBy};
const control = new Int32Array(controlMemory);
const thread = new Int32Array(threadMemory);
const targets = new Map();
let seen = 0;
globalThis.watch = (id, isolate, memory, beat, limitMs) => {
  targets.set(id, { isolate, words: new Int32Array(memory), beat, limitMs, last: -1, since: 0, cpu: 0, late: 0 });
  seen++;
};
globalThis.unwatch = (id) => { targets.delete(id); seen++; };
globalThis.run = () => {
  let step = ${STEP_MAX_MS};
  for (const { limitMs } of targets.values()) step = Math.min(step, Math.max(${STEP_MIN_MS}, limitMs >> 2));
  while (targets.size > 0 && Atomics.load(control, ${CHANGES}) === seen && Atomics.load(control, ${END}) === 0) {
    if (Atomics.wait(control, ${CHANGES}, seen, step) !== "timed-out") continue;
    for (const [id, target] of targets) {
      const now = Atomics.load(target.words, target.beat);
      const cpu = Atomics.load(thread, ${BEAT.CPU_MS});
      const isInside = (now & 1) === 1 && now === target.last;
      target.since = isInside ? target.since + step : 0;
      // What it had before it went inside: all that was sampled then, and perhaps all of the time since that sample.
      if (!isInside || target.cpu === 0) {
        target.cpu = cpu;
        target.late = lateBy(Atomics.load(thread, ${BEAT.SAMPLED}), clockMs());
      }
      target.last = now;
      const mostMs = Atomics.load(thread, ${BEAT.MOST_MS});
      const limitMs = mostMs === 0 ? target.limitMs : Math.min(target.limitMs, mostMs);
      const isKnown = Atomics.load(thread, ${BEAT.THREAD}) !== 0;
      const used = Math.max(0, cpu - target.cpu - target.late);
      if ((isKnown ? silence(target.since, used) : target.since) < limitMs) continue;
      targets.delete(id);
      target.isolate.dispose();
    }
  }
};`;

/**
 * Disposes of isolates that stay inside one call longer than they may. It runs on a thread of isolated-vm's pool, so it works
 * while this thread hangs; one serves all isolates of a thread. Time in which the thread waited for a CPU does not count, as far
 * as the thread's beat words tell.
 */
export class Watchdog {
  readonly #control = new Int32Array(new SharedArrayBuffer(8));
  readonly #isolate: IvmIsolate;
  readonly #entries: Readonly<Record<"watch" | "unwatch" | "run", IvmReference>>;
  #nextId = 1;
  #ended: Promise<unknown> = Promise.resolve();

  constructor(beat = new SharedArrayBuffer((BEAT.SAMPLED + 1) * 4)) {
    setIsolateFlags();
    this.#isolate = new ivm.Isolate({ memoryLimit: 64 });
    const context = this.#isolate.createContextSync();
    context.global.setSync("threadMemory", share(beat));
    context.global.setSync("controlMemory", share(this.#control.buffer as SharedArrayBuffer));
    const entry = (name: string) => context.evalSync(name, { reference: true });
    context.evalSync(WATCH, { reference: true });
    this.#entries = { watch: entry("watch"), unwatch: entry("unwatch"), run: entry("run") };
  }

  /** `beat`: index of a word of `memory` that is odd during a call and changes with each. Answers a key for `unwatch`. */
  watch(
    target: { readonly handle: unknown },
    memory: SharedArrayBuffer,
    beat: number,
    limitMs: number,
  ): number {
    const id = this.#nextId++;
    this.#change("watch", [id, target.handle, share(memory), beat, limitMs]);
    return id;
  }

  unwatch(id: number): void {
    this.#change("unwatch", [id]);
  }

  /** Ends the present run of the watchdog, makes the change in its isolate, and starts the next run. */
  #change(name: "watch" | "unwatch", args: readonly unknown[]): void {
    if (this.#isolate.isDisposed) return;
    this.#interrupt();
    this.#resume(name, args);
  }

  #interrupt(): void {
    Atomics.add(this.#control, CHANGES, 1);
    Atomics.notify(this.#control, CHANGES);
  }
  #resume(name: "watch" | "unwatch", args: readonly unknown[]): void {
    this.#entries[name].apply(undefined, args).catch(() => {});
    this.#ended = this.#entries.run.apply(undefined, []).catch(() => {});
  }

  /** Collects the garbage of the watchdog's isolate, which keeps the memory of targets that are gone; V8 would not by itself. */
  collectGarbage(): void {
    if (this.#isolate.isDisposed) return;
    this.#interrupt();
    collectGarbageOf(this.#isolate, "last-resort");
    // No target has that key: the call only ends the present run.
    this.#resume("unwatch", [0]);
  }

  /** Must have settled before the process exits, which a sleeping isolate would prevent. */
  async stop(): Promise<void> {
    Atomics.store(this.#control, END, 1);
    Atomics.notify(this.#control, CHANGES);
    await this.#ended;
    if (!this.#isolate.isDisposed) this.#isolate.dispose();
  }
}
