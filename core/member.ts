import type { Readable } from "node:stream";
import { limitCpu } from "./process/cpu-limit.ts";
import { sampleCpu } from "./process/thread-cpu.ts";
import {
  type AddressConfig,
  BEAT,
  type FromWorker,
  type ListenerConfig,
  type ModuleSource,
  type Profiled,
  type Refusal,
  type RuntimeConfig,
  type ToListen,
  type ToWorker,
} from "./protocol.ts";
import type { Change } from "./reload/stage.ts";
import { WrittenConfig } from "./reload/written-config.ts";
import type { ListenFailure } from "./sockets/bound.ts";
import type { SocketEnd } from "./sockets/socket-pair.ts";
import type { StartThread, Thread, ThreadEvents } from "./thread.ts";

/**
 * By the clock, which goes on while a thread waits for a CPU: with a tenth of one it takes minutes to set a large config up. A thread
 * that hangs is ended long before that (SETUP_BOX_MS).
 */
const PREPARE_MS = 300_000;
const COMMIT_MS = 5_000;
const LISTEN_MS = 60_000;
const PROFILE_MS = 60_000;
/** How long to wait for the log lines of a thread that may hang. */
const LINES_MS = 1_000;
/** CPU time in which a thread ends that is asked to. Lines of logs that it has not sent by then are lost. */
const STOP_CPU_MS = 1_000;
/** How often a thread is given a generation that it loses with its isolate, before it is ended. */
const SET_UP_TIMES = 3;
/** Milliseconds that a thread may be silent (HangWatch): the watchdog ends an isolate after 1 s, and setups may take longer. */
const BOX_MS = 1_000;
const SETUP_BOX_MS = 20_000;

export type Profile = Omit<Extract<FromWorker, { type: "profiled" }>, "type">;

/** What serves. */
export interface Live {
  readonly modules: ReadonlyMap<string, ModuleSource>;
  readonly config: RuntimeConfig | undefined;
}
const NOTHING: Live = { modules: new Map(), config: undefined };

/** Binds a socket of a thread; answers the address it got. */
export type Listen = (address: AddressConfig) => Promise<AddressConfig>;

/** What a thread that joins the others asks of them. */
interface Joining {
  readonly sockets: () => readonly string[];
  readonly bind: (name: string, listen: Listen) => Promise<void>;
}

/** The answers of a thread to `prepare`: at once, and when all is set up. */
interface Staged {
  readonly refusals: readonly Refusal[];
  readonly prepared: Promise<readonly Refusal[]>;
}

type Answer = Extract<
  FromWorker,
  {
    type:
      | "staged"
      | "prepared"
      | "refused"
      | "committed"
      | "listening"
      | "listen_failed"
      | "lines_flushed"
      | "drained"
      | "profiled";
  }
>;

/** One thread, and the answers that the fleet waits for. */
export class Member {
  /** Names of sandboxed packages by their box numbers in this thread. */
  readonly boxes = new Map<number, string>();
  readonly role: "worker" | "control";
  readonly thread: Thread;
  readonly since = Date.now();
  /** JSON of the listeners that its services bring along, as of its last preparation. */
  brought = "[]";
  readonly #waiting = new Set<(message: Answer | undefined) => void>();
  /** Ends of socket pairs that the thread was given to open. */
  readonly #lent: SocketEnd[] = [];
  #joined: Promise<void> = Promise.resolve();
  #gone = false;
  /** True once it has committed a generation. */
  #running = false;
  /** The generation that it has set up last, and could serve. */
  #prepared: number | undefined = undefined;
  /** The packages with which it has gone back to the generation before by itself, and so to the config of that one. */
  readonly #reverted = new Set<string>();
  /** That was after it had been asked to prepare, so that what it sets up lacks what the others have. */
  #isOutdated = false;

