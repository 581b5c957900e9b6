import { createRequire } from "node:module";

/** The only module that knows isolated-vm (its types stay here as well). What goes in: module text, shared memory, numbers and strings. */
const ivm = createRequire(import.meta.url)("isolated-vm") as Ivm;

interface Ivm {
  readonly Isolate: new (options: {
    memoryLimit: number;
    onCatastrophicError?: () => void;
  }) => IvmIsolate;
  readonly ExternalCopy: new (value: unknown) => { copyInto(): unknown };
  readonly Callback: new (
    f: (...args: string[]) => unknown,
    options?: { sync?: boolean; ignored?: boolean },
  ) => unknown;
}
interface IvmIsolate {
  readonly isDisposed: boolean;
  readonly cpuTime: bigint;
  createContextSync(): IvmContext;
  compileModuleSync(code: string, options: { filename: string }): IvmModule;
  getHeapStatisticsSync(): { used_heap_size: number; externally_allocated_size: number };
  dispose(): void;
}
interface IvmContext {
  readonly global: { setSync(name: string, value: unknown): void };
  evalSync(code: string, options: { reference: true }): IvmReference;
}
interface IvmModule {
  readonly namespace: IvmReference & {
    getSync(name: string, options: { reference: true }): IvmReference;
  };
  instantiateSync(context: IvmContext, resolve: (specifier: string) => IvmModule): void;
  evaluateSync(options?: { timeout: number }): void;
}
interface IvmReference {
  applySync(receiver: undefined, args: readonly unknown[], options?: { timeout?: number }): unknown;
  apply(receiver: undefined, args: readonly unknown[]): Promise<unknown>;
  derefInto(): unknown;
}

export interface ModuleText {
  readonly code: string;
  readonly filename: string;
}

/** A function inside an isolate. Arguments and result are numbers, strings, or what `share` and `callback` made. */
export type EntryPoint = (...args: readonly unknown[]) => unknown;

/** An isolate with the SDK in it; modules see nothing but it and each other's exports that core passes on. */
export class Isolate {
  readonly #isolate: IvmIsolate;
  readonly #context: IvmContext;
  readonly #sdk: IvmModule;

  constructor(options: { readonly memoryLimitMb: number; readonly sdk: string }) {
    this.#isolate = new ivm.Isolate({ memoryLimit: options.memoryLimitMb });
    this.#context = this.#isolate.createContextSync();
    this.#sdk = this.#link({ code: options.sdk, filename: "@tsproxy/sdk" });
  }

  get disposed(): boolean {
    return this.#isolate.isDisposed;
  }

  /** Compiles, links to the SDK and evaluates. Throws what the module throws; `timeoutMs` bounds its top level. */
  load(module: ModuleText, timeoutMs = 1000): LoadedModule {
    return new LoadedModule(this.#link(module, timeoutMs));
  }

  #link(module: ModuleText, timeoutMs = 1000): IvmModule {
    const compiled = this.#isolate.compileModuleSync(module.code, { filename: module.filename });
    compiled.instantiateSync(this.#context, (specifier) => {
      if (specifier === "@tsproxy/sdk") return this.#sdk;
      throw new Error(`cannot import "${specifier}": filters see the SDK and their own files`);
    });
    compiled.evaluateSync({ timeout: timeoutMs });
    return compiled;
  }

  /** Bytes of heap and of shared or external memory. */
  get memory(): number {
    const statistics = this.#isolate.getHeapStatisticsSync();
    return statistics.used_heap_size + statistics.externally_allocated_size;
  }

  /** CPU seconds spent inside so far. */
  get cpuTime(): bigint {
    return this.#isolate.cpuTime;
  }

  /** A handle for a watchdog. */
  get handle(): unknown {
    return this.#isolate;
  }

  dispose(): void {
    if (!this.#isolate.isDisposed) this.#isolate.dispose();
  }
}

export class LoadedModule {
  readonly #module: IvmModule;

  constructor(module: IvmModule) {
    this.#module = module;
  }

  /** Its exports, for a function of the same isolate. */
  get namespace(): unknown {
    return this.#module.namespace.derefInto();
  }

  /** An exported function. `timeoutMs` bounds each call at some cost (about 1 µs); 0: no bound. */
  entry(name: string, timeoutMs = 0): EntryPoint {
    const reference = this.#module.namespace.getSync(name, { reference: true });
    if (timeoutMs === 0) return (...args) => reference.applySync(undefined, args);
    const options = { timeout: timeoutMs };
    return (...args) => reference.applySync(undefined, args, options);
  }

  /** As `entry`, for one number: the hot one. */
  numberEntry(name: string): (n: number) => number {
    const reference = this.#module.namespace.getSync(name, { reference: true });
    const args = [0];
    return (n) => {
      args[0] = n;
      return reference.applySync(undefined, args) as number;
    };
  }
}

/** Shared memory as an argument. */
export function share(memory: SharedArrayBuffer): unknown {
  return new ivm.ExternalCopy(memory).copyInto();
}

/** A function of core as an argument: called synchronously with strings. */
export function callback(f: (...args: string[]) => void): unknown {
  return new ivm.Callback(f, { sync: true });
}

const STOP_WORD = 0;
const WATCH = `(beat, limitMs) => {
  const stop = new Int32Array(control), words = new Int32Array(beats), step = Math.max(10, limitMs >> 2);
  let last = -1, since = 0;
  for (;;) {
    if (Atomics.wait(stop, ${STOP_WORD}, 0, step) !== "timed-out") return;
    const now = Atomics.load(words, beat);
    since = (now & 1) === 1 && now === last ? since + step : 0;
    last = now;
    if (since >= limitMs) { target.dispose(); return; }
  }
}`;

/**
 * Disposes of an isolate that stays inside one call longer than `limitMs`. It sleeps on a thread of isolated-vm's pool, so
 * it works while this thread is the one that hangs. `beat` is a word that is odd while inside and changes with each call.
 */
export class Watchdog {
  readonly #control = new Int32Array(new SharedArrayBuffer(8));
  readonly #isolate: IvmIsolate;
  readonly #ended: Promise<unknown>;

  constructor(
    target: { readonly handle: unknown },
    memory: SharedArrayBuffer,
    beat: number,
    limitMs: number,
  ) {
    this.#isolate = new ivm.Isolate({ memoryLimit: 64 });
    const context = this.#isolate.createContextSync();
    context.global.setSync("target", target.handle);
    context.global.setSync("control", share(this.#control.buffer as SharedArrayBuffer));
    context.global.setSync("beats", share(memory));
    const watch = context.evalSync(WATCH, { reference: true });
    this.#ended = watch.apply(undefined, [beat, limitMs]).catch(() => {});
  }

  /** Must have settled before the process exits: a sleeping isolate would hold it. */
  async stop(): Promise<void> {
    Atomics.store(this.#control, STOP_WORD, 1);
    Atomics.notify(this.#control, STOP_WORD);
    await this.#ended;
    if (!this.#isolate.isDisposed) this.#isolate.dispose();
  }
}
