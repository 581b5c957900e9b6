import { randomBytes } from "node:crypto";
import type ivmTypes from "isolated-vm";
import { GATE } from "../inside/sandbox/layout.ts";
import type { Watchdog } from "../isolate.ts";
import { isolatedVm } from "../own-files.ts";
import { IMAGE_FILENAME, type SandboxImage } from "./image.ts";

// isolated-vm is CommonJS with a native half; its only use for sandboxes is in this file.
const ivm = isolatedVm() as typeof ivmTypes;

/** By the clock, on another thread: a machine with ten times more work than cores makes an honest package wait for a CPU as well. */
const LOAD_TIMEOUT_MS = 5000;
/** What this thread waits for the sandbox at most: a package may have put a getter where its kind is asked for. */
const HERE_TIMEOUT_MS = 1000;
/** Chars of a module that this thread may stop for (1 ms). */
const COMPILE_HERE_MAX = 64 * 1024;

export interface Source {
  readonly code: string;
  readonly filename: string;
  /** Memory of a package's shared cells. */
  readonly cells?: SharedArrayBuffer;
}

/** What a sandbox shares with core: the block that records and answers cross in, and the cells that it counts in. */
export interface SandboxMemory {
  readonly box: SharedArrayBuffer;
  readonly stats: SharedArrayBuffer;
}

/** An isolate with the SDK and the prelude in it, which waits for its package. */
export class EmptyIsolate {
  readonly isolate: ivmTypes.Isolate;
  readonly prelude: ivmTypes.Reference;
  readonly #context: ivmTypes.Context;
  readonly #sdk: ivmTypes.Module;

  private constructor(
    isolate: ivmTypes.Isolate,
    context: ivmTypes.Context,
    sdk: ivmTypes.Module,
    prelude: ivmTypes.Reference,
  ) {
    this.isolate = isolate;
    this.#context = context;
    this.#sdk = sdk;
    this.prelude = prelude;
  }

  /** On other threads, for the most part. */
  static async build(image: SandboxImage, memoryLimit: number): Promise<EmptyIsolate> {
    const { snapshot } = image;
    // What debuggers and profiles need; as long as none is attached it costs nothing (an entry 2.07 µs with it, 2.08 without).
    const inspector = true;
    const isolate = new ivm.Isolate({ memoryLimit, inspector, ...(snapshot && { snapshot }) });
    try {
      const context = await isolate.createContext({ inspector });
      if (snapshot === undefined) {
        const script = await isolate.compileScript(image.code, { filename: IMAGE_FILENAME });
        await script.run(context, { timeout: LOAD_TIMEOUT_MS });
        script.release();
      }
      const made = context.global.getSync(IMAGE, { reference: true });
      if (image.sdkModule === "") image.sdkModule = sdkModule(context);
      const sdk = isolate.compileModuleSync(image.sdkModule, { filename: "@tsproxy/sdk" });
      sdk.instantiateSync(context, resolver(undefined));
      sdk.evaluateSync();
      context.global.deleteSync(IMAGE);
      return new EmptyIsolate(isolate, context, sdk, made.getSync("prelude", { reference: true }));
    } catch (error) {
      if (!isolate.isDisposed) isolate.dispose();
      throw error;
    }
  }

