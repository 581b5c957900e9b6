import { CellHeap } from "@tsproxy/sdk";
import type ivmTypes from "isolated-vm";
import { BOX, GATE } from "../inside/sandbox/layout.ts";
import type { Watchdog } from "../isolate.ts";
import { setIsolateFlags } from "../isolate-flags.ts";
import { isolatedVm } from "../own-files.ts";
import type { SandboxMarks } from "../process/marks.ts";
import { randomBytes } from "../random.ts";
import { CallsAside } from "./aside.ts";
import { IMAGE_FILENAME, type SandboxImage } from "./image.ts";

// isolated-vm is CommonJS with a native half; its only use for sandboxes is in this file.
const ivm = isolatedVm() as typeof ivmTypes;

/** Time limit, by the clock, of calls on other threads that load or set up. */
export const LOAD_MS = 5000;
/** The same once the isolate serves: what runs then has been tried, and to be stopped while it waits for a CPU costs the isolate. */
export const SERVING_MS = 20_000;
/** Modules of at most so many chars are compiled on this thread (1 ms). */
const COMPILE_HERE_MAX = 64 * 1024;

export interface Source {
  readonly code: string;
  readonly filename: string;
  /** Memory of a package's shared cells. */
  readonly cells?: SharedArrayBuffer;
}

/** The memory that a sandbox shares with core: the block for records and answers, and its stats cells. */
export interface SandboxMemory {
  readonly box: SharedArrayBuffer;
  readonly stats: SharedArrayBuffer;
}

/** The prelude's functions that are called when the isolate has a package. */
const ENTRIES = ["prepare", "run", "release", "setRuntime", "handover"] as const;
type Entries = Readonly<Record<(typeof ENTRIES)[number], ivmTypes.Reference>>;

/**
 * Evaluates the package and gives it to the prelude: in one call, since under load each step to another thread and back waits for
 * the scheduler twice (2 to 5 ms).
 */
const STARTER = `
  import * as its from "package";
  import { start } from "prelude";
  export const answer = start(its);`;

/** An isolate with the SDK and the prelude, made ahead of need; it has no package yet. */
export class EmptyIsolate {
  readonly isolate: ivmTypes.Isolate;
  readonly memory: SandboxMemory;
  /** Found ahead of need as well: later, when the package may keep the isolate busy, to look for one is a call on another thread. */
  readonly entries: Entries;
  readonly aside: CallsAside;
  readonly #context: ivmTypes.Context;
  readonly #sdk: ivmTypes.Module;
  readonly #prelude: ivmTypes.Module;
  readonly #starter: ivmTypes.Module;
  readonly #functions: ivmTypes.Reference;

  private constructor(
    isolate: ivmTypes.Isolate,
    memory: SandboxMemory,
    context: ivmTypes.Context,
    aside: CallsAside,
    { sdk, prelude, starter }: Modules,
    functions: ivmTypes.Reference,
  ) {
    this.isolate = isolate;
    this.memory = memory;
    this.aside = aside;
    this.#context = context;
    this.#sdk = sdk;
    this.#prelude = prelude;
    this.#starter = starter;
    this.#functions = functions;
    const entry = (name: string) => [name, functions.getSync(name, { reference: true })];
    this.entries = Object.fromEntries(ENTRIES.map(entry)) as Entries;
  }

