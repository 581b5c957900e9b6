import { closeSync } from "node:fs";
import type { Readable } from "node:stream";
import type { HeldSocket, ListeningAt } from "./process/held-sockets.ts";
import type {
  AddressConfig,
  FromWorker,
  ListenerConfig,
  ModuleSource,
  ProfiledFilter,
  Refusal,
  RuntimeConfig,
  SharedText,
  ToListen,
  ToWorker,
} from "./protocol.ts";
import { BEAT, listenerOf, socketName } from "./protocol.ts";
import type { RehearsalStage } from "./reload/rehearsal.ts";
import { WrittenConfig } from "./reload/written-config.ts";
import { readText, sharedText } from "./shared-text.ts";
import { GATHERING_WORKERS } from "./sockets/gathering.ts";
import { type SocketEnd, socketPair } from "./sockets/socket-pair.ts";
import type { ThreadMemory } from "./threads.ts";

/** A new generation: changed and removed packages, and the config. */
export interface Change {
  readonly generation: number;
  readonly modules: readonly ModuleSource[];
  readonly removed: readonly string[];
  /** Undefined: the configuration stays as it is. */
  readonly config: RuntimeConfig | undefined;
}

/** Sets a change up beside what runs, and then puts it into service or drops it: the canary and the fleet do. */
export interface Stage {
  /** Sets the change up. No refusals: all is ready for `commit`. */
  prepare(change: Change): Promise<readonly Refusal[]>;
  commit(generation: number): Promise<void>;
  abort(generation: number): Promise<void>;
}

/** A worker thread or the control thread, as main sees it. */
export interface Thread {
  readonly role: "worker" | "control";
  readonly index: number;
  /** `worker 0`, `control`. */
  readonly name: string;
  readonly memory: ThreadMemory;
  post(message: ToWorker): void;
  /** A snapshot of the heap of its Node isolate, as JSON that DevTools opens. */
  heapSnapshot?(): Promise<Readable>;
  /** Ends the thread at once. `reason`: as in `onExit`. */
  kill(reason: string): void;
}

export interface ThreadEvents {
  onMessage(message: FromWorker): void;
  /** Called exactly once, when the thread has ended. `reason`: what it died of. */
  onExit(reason: string): void;
}
export type StartThread = (
  role: "worker" | "control",
  index: number,
  events: ThreadEvents,
) => Thread;

/** What threads report by themselves. */
export interface FleetEvents {
  onLog(thread: Thread, message: Extract<FromWorker, { type: "log" }>): void;
  onFault(thread: Thread, message: Extract<FromWorker, { type: "fault" }>): void;
  onStats(thread: Thread, message: Extract<FromWorker, { type: "stats" }>): void;
  /** The thread's isolates are built again: their gauges begin at 0. */
  onStatsLost(thread: Thread): void;
  onLines(message: Extract<FromWorker, { type: "lines" }>): void;
  onCall(name: string, args: unknown): Promise<unknown>;
  /** A sandbox of this package has taken a thread along. */
  onSandboxLost?(packageName: string): void;
  onInspected?(message: Extract<FromWorker, { type: "inspected" | "inspect_bound" }>): void;
  /** A thread has died; another one takes its place. */
  onLost(thread: Thread, reason: string): void;
}

/** Setups may wait for 15 s (`waitFor`); this leaves room beyond that. */
const PREPARE_MS = 20_000;
const COMMIT_MS = 5_000;
const LISTEN_MS = 5_000;
const PROFILE_MS = 60_000;
/** How long to wait for the log lines of a thread that may hang. */
const LINES_MS = 1_000;
/** How often a thread is given a generation that it loses with its isolate, before it is ended. */
const SET_UP_TIMES = 3;
/** Milliseconds that a thread may be silent: the watchdog ends an isolate after 1 s, and a setup is bounded by PREPARE_MS. */
const BOX_MS = 1_000;
const SETUP_BOX_MS = PREPARE_MS;
/** Milliseconds before a thread that died is started again, by the number of its deaths. */
const RESTART_MS = [100, 1_000, 5_000] as const;