  constructor(role: "worker" | "control", start: StartThread, index: number, events: ThreadEvents) {
    this.role = role;
    this.thread = start(role, index, {
      onMessage: (message) => {
        this.#note(message);
        for (const waiter of [...this.#waiting]) waiter(message as Answer);
        events.onMessage(message);
      },
      onExit: (reason) => {
        if (this.#gone) return;
        this.#gone = true;
        for (const end of this.#lent) end.reclaim();
        for (const waiter of [...this.#waiting]) waiter(undefined);
        events.onExit(reason);
      },
    });
  }

  #note(message: FromWorker): void {
    switch (message.type) {
      case "prepared":
        this.#prepared = this.#isOutdated ? undefined : message.generation;
        break;
      case "refused":
        this.#prepared = undefined;
        break;
      case "committed":
        this.#reverted.clear();
        break;
      case "fault":
        for (const name of message.reverted ?? []) {
          this.#reverted.add(name);
          this.#isOutdated = true;
        }
    }
  }

  /** The thread has ended. */
  get gone(): boolean {
    return this.#gone;
  }

  post(message: ToWorker): void {
    if (!this.#gone) this.thread.post(message);
  }

  lend(end: SocketEnd, type: "take_from" | "give_through"): void {
    if (this.#gone) {
      end.reclaim();
      return;
    }
    this.#lent.push(end);
    this.post({ type, fd: end.fd });
  }

  /** The sandboxed package that the thread is inside now, or that runs for it on another thread. */
  get inside(): string | undefined {
    const words = new Int32Array(this.thread.memory.beat);
    for (const word of [BEAT.INSIDE, BEAT.ASIDE]) {
      const box = word < words.length ? Atomics.load(words, word) : 0;
      if (box !== 0) return this.boxes.get(box);
    }
    return undefined;
  }

  /** Milliseconds that the thread may be silent now: more while it sets something up. */
  get boxMs(): number {
    return this.#waiting.size > 0 || !this.#running ? SETUP_BOX_MS : BOX_MS;
  }

  /**
   * Sets a new thread up with what the others run. Changes wait for it; if it fails, the thread is ended. `sockets`: the names of
   * those that the others have bound by then.
   */
  join(change: Change, { sockets, bind }: Joining): void {
    const join = async () => {
      await this.#takeUp(change, NOTHING);
      for (const name of sockets())
        await bind(name, (address) => this.#listen({ name, address })).catch(
          ({ message }: ListenFailure) =>
            this.thread.kill(`it could not listen at "${name}" again: ${message}`),
        );
    };
    this.#joined = join();
  }

  async prepare(change: Change, live: Live, rehearsed: boolean): Promise<Staged> {
    await this.#joined;
    return this.#prepare(change, live, rehearsed);
  }

  /** A thread that has gone back gets what the others have and it has not. */
  #prepare(change: Change, live: Live, rehearsed = true): Promise<Staged> {
    const { generation, removed } = change;
    const isBehind = this.#reverted.size > 0;
    const whole = change.config ?? (isBehind ? live.config : undefined);
    const config = whole && WrittenConfig.of(whole).for(this.role);
    const known = new Set([...removed, ...change.modules.map((module) => module.package)]);
    const missing = [...this.#reverted].filter((name) => !known.has(name));
    this.#isOutdated = false;
    const modules = [...missing.flatMap((name) => live.modules.get(name) ?? []), ...change.modules];
    return this.#stage({ type: "prepare", generation, modules, removed, config, rehearsed }, whole);
  }

  extend(generation: number, config: RuntimeConfig, nth: number): Promise<Staged> {
    const written = WrittenConfig.of(config);
    const isOwn = ({ thread = "worker" }: ListenerConfig) => thread === this.role;
    return this.#stage(
      {
        type: "extend",
        generation,
        config: written.for(this.role),
        listeners: written.listeners(nth),
        nth: config.listeners.slice(0, nth).filter(isOwn).length,
      },
      config,
    );
  }

  async #stage(
    asked: Extract<ToWorker, { type: "prepare" | "extend" }>,
    config: RuntimeConfig | undefined,
  ): Promise<Staged> {
    const isOf = (message: Answer) =>
      "generation" in message && message.generation === asked.generation;
    const answer = this.#answer(
      PREPARE_MS,
      (message) => (message.type === "prepared" || message.type === "refused") && isOf(message),
    );
    const prepared = answer.then((message) => this.#refusalsOf(message, config));
    const first = this.#answer(PREPARE_MS, isOf);
    this.post(asked);
    const message = await first;
    if (message?.type === "staged") {
      this.brought = message.brought;
      return { refusals: [], prepared };
    }
    return { refusals: await prepared, prepared };
  }

  #refusalsOf(message: Answer | undefined, config: RuntimeConfig | undefined): readonly Refusal[] {
    if (message?.type === "prepared") return [];
    if (message?.type === "refused")
      return message.refusals.map((refusal) => placed(refusal, config, this.role));
    const what = this.#gone
      ? "died while it prepared"
      : `did not answer within ${PREPARE_MS / 1000} s`;
    return [
      { package: "", message: `${this.thread.name} ${what}`, path: "", place: "", stack: "" },
    ];
  }

  /** Settles when the thread serves the change, or has been ended because it cannot. */
  async commit(change: Change, live: Live): Promise<void> {
    await this.#joined;
    await this.#takeUp(change, live);
  }

  /**
   * Puts a change into service. A thread that was started again since the others prepared it, or has lost it with its isolate, or
   * has gone back meanwhile, sets it up now.
   */
  async #takeUp(change: Change, live: Live): Promise<void> {
    const { generation } = change;
    let reason = "its isolate was lost again and again";
    for (let times = 0; times < SET_UP_TIMES && !this.#gone; times++) {
      if (this.#prepared !== generation) {
        const staged = await this.#prepare(change, live);
        const [refusal] = await staged.prepared;
        if (refusal !== undefined) {
          reason = refusal.message;
          continue;
        }
      }
      if (await this.#commit(generation)) return;
    }
    if (!this.#gone) this.thread.kill(`it could not take up generation ${generation}: ${reason}`);
  }

  /** False: the thread has lost the generation that it had set up. */
  async #commit(generation: number): Promise<boolean> {
    const answer = this.#answer(
      COMMIT_MS,
      (message) =>
        (message.type === "committed" || message.type === "refused") &&
        message.generation === generation,
    );
    this.post({ type: "commit", generation });
    if ((await answer)?.type === "refused") return false;
    this.#running = true;
    return true;
  }

  /** Binds a listener. Answers the address it got; rejects with a ListenFailure. */
  async listen(listener: ToListen): Promise<AddressConfig> {
    // A new thread binds what it has found bound before, which this may replace.
    await this.#joined;
    return this.#listen(listener);
  }

  async #listen(listener: ToListen): Promise<AddressConfig> {
    const answer = this.#answer(
      LISTEN_MS,
      (message) =>
        (message.type === "listening" && message.listeners.some((l) => l.name === listener.name)) ||
        (message.type === "listen_failed" && message.name === listener.name),
    );
    this.post({ type: "listen", listeners: [listener] });
    const message = await answer;
    if (message?.type === "listening") return message.listeners[0]!.address;
    const { code, message: text } =
      message?.type === "listen_failed"
        ? message
        : {
            code: "",
            message: `${this.thread.name} ${this.#gone ? "died" : "did not answer"} while it bound the socket`,
          };
    const { name, address } = listener;
    const failure: ListenFailure = { listener: name, address, code, message: text };
    throw failure;
  }