  /**
   * Only the package's own code runs on another thread: under load, each step there and back waits for the scheduler twice.
   * Throws what the package throws while it is evaluated.
   */
  async load({ code, filename }: Source): Promise<ivmTypes.Module> {
    const module =
      code.length > COMPILE_HERE_MAX
        ? await this.isolate.compileModule(code, { filename })
        : this.isolate.compileModuleSync(code, { filename });
    module.instantiateSync(this.#context, resolver(this.#sdk));
    await module.evaluate({ timeout: LOAD_TIMEOUT_MS });
    return module;
  }

  /** On this thread. */
  call(name: string, args: unknown[]): unknown {
    const entry = this.prelude.getSync(name, { reference: true });
    return entry.applySync(undefined, args as never, { timeout: HERE_TIMEOUT_MS });
  }

  dispose(): void {
    if (!this.isolate.isDisposed) this.isolate.dispose();
  }
}

/** The global that the image leaves. */
const IMAGE = "tsproxy:image";

function sdkModule(context: ivmTypes.Context): string {
  const names = String(context.evalSync(`Object.keys(globalThis["${IMAGE}"].sdk).join()`));
  return `export const { ${names} } = globalThis["${IMAGE}"].sdk;`;
}

const resolver =
  (sdk: ivmTypes.Module | undefined) =>
  (specifier: string): ivmTypes.Module => {
    if (specifier === "@tsproxy/sdk" && sdk !== undefined) return sdk;
    throw new Error(`cannot import "${specifier}": filters see the SDK and their own files`);
  };

/** Ids of our own messages to the engine; clients and debug-session.ts use smaller ones. */
const NUDGE_ID = 2_000_000_000;
const CLOSE_ID = 2_000_000_001;
const NUDGE_MS = 25;
const NUDGES_MAX = 80;

/** A session of a debugger or a profiler with one isolate. */
export interface DebugChannel {
  readonly isolate: SandboxIsolate;
  /** A message of the Chrome DevTools protocol. */
  send(text: string): void;
  close(): void;
}

/** One package in an isolate of its own. Built and called on other threads where it may take long; entered on this one. */
export class SandboxIsolate {
  readonly memory: SandboxMemory;
  readonly words: Int32Array;
  readonly times: Float64Array;
  readonly bytes: Buffer;
  readonly #isolate: ivmTypes.Isolate;
  readonly #namespace: ivmTypes.Reference;
  readonly #run: ivmTypes.Reference<(count: number) => void>;
  readonly #args = [0];
  readonly #runOptions: { timeout: number };
  /** Words by GATE: shared with the chain. The isolate does not see them. */
  readonly gate = new Int32Array(new SharedArrayBuffer(GATE.WORDS * 4));
  readonly #watchdog: Watchdog;
  readonly #watched: number;
  /** What stacks call its module. */
  readonly filename: string;
  readonly #channels = new Set<DebugChannel>();
  /** Calls that are in it on other threads. */
  readonly #aside = new Set<Promise<unknown>>();

  private constructor(
    { isolate, prelude }: EmptyIsolate,
    run: ivmTypes.Reference<(count: number) => void>,
    memory: SandboxMemory,
    filename: string,
    { timeoutMs, watchdog }: { readonly timeoutMs: number; readonly watchdog: Watchdog },
  ) {
    this.#isolate = isolate;
    this.#namespace = prelude;
    this.#run = run;
    this.#runOptions = { timeout: timeoutMs };
    this.#watchdog = watchdog;
    this.#watched = watchdog.watch(
      { handle: isolate },
      this.gate.buffer as SharedArrayBuffer,
      GATE.BEAT,
      timeoutMs,
    );
    this.memory = memory;
    this.filename = filename;
    this.words = new Int32Array(memory.box);
    this.times = new Float64Array(memory.box);
    this.bytes = Buffer.from(memory.box);
  }

  /** Puts the package into it. Throws what the package throws while it loads. */
  static async build(
    empty: EmptyIsolate,
    module: Source,
    memory: SandboxMemory,
    options: {
      readonly timeoutMs: number;
      readonly watchdog: Watchdog;
      readonly worker: number;
      readonly node: { readonly id: string; readonly cluster: string; readonly address?: string };
      /** JSON of all runtime values, or "". */
      readonly runtime: string;
    },
  ): Promise<SandboxIsolate> {
    try {
      const share = (part: SharedArrayBuffer): unknown => new ivm.ExternalCopy(part).copyInto();
      const { worker, node, runtime } = options;
      empty.call("init", [
        share(memory.box),
        share(memory.stats),
        worker,
        node.id,
        node.cluster,
        node.address ?? "",
        randomBytes(32).toString("latin1"),
      ]);
      if (runtime !== "") empty.call("setRuntime", [runtime]);
      if (module.cells !== undefined) empty.call("shareCells", [share(module.cells)]);
      // The package is evaluated last: by now the prelude has bounded what it will find.
      const loaded = await empty.load(module);
      const exported = loaded.namespace.getSync("default", { reference: true });
      const refused = empty.call("adopt", [exported.derefInto()]);
      if (refused !== "") throw new Error(String(refused));
      const run = empty.prelude.getSync("run", { reference: true });
      return new SandboxIsolate(empty, run, memory, module.filename, options);
    } catch (error) {
      empty.dispose();
      throw error;
    }
  }

  /**
   * Enters with `count` records, on this thread. Throws when it was stopped: by the watchdog, for `timeout` wakes a thread for
   * every entry, which cost 8 µs a request (test/bench/cpu.ts filter).
   */
  run(count: number): void {
    this.#args[0] = count;
    this.gate[GATE.BEAT]!++;
    try {
      this.#run.applySync(undefined, this.#args as [number]);
    } catch (error) {
      throw this.#isolate.isDisposed ? this.stopped : error;
    } finally {
      this.gate[GATE.BEAT]!++;
    }
  }