export interface Bound {
  readonly name: string;
  /** The address it is bound to, with the number that port 0 became. */
  readonly address: AddressConfig;
}

/** A listener whose address could not be bound. */
export interface ListenFailure {
  readonly listener: string;
  /** The socket's error code (`EADDRINUSE`), or "". */
  readonly code: string;
  readonly message: string;
}

interface Socket {
  /** As the config has it. */
  readonly asked: AddressConfig;
  readonly address: AddressConfig;
}

/** The workers and the control thread together: a generation goes into service on all of them, or on none. */
export class Fleet implements RehearsalStage {
  readonly #start: StartThread;
  readonly #events: FleetEvents;
  readonly #members: Member[] = [];
  readonly #modules = new Map<string, ModuleSource>();
  /** The last value of each topic, as JSON. */
  readonly #topics = new Map<string, SharedText>();
  #config: RuntimeConfig | undefined;
  #generation = 0;
  #pending: Change | undefined;
  #sockets: ReadonlyMap<string, Socket> = new Map();
  /** Listening sockets that this process was started with, until the first listeners are bound. */
  #held: readonly HeldSocket[];
  #stopping = false;

  constructor(
    start: StartThread,
    events: FleetEvents,
    concurrency: number,
    held: readonly HeldSocket[] = [],
  ) {
    this.#held = held;
    this.#start = start;
    this.#events = events;
    for (let i = 0; i < concurrency; i++) this.#add("worker", i, 0);
    this.#add("control", concurrency, 0);
    this.#connectWorkers(() => true);
  }