  async flushLines(): Promise<void> {
    const answer = this.#answer(LINES_MS, (message) => message.type === "lines_flushed");
    this.post({ type: "flush_lines" });
    await answer;
  }

  async drain(ms: number): Promise<void> {
    const answer = this.#answer(ms + 500, (message) => message.type === "drained");
    this.post({ type: "drain", ms });
    await answer;
  }

  async profile(enable: boolean, of: Profiled): Promise<Profile> {
    const answer = this.#answer(PROFILE_MS, (message) => message.type === "profiled");
    this.post({ type: "profile", enable, of });
    const message = await answer;
    if (message?.type === "profiled") return message;
    return { profile: "", error: "the thread did not answer" };
  }

  async heapSnapshot(): Promise<Readable> {
    // As long as a waiter is there, the thread may be silent for longer (boxMs).
    const waiter = () => {};
    this.#waiting.add(waiter);
    try {
      return await this.thread.heapSnapshot!();
    } finally {
      this.#waiting.delete(waiter);
    }
  }

  async stop(): Promise<void> {
    if (this.#gone) return;
    const words = new Int32Array(this.thread.memory.beat);
    const cpuMs = () => {
      sampleCpu(words);
      return words[BEAT.CPU_MS]!;
    };
    const gone = this.#answer(PREPARE_MS, () => false);
    const late = Promise.withResolvers<void>();
    const endLimit = limitCpu(STOP_CPU_MS, cpuMs, late.resolve);
    this.post({ type: "stop" });
    await Promise.race([gone, late.promise]);
    endLimit();
    if (!this.#gone) this.thread.kill("it did not stop when it was asked to");
  }

  /** Waits for an answer. Undefined: none came in time, or the thread has ended. */
  #answer(ms: number, isAnswer: (message: Answer) => boolean): Promise<Answer | undefined> {
    if (this.#gone) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const settle = (message: Answer | undefined) => {
        if (message !== undefined && !isAnswer(message)) return;
        clearTimeout(timer);
        this.#waiting.delete(settle);
        resolve(message);
      };
      const timer = setTimeout(settle, ms, undefined);
      this.#waiting.add(settle);
    });
  }
}

/** A thread counts only the listeners of its own role; this maps the place in its refusal back to the whole config. */
function placed(
  refusal: Refusal,
  config: RuntimeConfig | undefined,
  role: "worker" | "control",
): Refusal {
  const numbers = [...(config?.listeners.keys() ?? [])].filter(
    (k) => (config!.listeners[k]!.thread ?? "worker") === role,
  );
  const place = refusal.place.replace(
    /^\/listeners\/(\d+)/,
    (_, k) => `/listeners/${numbers[Number(k)]}`,
  );
  return { ...refusal, place };
}