  /** Makes one, mostly on other threads. */
  static async build(
    image: SandboxImage,
    memoryLimit: number,
    memory: SandboxMemory,
  ): Promise<EmptyIsolate> {
    const { snapshot } = image;
    // Needed by debuggers and profiles; costs nothing while none is attached (an entry takes 2.07 µs with it, 2.08 without).
    const inspector = true;
    const aside = new CallsAside(() => isolate.isDisposed || isolate.dispose());
    // Where V8 itself runs out of memory isolated-vm would end the process, if nobody wanted to be told. So it leaves the thread that
    // the isolate runs on asleep instead: one of its own, or this one, which the supervisor sees (HangWatch).
    const onCatastrophicError = aside.onLost;
    setIsolateFlags();
    const isolate = new ivm.Isolate({
      memoryLimit,
      inspector,
      onCatastrophicError,
      ...(snapshot && { snapshot }),
    });
    try {
      const context = await isolate.createContext({ inspector });
      if (snapshot === undefined) {
        const script = await isolate.compileScript(image.code, { filename: IMAGE_FILENAME });
        await script.run(context);
        script.release();
      }
      const made = context.global.getSync(IMAGE, { reference: true });
      if (image.sdkModule === "") image.sdkModule = sdkModule(context);
      const modules = modulesOf(isolate, context, image.sdkModule);
      context.global.deleteSync(IMAGE);
      const functions = made.getSync("prelude", { reference: true });
      const seed = randomBytes(32).toString("latin1");
      const init = functions.getSync("init", { reference: true });
      // 2 ms that a save would wait for.
      await init.apply(undefined, [share(memory.box), share(memory.stats), seed]);
      return new EmptyIsolate(isolate, memory, context, aside, modules, functions);
    } catch (error) {
      if (!isolate.isDisposed) isolate.dispose();
      throw error;
    }
  }