  /** Connects the workers whose index `which` accepts with worker 0, so that they can pass connections on to it (Gathering). */
  #connectWorkers(which: (index: number) => boolean): void {
    const workers = this.#members.filter((member) => member.role === "worker");
    const first = workers.find((member) => member.thread.index === 0);
    for (const member of workers) {
      const { index } = member.thread;
      if (first === undefined || member === first || !which(index) || index >= GATHERING_WORKERS)
        continue;
      socketPair().then(
        ([taken, given]) => {
          first.lend(taken, "take_from");
          member.lend(given, "give_through");
        },
        // Without a socket pair, a worker serves all connections that it accepts.
        () => {},
      );
    }
  }

  /** `rehearsed`: the canary has set the change up without a refusal. */
  async prepare(change: Change, rehearsed = true): Promise<readonly Refusal[]> {
    this.#pending = change;
    const staged = await Promise.all(
      this.#members.map((member) => member.prepare(change, this.#config, rehearsed)),
    );
    // Don't wait for the others then: they may wait for something that the refusing thread would have told them.
    const refusals = staged.flatMap((stage) => stage.refusals);
    if (refusals.length > 0) return refusals;
    return (await Promise.all(staged.map((stage) => stage.prepared))).flat();
  }

  /** The listeners that services bring along, as the threads have prepared them; each once. */
  serviceListeners(): readonly unknown[] {
    const all = this.#members.flatMap(({ brought }) => JSON.parse(brought) as unknown[]);
    return [...new Map(all.map((listener) => [JSON.stringify(listener), listener])).values()];
  }

  /** Gives the listeners of services to the control thread. */
  async extend(config: RuntimeConfig, nth: number): Promise<readonly Refusal[]> {
    const { generation = 0, modules = [], removed = [] } = this.#pending ?? {};
    this.#pending = { generation, modules, removed, config };
    const control = this.#members.filter((member) => member.role === "control");
    const staged = await Promise.all(
      control.map((member) => member.extend(generation, config, nth)),
    );
    return (await Promise.all(staged.map((stage) => stage.prepared))).flat();
  }

  async commit(generation: number): Promise<void> {
    const change = this.#pending;
    if (change?.generation !== generation)
      throw new Error(`generation ${generation} was not prepared`);
    this.#pending = undefined;
    this.#generation = generation;
    for (const module of change.modules) this.#modules.set(module.package, module);
    for (const name of change.removed) this.#modules.delete(name);
    this.#config = change.config ?? this.#config;
    // A copy: a thread that cannot serve the generation leaves the list.
    await Promise.all([...this.#members].map((member) => member.commit(change, this.#config)));
  }

  async abort(generation: number): Promise<void> {
    this.#pending = undefined;
    for (const member of this.#members) member.post({ type: "abort", generation });
  }

  /**
   * Binds the listeners that are not bound yet; one whose address has not changed keeps its sockets. With port 0 the first worker
   * binds, and the others take its number. A unix socket belongs to the first worker alone. The first worker also takes the
   * sockets that this process was started with, where the config still has them. Answers the failures.
   */
  async listen(listeners: readonly ListenerConfig[]): Promise<readonly ListenFailure[]> {
    const failures: ListenFailure[] = [];
    const kept = new Map<string, Socket>();
    const wanted = listeners.flatMap(socketsOf);
    for (const { name, address } of wanted) {
      const socket = this.#sockets.get(name);
      if (socket !== undefined && isSameAddress(socket.asked, address)) kept.set(name, socket);
    }
    for (const socket of wanted) {
      if (kept.has(socket.name)) continue;
      const address = await this.#bind(socket).catch((failure: ListenFailure) => failure);
      if ("message" in address) failures.push({ ...address, listener: listenerOf(socket.name) });
      else kept.set(socket.name, { asked: socket.address, address });
    }
    this.#sockets = kept;
    for (const { fd } of this.#held) closeSync(fd);
    this.#held = [];
    return failures;
  }

  async #bind({ name, address, thread = "worker" }: WantedSocket): Promise<AddressConfig> {
    const members = this.#members.filter((member) => member.role === thread);
    const isHeld = (socket: HeldSocket) =>
      socket.name === name && isSameAddress(socket.asked, address);
    const held = this.#held.find(isHeld);
    this.#held = this.#held.filter((socket) => socket !== held);
    let bound = held?.address ?? address;
    for (const [k, member] of members.entries()) {
      if (k > 0 && address.path !== undefined) break;
      bound = await member.listen({ name, address: bound, fd: k === 0 ? held?.fd : undefined });
    }
    return bound;
  }

  /** The sockets that a process in this one's place has to listen at, if this one dies. */
  listening(listeners: readonly ListenerConfig[]): readonly ListeningAt[] {
    const backlogs = new Map(listeners.map(({ name, backlog = 0 }) => [name, backlog]));
    return [...this.#sockets].flatMap(([name, { asked, address }]) =>
      asked.path !== undefined || asked.udp === true
        ? []
        : { name, asked, address, backlog: backlogs.get(listenerOf(name)) ?? 0 },
    );
  }

  get bound(): readonly Bound[] {
    return [...this.#sockets].map(([name, { address }]) => ({ name: listenerOf(name), address }));
  }

  /** For the supervisor: how long each thread may be silent now, and the sandboxed package that it is inside. */
  boxes(): readonly {
    readonly thread: Thread;
    readonly boxMs: number;
    readonly inside: string | undefined;
  }[] {
    return this.#members.map(({ thread, boxMs, inside }) => ({ thread, boxMs, inside }));
  }

  /** The last value that was published. */
  topic(name: string): unknown {
    return JSON.parse(readText(this.#topics.get(name) ?? "null"));
  }
  publish(topic: string, value: unknown): void {
    this.#publish(topic, JSON.stringify(value ?? null));
  }

  #publish(topic: string, value: string, from?: Thread): void {
    const text = sharedText(value);
    this.#topics.set(topic, text);
    for (const member of this.#members)
      if (member.thread !== from) member.post({ type: "publish", topic, text });
  }

  /** Starts or ends a profile of a thread (`worker 0`, `control`), or of a sandbox in it. */
  async profile(thread: string, enable: boolean, of?: ProfiledFilter): Promise<Profiled> {
    const member = this.#members.find((m) => m.thread.name === thread);
    if (member === undefined) return { profile: "", error: `there is no thread "${thread}"` };
    return member.profile(enable, of);
  }

  /** A snapshot of core's half of a thread. Rejects if there is no such thread. */
  async heapSnapshot(thread: string): Promise<Readable> {
    const member = this.#members.find((m) => m.thread.name === thread);
    if (member === undefined) throw new Error(`there is no thread "${thread}"`);
    return member.heapSnapshot();
  }

  /** A message of a debugger to the sandboxes of the first worker. */
  inspect(message: Extract<ToWorker, { type: "inspect" }>): void {
    this.#members.find((member) => member.thread.name === "worker 0")?.post(message);
  }

  /** Settles when all threads have sent the log lines that waited in them. */
  async flushLines(): Promise<void> {
    await Promise.all(this.#members.map((member) => member.flushLines()));
  }

  /** `ask`: connections of these listeners are asked to close. `stop`: the listeners accept no more; open connections stay. */
  drainListeners(
    names: readonly string[],
    how: { readonly ask: boolean; readonly stop: boolean },
  ): void {
    for (const member of this.#members) member.post({ type: "drain_listeners", names, ...how });
  }

  /** Stops accepting. Settles when all connections have ended, or after `ms`. */
  async drain(ms: number): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#members.map((member) => member.drain(ms)));
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#members.map((member) => member.stop()));
  }

  #add(role: "worker" | "control", index: number, deaths: number): void {
    const member = new Member(role, this.#start, index, {
      onMessage: (message) => this.#onMessage(member, message),
      onExit: (reason) => this.#onExit(member, reason, deaths),
    });
    this.#members.push(member);
    for (const [topic, text] of this.#topics) member.post({ type: "publish", topic, text });
  }

  #onExit(member: Member, reason: string, deaths: number): void {
    this.#members.splice(this.#members.indexOf(member), 1);
    if (this.#stopping) return;
    this.#events.onLost(member.thread, reason);
    const again = Date.now() - member.since > 60_000 ? 0 : deaths;
    const ms = RESTART_MS[Math.min(again, RESTART_MS.length - 1)]!;
    setTimeout(() => {
      if (!this.#stopping) this.#revive(member.role, member.thread.index, again + 1);
    }, ms);
  }

  /** Brings a new thread to the generation that the others run. */
  #revive(role: "worker" | "control", index: number, deaths: number): void {
    this.#add(role, index, deaths);
    if (role === "worker") this.#connectWorkers((other) => index === 0 || other === index);
    const member = this.#members.at(-1)!;
    const config = this.#config;
    if (config === undefined) return;
    const names = new Set(
      config.listeners.filter((l) => (l.thread ?? "worker") === role).map((l) => l.name),
    );
    // A unix socket is the first worker's alone.
    const takes = ({ name, address }: Bound) =>
      names.has(listenerOf(name)) &&
      (address.path === undefined || role === "control" || index === 0);
    member.join(
      { generation: this.#generation, modules: [...this.#modules.values()], removed: [], config },
      [...this.#sockets].map(([name, { address }]) => ({ name, address })).filter(takes),
    );
  }

  /** The thread has gone back to the code of before: the others' watchdogs wait for less until they have, too. */
  #doubt(lost: Member): void {
    for (const { thread } of this.#members)
      if (thread !== lost.thread)
        Atomics.store(new Int32Array(thread.memory.beat), BEAT.DOUBTED, 1);
  }

  #onMessage(member: Member, message: FromWorker): void {
    switch (message.type) {
      case "publish":
        this.#publish(message.topic, message.text, member.thread);
        break;
      case "log":
        this.#events.onLog(member.thread, message);
        break;
      case "lines":
        this.#events.onLines(message);
        break;
      case "box":
        member.boxes.set(message.box, message.package);
        break;
      case "fault":
        if (message.reverted !== undefined && message.reverted.length > 0) this.#doubt(member);
        this.#events.onFault(member.thread, message);
        break;
      case "lost":
        this.#events.onSandboxLost?.(message.package);
        break;
      case "stats_lost":
        this.#events.onStatsLost(member.thread);
        break;
      case "stats":
        this.#events.onStats(member.thread, message);
        break;
      case "inspected":
      case "inspect_bound":
        this.#events.onInspected?.(message);
        break;
      case "call": {
        const { call } = message;
        const reply = (value: unknown, error: string | undefined) =>
          member.post({ type: "reply", call, value, error });
        this.#events.onCall(message.name, message.args).then(
          (value) => reply(value, undefined),
          (error: Error) => reply(undefined, error.message),
        );
      }
    }
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

interface WantedSocket {
  readonly name: string;
  readonly address: AddressConfig;
  readonly thread?: "worker" | "control";
}

function socketsOf(listener: ListenerConfig): WantedSocket[] {
  if (listener.bindToPort === false) return [];
  const { name, address, additionalAddresses = [], thread = "worker" } = listener;
  return [address, ...additionalAddresses].map((at, k) => ({
    name: socketName(name, k),
    address: at,
    thread,
  }));
}

function isSameAddress(a: AddressConfig, b: AddressConfig): boolean {
  return (
    a.ip === b.ip &&
    a.port === b.port &&
    a.path === b.path &&
    a.udp === b.udp &&
    a.ipv4Compat === b.ipv4Compat
  );
}

type Profiled = Omit<Extract<FromWorker, { type: "profiled" }>, "type">;

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
class Member {
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
  /** It has gone back to the generation before by itself, and so to the config of that one. */
  #isBehind = false;

  constructor(role: "worker" | "control", start: StartThread, index: number, events: ThreadEvents) {
    this.role = role;
    this.thread = start(role, index, {
      onMessage: (message) => {
        if (message.type === "prepared") this.#prepared = message.generation;
        else if (message.type === "refused") this.#prepared = undefined;
        else if (message.type === "fault" && message.reverted !== undefined) this.#isBehind = true;
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

  /** Sets a new thread up with what the others run. Changes wait for it; if it fails, the thread is ended. */
  join(change: Change, listeners: readonly Bound[]): void {
    const join = async () => {
      await this.#takeUp(change, change.config);
      for (const listener of listeners)
        await this.listen(listener).catch(({ message }: ListenFailure) =>
          this.thread.kill(`it could not listen at "${listener.name}" again: ${message}`),
        );
    };
    this.#joined = join();
  }

  /** `live`: the config that serves. */
  async prepare(
    change: Change,
    live: RuntimeConfig | undefined,
    rehearsed: boolean,
  ): Promise<Staged> {
    await this.#joined;
    return this.#prepare(change, live, rehearsed);
  }

  #prepare(change: Change, live: RuntimeConfig | undefined, rehearsed = true): Promise<Staged> {
    const whole = change.config ?? (this.#isBehind ? live : undefined);
    const config = whole && WrittenConfig.of(whole).for(this.role);
    return this.#stage({ type: "prepare", ...change, config, rehearsed }, whole);
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

  /** `live`: the config that serves. Settles when the thread serves the change, or has been ended because it cannot. */
  async commit(change: Change, live: RuntimeConfig | undefined): Promise<void> {
    await this.#joined;
    await this.#takeUp(change, live);
  }

  /**
   * Puts a change into service. A thread that was started again since the others prepared it, or has lost it with its isolate, sets
   * it up now.
   */
  async #takeUp(change: Change, live: RuntimeConfig | undefined): Promise<void> {
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
    this.#isBehind = false;
    this.#running = true;
    return true;
  }

  /** Binds a listener. Answers the address it got; rejects with a ListenFailure. */
  async listen(listener: ToListen): Promise<AddressConfig> {
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
    const failure: ListenFailure = { listener: listener.name, code, message: text };
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

  async profile(enable: boolean, of: ProfiledFilter | undefined): Promise<Profiled> {
    const answer = this.#answer(PROFILE_MS, (message) => message.type === "profiled");
    this.post({ type: "profile", enable, ...(of !== undefined && { of }) });
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
    const gone = this.#answer(1_000, () => false);
    this.post({ type: "stop" });
    await gone;
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
