import { closeSync } from "node:fs";
import type { Readable } from "node:stream";
import { FileLook } from "./file-look.ts";
import { type Listen, type Live, Member, type Profile } from "./member.ts";
import type { HeldSocket, ListeningAt } from "./process/held-sockets.ts";
import type {
  AddressConfig,
  FromWorker,
  ListenerConfig,
  ModuleSource,
  Profiled,
  Refusal,
  RuntimeConfig,
  SharedText,
  ToWorker,
} from "./protocol.ts";
import { BEAT, listenerOf, socketName } from "./protocol.ts";
import type { RehearsalStage } from "./reload/rehearsal.ts";
import type { Change } from "./reload/stage.ts";
import { readText, sharedText } from "./shared-text.ts";
import type { Bound, ListenFailure } from "./sockets/bound.ts";
import { GATHERING_WORKERS } from "./sockets/gathering.ts";
import { socketPair } from "./sockets/socket-pair.ts";
import type { StartThread, Thread } from "./thread.ts";

/** What threads report by themselves. */
export interface FleetEvents {
  onLog(thread: Thread, message: Extract<FromWorker, { type: "log" }>): void;
  onFault(thread: Thread, message: Extract<FromWorker, { type: "fault" }>): void;
  onStats(thread: Thread, message: Extract<FromWorker, { type: "stats" }>): void;
  /** The thread's isolates are built again: their gauges begin at 0. */
  onStatsLost(thread: Thread): void;
  /** A thread was busy and has come to rest. */
  onRested?(): void;
  onLines(thread: Thread, message: Extract<FromWorker, { type: "lines" }>): void;
  onCall(name: string, args: unknown): Promise<unknown>;
  /** A sandbox of this package has taken a thread along. */
  onSandboxLost?(packageName: string): void;
  /** What a process in this one's place has to begin with (ServedFiles). */
  onFiles?(text: string): void;
  onInspected?(message: Extract<FromWorker, { type: "inspected" | "inspect_bound" }>): void;
  /** A thread has died; another one takes its place. */
  onLost(thread: Thread, reason: string): void;
}

/** Milliseconds before a thread that died is started again, by the number of its deaths. */
const RESTART_MS = [100, 1_000, 5_000] as const;

/**
 * CPU time that a call into shipped code may take (BEAT.MOST_MS; 1 s else) while the code is new, and once it has hung another thread.
 * Beside six busy loops on two cores a thread needs 2.2 s for 500 ms of it, and the code of before is to serve 3 s after a save.
 */
const NEW_MS = 300;
const DOUBTED_MS = 250;
/** `ServedFiles.text` of none. */
const NO_FILES = "[]";
/** For so long code is new. */
const NEW_FOR_MS = 10_000;