  /** Compiles the package, of which nothing has run yet. */
  async load({ code, filename }: Source): Promise<void> {
    const module =
      code.length > COMPILE_HERE_MAX
        ? await this.aside.run(() => this.isolate.compileModule(code, { filename }))
        : this.isolate.compileModuleSync(code, { filename });
    module.instantiateSync(this.#context, resolver(this.#sdk));
    const linked = (name: string) => (name === "package" ? module : this.#prelude);
    this.#starter.instantiateSync(this.#context, linked);
  }

  /** As of SandboxIsolate. Undefined: without a time limit. */
  async start(uses: string, timeout: number | undefined): Promise<string> {
    this.call("expect", [uses]);
    const options = timeout === undefined ? {} : { timeout };
    await this.aside.run(() => this.#starter.evaluate(options));
    return String(this.#starter.namespace.getSync("answer"));
  }

  /** Calls a function of the image on this thread, before it has loaded a package. Our own code needs no time limit. */
  call(name: string, args: unknown[]): void {
    this.#functions.getSync(name, { reference: true }).applySync(undefined, args as never);
  }

  dispose(): void {
    if (!this.isolate.isDisposed) this.isolate.dispose();
  }
}

const share = (part: SharedArrayBuffer): unknown => new ivm.ExternalCopy(part).copyInto();

/** The global variable of the image that the prelude's functions are in. */
const IMAGE = "tsproxy:image";

interface Modules {
  readonly sdk: ivmTypes.Module;
  /** What the starter imports of it. */
  readonly prelude: ivmTypes.Module;
  /** STARTER, not linked yet. */
  readonly starter: ivmTypes.Module;
}

function modulesOf(isolate: ivmTypes.Isolate, context: ivmTypes.Context, sdkCode: string): Modules {
  const evaluated = (code: string, filename: string) => {
    const module = isolate.compileModuleSync(code, { filename });
    module.instantiateSync(context, resolver(undefined));
    module.evaluateSync();
    return module;
  };
  return {
    sdk: evaluated(sdkCode, "@tsproxy/sdk"),
    prelude: evaluated(
      `export const { start } = globalThis["${IMAGE}"].prelude;`,
      "tsproxy:prelude",
    ),
    starter: isolate.compileModuleSync(STARTER, { filename: "tsproxy:starter" }),
  };
}

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

/** Ids of our own messages to the inspector begin here; clients and debug-session.ts use smaller ones. */
const NUDGE_ID = 2_000_000_000;
const CLOSE_ID = 2_000_000_001;
const NUDGE_MS = 25;
const NUDGES_MAX = 80;

/** A session of a debugger or profiler with one isolate. */
export interface DebugChannel {
  readonly isolate: SandboxIsolate;
  /** A message of the Chrome DevTools protocol. */
  send(text: string): void;
  close(): void;
}

/** One package in an isolate of its own. It is entered on this thread; what may take long (load, setup) runs on other threads. */
export class SandboxIsolate {
  readonly memory: SandboxMemory;
  readonly words: Int32Array;
  readonly times: Float64Array;
  readonly bytes: Buffer;
  readonly #isolate: ivmTypes.Isolate;
  readonly #empty: EmptyIsolate;
  readonly #entries: Entries;
  readonly #run: ivmTypes.Reference<(count: number) => void>;
  readonly #args = [0];
  readonly #timeoutMs: number;
  /** The words of its gate, by index of GATE, shared with the builtin isolate. The sandboxed isolate does not see them. */
  readonly gate = new Int32Array(new SharedArrayBuffer(GATE.WORDS * 4));
  readonly #watchdog: Watchdog;
  readonly #watched: number;
  /** File name of its module in stack traces. */
  readonly filename: string;
  readonly #cells: SharedArrayBuffer | undefined;
  readonly #number: number;
  readonly #channels = new Set<DebugChannel>();
  readonly #aside: CallsAside;
  /** Time limit, by the clock, of its calls that set up. */
  callMs: number;

  private constructor(
    empty: EmptyIsolate,
    { filename, cells }: Source,
    {
      timeoutMs,
      callMs,
      watchdog,
      number,
    }: {
      readonly timeoutMs: number;
      readonly callMs: number;
      readonly watchdog: Watchdog;
      readonly number: number;
    },
  ) {
    const { isolate, memory, entries, aside } = empty;
    this.#empty = empty;
    this.#isolate = isolate;
    this.#aside = aside;
    this.#entries = entries;
    this.#run = entries.run;
    this.#timeoutMs = timeoutMs;
    this.callMs = callMs;
    this.#watchdog = watchdog;
    this.#watched = watchdog.watch(
      { handle: isolate },
      this.gate.buffer as SharedArrayBuffer,
      GATE.BEAT,
      timeoutMs,
    );
    this.memory = memory;
    this.filename = filename;
    this.#cells = cells;
    this.#number = number;
    this.words = new Int32Array(memory.box);
    this.times = new Float64Array(memory.box);
    this.bytes = Buffer.from(memory.box);
  }

  /** Loads the package into a spare isolate; `start` runs it. */
  static async build(
    empty: EmptyIsolate,
    module: Source,
    options: {
      readonly timeoutMs: number;
      readonly watchdog: Watchdog;
      readonly worker: number;
      readonly number: number;
      readonly node: { readonly id: string; readonly cluster: string; readonly address?: string };
      /** JSON of all runtime values, or "". */
      readonly runtime: string;
      readonly marks?: SandboxMarks | undefined;
      readonly callMs: number;
    },
  ): Promise<SandboxIsolate> {
    try {
      empty.aside.marks = options.marks;
      const { worker, node, runtime } = options;
      empty.call("place", [worker, node.id, node.cluster, node.address ?? ""]);
      if (runtime !== "") empty.call("setRuntime", [runtime]);
      if (module.cells !== undefined)
        empty.call("shareCells", [share(module.cells), options.number]);
      await empty.load(module);
      return new SandboxIsolate(empty, module, options);
    } catch (error) {
      empty.dispose();
      throw error;
    }
  }

  /**
   * Runs the package for the first time, on another thread, and sets these uses up (JSON of SandboxUse[]). Answers as the prelude's
   * `prepare` does; throws what the package throws while it loads, or why it is refused (BOX.ADOPTED is 0 then).
   */
  start(uses: string): Promise<string> {
    return this.#empty.start(uses, this.isDebugged ? undefined : this.callMs);
  }

  /**
   * Enters with `count` records, on this thread. Answers a promise rejection that no code has handled; undefined: there was none.
   * Throws if the isolate was stopped. The watchdog stops it, not isolated-vm's `timeout`, which wakes a thread for every entry
   * and cost 8 µs a request (test/bench/cpu.ts filter).
   */
  run(count: number): unknown {
    this.#args[0] = count;
    this.gate[GATE.BEAT]!++;
    this.words[BOX.RAN] = 0;
    this.#aside.marks?.enter();
    try {
      this.#run.applySync(undefined, this.#args as [number]);
      return undefined;
    } catch (error) {
      if (this.#isolate.isDisposed) throw this.stopped;
      if (this.words[BOX.RAN] !== 1) throw error;
      return error;
    } finally {
      this.#aside.marks?.leave();
      this.gate[GATE.BEAT]!++;
    }
  }

  /** Why the isolate was stopped. */
  get stopped(): Error {
    return new Error(`it was stopped: no return within ${this.#timeoutMs} ms, or no memory`);
  }

  /** A reference to the function that `run` calls, for the builtin isolate of this thread. With marks it is entered through core. */
  get entry(): unknown {
    const { marks } = this.#aside;
    if (marks === undefined) return this.#run;
    return new ivm.Reference((count: number) => {
      marks.enter();
      try {
        this.#run.applySync(undefined, [count]);
      } finally {
        marks.leave();
      }
    });
  }

  /** As `run`, but on another thread (60 µs): for a sandbox that may take long. */
  async runAside(count: number): Promise<unknown> {
    this.words[BOX.RAN] = 0;
    // Whoever comes here is suspect, and all other streams of the package wait meanwhile. A longer box also lets a loop that allocates
    // reach an allocation that ends the process.
    const limitMs = this.isDebugged ? undefined : this.#timeoutMs / 2;
    try {
      await this.#aside.run(() => this.#run.apply(undefined, [count]), limitMs);
      return undefined;
    } catch (error) {
      if (this.#isolate.isDisposed || this.words[BOX.RAN] !== 1) throw error;
      return error;
    }
  }

  /**
   * Calls a function of the prelude on another thread, with texts in and out: while a debugger has paused the isolate, this thread
   * must stay free to bring the debugger's "resume".
   */
  async call(name: keyof Entries, ...args: (string | number)[]): Promise<string> {
    const options = this.isDebugged ? {} : { timeout: this.callMs };
    const entry = this.#entries[name];
    return String(await this.#aside.run(() => entry.apply(undefined, args as never, options)));
  }

  /** A debugger is attached: the isolate is entered on other threads only, without a time limit. */
  get isDebugged(): boolean {
    return this.#channels.size > 0;
  }

  /** `onClosed`: no more messages come, because the session was closed or the isolate has ended. */
  debug(onMessage: (text: string) => void, onClosed: () => void = () => {}): DebugChannel {
    const session = this.#isolate.createInspectorSession();
    const unanswered = new Set<number>();
    let isClosing = false;
    let nudges = 0;
    let nudging: NodeJS.Timeout | undefined;
    const end = () => {
      clearInterval(nudging);
      if (!this.#channels.delete(channel) || this.disposed) return;
      // The inspector calls a session once more after its last response, on the isolate's thread, and aborts the process if it is
      // gone by then. A call into the isolate waits until that is over.
      const entered = this.#aside.run(() => this.#isolate.getHeapStatistics());
      entered.then(
        () => session.dispose(),
        () => {},
      );
    };
    // A paused isolate can miss a message that arrives while it reads another one; the next message wakes it.
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
      // Resume before the session is closed: the inspector would otherwise call into a session that is gone.
      close: () => {
        if (isClosing) return;
        isClosing = true;
        onClosed();
        unanswered.clear();
        send(`{"id":${CLOSE_ID},"method":"Debugger.disable"}`);
      },
    };
    this.#channels.add(channel);
    if (this.gate[GATE.OPEN] === 1) this.gate[GATE.OPEN] = 0;
    return channel;
  }

  /** Bytes of heap and of external memory (asking takes 3 µs). */
  get memoryUsed(): number {
    const statistics = this.#isolate.getHeapStatisticsSync();
    return statistics.used_heap_size + statistics.externally_allocated_size;
  }

  /** Nanoseconds that threads have spent in it. */
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
    // An isolate must not be disposed while it is paused at a line: the pause is released first.
    for (const channel of [...this.#channels]) channel.close();
    void this.#aside.ended().then(() => setTimeout(() => this.#end()));
  }

  #end(): void {
    if (!this.#isolate.isDisposed) this.#isolate.dispose();
    // Its uses have not disposed of their cells if it was lost.
    if (this.#cells !== undefined) new CellHeap(this.#cells).forget(this.#number);
  }
}