  /** Why it is not there any more. */
  get stopped(): Error {
    const { timeout } = this.#runOptions;
    return new Error(`it was stopped: no return within ${timeout} ms, or no memory`);
  }

  /** For another isolate of this thread: what `run` enters by. */
  get entry(): unknown {
    return this.#run;
  }

  /** The same on another thread (60 µs): for a sandbox that is not trusted to come back soon. */
  async runAside(count: number): Promise<void> {
    await this.#leftAlone(
      this.#run.apply(undefined, [count], this.isDebugged ? {} : this.#runOptions),
    );
  }

  /** A rare call, text in and out, on another thread. */
  async call(name: string, ...args: (string | number)[]): Promise<string> {
    return String(await this.#leftAlone(this.#enter(name, args)));
  }

  /** Whatever touches the isolate here waits on another thread: while a debugger holds it, this one brings the word to go on. */
  async #enter(name: string, args: readonly (string | number)[]): Promise<unknown> {
    const entry = await this.#namespace.get(name, { reference: true });
    const options = this.isDebugged ? {} : { timeout: LOAD_TIMEOUT_MS };
    return entry.apply(undefined, args as never, options);
  }

  /** Somebody may stop it at any line: it is entered on other threads only, and takes what time it likes. */
  get isDebugged(): boolean {
    return this.#channels.size > 0;
  }

  debug(onMessage: (text: string) => void): DebugChannel {
    const session = this.#isolate.createInspectorSession();
    const unanswered = new Set<number>();
    let isClosing = false;
    let nudges = 0;
    let nudging: NodeJS.Timeout | undefined;
    const end = () => {
      clearInterval(nudging);
      if (this.#channels.delete(channel) && !this.disposed) session.dispose();
    };
    // An isolate that is stopped at a line sleeps through a message that comes while it reads another one: the next one wakes it.
    const nudge = () => {
      if (unanswered.size > 0 && nudges++ < NUDGES_MAX && !this.disposed)
        session.dispatchProtocolMessage(`{"id":${NUDGE_ID},"method":"Runtime.getIsolateId"}`);
      else if (isClosing) end();
      else {
        clearInterval(nudging);
        nudging = undefined;
      }
    };
    const send = (text: string) => {
      unanswered.add(Number((JSON.parse(text) as { id: number }).id));
      nudges = 0;
      nudging ??= setInterval(nudge, NUDGE_MS).unref();
      session.dispatchProtocolMessage(text);
    };
    session.onNotification = (text) => {
      if (!isClosing) onMessage(text);
    };
    session.onResponse = (id, text) => {
      unanswered.delete(id);
      if (isClosing && id === CLOSE_ID) end();
      else if (!isClosing && id !== NUDGE_ID) onMessage(text);
    };
    const channel: DebugChannel = {
      isolate: this,
      send: (text) => {
        if (!isClosing) send(text);
      },
      // Whoever is stopped at a line goes on. The engine must have let go before the session does: it would call into nothing.
      close: () => {
        if (isClosing) return;
        isClosing = true;
        unanswered.clear();
        send(`{"id":${CLOSE_ID},"method":"Debugger.disable"}`);
      },
    };
    this.#channels.add(channel);
    if (this.gate[GATE.OPEN] === 1) this.gate[GATE.OPEN] = 0;
    return channel;
  }

  async #leftAlone<T>(call: Promise<T>): Promise<T> {
    this.#aside.add(call);
    try {
      return await call;
    } finally {
      this.#aside.delete(call);
    }
  }

  /** Bytes of heap and of what hangs on it (3 µs to ask). */
  get memoryUsed(): number {
    const statistics = this.#isolate.getHeapStatisticsSync();
    return statistics.used_heap_size + statistics.externally_allocated_size;
  }

  /** Nanoseconds of CPU that threads have spent in it. */
  get cpuTime(): bigint {
    return this.#isolate.cpuTime;
  }

  get disposed(): boolean {
    return this.#isolate.isDisposed;
  }

  dispose(): void {
    this.#watchdog.unwatch(this.#watched);
    if (!this.isDebugged) {
      this.#end();
      return;
    }
    // An isolate must not go while a debugger holds it at a line: that is let go first, and what it held ends.
    for (const channel of [...this.#channels]) channel.close();
    void Promise.allSettled([...this.#aside]).then(() => setTimeout(() => this.#end()));
  }

  #end(): void {
    if (!this.#isolate.isDisposed) this.#isolate.dispose();
  }
}