interface Socket {
  /** As the config has it. */
  readonly asked: AddressConfig;
  /** Port 0: no thread has bound it yet. */
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
  /** What new threads begin with (ServedFiles). */
  #files: SharedText = NO_FILES;
  readonly #look = new FileLook<Member>((files) => {
    for (const member of this.#members) member.post({ type: "files_found", files });
  });
  #config: RuntimeConfig | undefined;
  #generation = 0;
  #pending: Change | undefined;
  #sockets = new Map<string, Socket>();
  /** Listening sockets that this process was started with, until the first listeners are bound. */
  #held: readonly HeldSocket[];
  /** Settles when the sockets that have been asked for so far are bound, or are not. */
  #listens: Promise<unknown> = Promise.resolve();
  /** Settles when the threads that have joined so far are done with the sockets that they bind. */
  #joins: Promise<void> = Promise.resolve();
  #stopping = false;
  /** Until it is over, code is new. */
  #newCode: NodeJS.Timeout | undefined;

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

  /** What the process before has served (ServedFiles). */
  adoptFiles(text = NO_FILES): void {
    this.#files = sharedText(text);
    for (const member of this.#members) member.post({ type: "files", text: this.#files });
  }

  get files(): string {
    return readText(this.#files);
  }

  /** `rehearsed`: the canary has set the change up without a refusal. */
  async prepare(change: Change, rehearsed = true): Promise<readonly Refusal[]> {
    this.#pending = change;
    const staged = await Promise.all(
      this.#members.map((member) => member.prepare(change, this.#live, rehearsed)),
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
    // What is there at the start has been tried by starts before.
    const isStart = this.#generation === 0;
    this.#generation = generation;
    for (const module of change.modules) this.#modules.set(module.package, module);
    for (const name of change.removed) this.#modules.delete(name);
    this.#config = change.config ?? this.#config;
    const isNew = !isStart && change.modules.some((module) => module.group === "builtin");
    this.#limit(isNew ? NEW_MS : 0);
    // A copy: a thread that cannot serve the generation leaves the list.
    await Promise.all([...this.#members].map((member) => member.commit(change, this.#live)));
  }

  get #live(): Live {
    return { modules: this.#modules, config: this.#config };
  }

  async abort(generation: number): Promise<void> {
    this.#pending = undefined;
    for (const member of this.#members) member.post({ type: "abort", generation });
  }

  /**
   * Binds the listeners that are not bound yet; one whose address has not changed keeps its sockets. With port 0 the first worker
   * binds, and the others take its number. The first worker also takes the sockets that this process was started with, where the
   * config still has them. Answers the failures.
   */
  listen(listeners: readonly ListenerConfig[]): Promise<readonly ListenFailure[]> {
    const done = this.#listens.then(() => this.#listen(listeners));
    this.#listens = done.catch(() => {});
    return done;
  }

  /** Tries again to bind what could not be bound. */
  listenAgain(): Promise<readonly ListenFailure[]> {
    return this.listen(this.#config?.listeners ?? []);
  }

  async #listen(listeners: readonly ListenerConfig[]): Promise<readonly ListenFailure[]> {
    const failures: ListenFailure[] = [];
    const kept = new Map<string, Socket>();
    const wanted = listeners.flatMap(socketsOf);
    for (const { name, address } of wanted) {
      const socket = this.#sockets.get(name);
      if (socket !== undefined && isSameAddress(socket.asked, address)) kept.set(name, socket);
    }
    this.#sockets = kept;
    for (const socket of wanted) {
      if (this.#sockets.has(socket.name)) continue;
      const failure = await this.#bind(socket).catch((thrown: ListenFailure) => thrown);
      if (failure !== undefined) failures.push({ ...failure, listener: listenerOf(socket.name) });
    }
    for (const { fd } of this.#held) closeSync(fd);
    this.#held = [];
    return failures;
  }

  /** One that dies meanwhile is no failure of the listener: the thread in its place binds it. */
  async #bind(wanted: WantedSocket): Promise<undefined> {
    const { name, address } = wanted;
    const isHeld = (socket: HeldSocket) =>
      socket.name === name && isSameAddress(socket.asked, address);
    const held = this.#held.find(isHeld);
    this.#held = this.#held.filter((socket) => socket !== held);
    let { address: bound, fd } = held ?? { address, fd: undefined };
    const asked = new Set<Member>();
    // Threads may be started again meanwhile: until the socket is in the list they do not know it by themselves.
    const next = () => this.#members.find((member) => !asked.has(member) && binds(member, wanted));
    for (let member = next(); member !== undefined; member = next()) {
      asked.add(member);
      try {
        bound = await member.listen({ name, address: bound, fd });
      } catch (failure) {
        if (!member.gone) throw failure;
      }
      fd = undefined;
    }
    this.#sockets.set(name, { asked: address, address: bound });
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
    if (value === "") this.#topics.delete(topic);
    else this.#topics.set(topic, text);
    for (const member of this.#members)
      if (member.thread !== from) member.post({ type: "publish", topic, text });
  }

  /** Starts or ends a profile of a thread (`worker 0`, `control`), or of a sandbox in it. */
  async profile(thread: string, enable: boolean, of: Profiled): Promise<Profile> {
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
    this.#look.stop();
    await Promise.all(this.#members.map((member) => member.stop()));
  }

  #add(role: "worker" | "control", index: number, deaths: number): void {
    const member = new Member(role, this.#start, index, {
      onMessage: (message) => this.#onMessage(member, message),
      onExit: (reason) => this.#onExit(member, reason, deaths),
    });
    this.#members.push(member);
    for (const [topic, text] of this.#topics) member.post({ type: "publish", topic, text });
    if (this.#files !== NO_FILES) member.post({ type: "files", text: this.#files });
  }

  #onExit(member: Member, reason: string, deaths: number): void {
    this.#members.splice(this.#members.indexOf(member), 1);
    this.#look.forget(member);
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
    const sockets = () =>
      [...this.#sockets]
        .map(([name, { address }]) => ({ name, address, thread: role }))
        .filter((socket) => names.has(listenerOf(socket.name)) && binds(member, socket))
        .map(({ name }) => name);
    member.join(
      { generation: this.#generation, modules: [...this.#modules.values()], removed: [], config },
      { sockets, bind: (name, listen) => this.#bindAgain(name, listen) },
    );
  }

  /**
   * Has a thread that joins bind a socket. One thread at a time, as a socket with port 0 may have been wanted while no thread was
   * there to bind it: the first one then gets the number for all.
   */
  #bindAgain(name: string, listen: Listen): Promise<void> {
    const bound = this.#joins.then(async () => {
      const socket = this.#sockets.get(name);
      if (socket === undefined) return;
      const address = await listen(socket.address);
      if (this.#sockets.get(name) === socket) this.#sockets.set(name, { ...socket, address });
    });
    this.#joins = bound.catch(() => {});
    return bound;
  }

  /** Tells the watchdogs how long calls may take; 0: as long as ever. */
  #limit(ms: number): void {
    clearTimeout(this.#newCode);
    for (const member of this.#members) limit(member, ms);
    if (ms !== 0) this.#newCode = setTimeout(() => this.#limit(0), NEW_FOR_MS).unref();
  }

  /** The thread has gone back to the code of before: the others' watchdogs wait for less until they have, too. */
  #doubt(lost: Member): void {
    clearTimeout(this.#newCode);
    for (const member of this.#members) if (member !== lost) limit(member, DOUBTED_MS);
  }

  #onMessage(member: Member, message: FromWorker): void {
    switch (message.type) {
      case "publish":
        this.#publish(message.topic, message.text, member.thread);
        break;
      case "files":
        this.#files = sharedText(message.text);
        this.#events.onFiles?.(message.text);
        break;
      case "watch_file":
        this.#look.watch(member, message.path, message.seen);
        break;
      case "unwatch_file":
        this.#look.unwatch(member, message.path);
        break;
      case "log":
        this.#events.onLog(member.thread, message);
        break;
      case "lines":
        this.#events.onLines(member.thread, message);
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
      case "rested":
        this.#events.onRested?.();
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

interface WantedSocket {
  readonly name: string;
  readonly address: AddressConfig;
  readonly thread?: "worker" | "control";
}

function limit({ thread }: Member, ms: number): void {
  Atomics.store(new Int32Array(thread.memory.beat), BEAT.MOST_MS, ms);
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

/** A unix socket is bound by the first worker alone. */
function binds({ role, thread }: Member, { address, thread: wanted = "worker" }: WantedSocket) {
  return (
    role === wanted && (address.path === undefined || role === "control" || thread.index === 0)
  );
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
