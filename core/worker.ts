import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { CellHeap } from "@tsproxy/sdk";
import { collectGarbage } from "./admin/garbage.ts";
import { ThreadGarbage } from "./admin/thread-garbage.ts";
import { ThreadProfile } from "./admin/thread-profile.ts";
import { Boxes, SandboxCells } from "./boxes.ts";
import { Builtin } from "./builtin.ts";
import { BuiltinCalls } from "./builtin-calls.ts";
import { CompiledCode } from "./compiled-code.ts";
import { type EarlyThread, onLoaded, untilAllLoaded } from "./early-threads.ts";
import { FetchQueue } from "./fetch-queue.ts";
import { createRing, TURNS } from "./inside/ring.ts";
import { giveBack } from "./inside/shared-counts.ts";
import { CERTIFICATES_TOPIC, NODE_TOPIC, RUNTIME_TOPIC } from "./inside/topics.ts";
import { compileScripts, Watchdog } from "./isolate.ts";
import { IsolateNumbers } from "./isolate-numbers.ts";
import { LocalServices } from "./local-services.ts";
import { linesOfNow } from "./logs/gathered-lines.ts";
import { onceATurn } from "./once-a-turn.ts";
import { COMPILED } from "./packages/build-cache.ts";
import { MOST_PATIENCE } from "./process/cpu-limit.ts";
import { Marks } from "./process/marks.ts";
import { signThread } from "./process/thread-cpu.ts";
import type {
  FromWorker,
  ModuleSource,
  Profiled,
  Refusal,
  SharedText,
  ThreadConfig,
  ToListen,
  ToWorker,
  WorkerStart,
} from "./protocol.ts";
import { BEAT, listenerOf } from "./protocol.ts";
import { RebuildWait } from "./rebuild-wait.ts";
import { refusalOf } from "./reload/refusal.ts";
import {
  changedBy,
  changedPackages,
  changeLost,
  type Live,
  type Pending,
  withCodeOf,
} from "./reload/thread-generation.ts";
import { BLAME_MS, Trail } from "./reload/trail.ts";
import { SandboxImage } from "./sandbox/image.ts";
import type { SandboxIsolate } from "./sandbox/isolate.ts";
import { Supply } from "./sandbox/supply.ts";
import { ServedFiles } from "./served-files.ts";
import { readText } from "./shared-text.ts";
import { bindListeners, configureListeners } from "./sockets/bind-listeners.ts";
import { Crossing } from "./sockets/crossing.ts";
import { Gathering } from "./sockets/gathering.ts";
import type { Listening } from "./sockets/listening-sockets.ts";
import { Sockets } from "./sockets/sockets.ts";
import type { StreamHandle } from "./sockets/stream-handle.ts";
import { Contexts } from "./sockets/tls.ts";
import { WatchedFiles } from "./watched-files.ts";

/** Messages that are handled only once the builtin isolate has been built again: the lost one cannot obey them. */
const WAITING: ReadonlySet<ToWorker["type"]> = new Set(["prepare", "listen", "drain_listeners"]);

/** How often sandboxes are looked at. A thread that is later than this by as much again has stood still, as in a suspended machine. */
const TICK_MS = 1_000;
/** How long a thread that stops waits for sandboxed access loggers to take the entries that they have not been sent. */
const FLUSH_LOGS_MS = 250;

/** One thread: its sockets, its builtin isolate, its sandboxes; and the generations they pass through. */
class Worker {
  readonly #start: WorkerStart;
  readonly #post: (message: FromWorker) => void;
  #watched: WatchedFiles | undefined;
  readonly #files = new ServedFiles(
    onceATurn(() => {
      if (this.#isFirst) this.#post({ type: "files", text: this.#files.text });
    }),
  );
  #builtin: Builtin;
  #crossing: Crossing;
  #sockets: Sockets;
  #boxes: Boxes;
  readonly #cells: SandboxCells;
  readonly #numbers: IsolateNumbers;
  readonly #supply: Supply;
  readonly #watchdog: Watchdog;
  readonly #gathering: Gathering;
  /** The builtin isolate was lost and is being built again. */
  #isDead = false;
  /** The builtin isolate that was lost last. */
  #lost: Builtin | undefined = undefined;
  /** Messages of main that came meanwhile (WAITING), in their order. */
  #waiting: ToWorker[] = [];
  /** Its listening sockets, which stay open meanwhile. */
  #listeners: ReadonlyMap<string, Listening> = new Map();
  /** Connections that other workers have passed on meanwhile. */
  #given: { readonly name: string; readonly handle: StreamHandle }[] = [];
  readonly #garbage: ThreadGarbage;
  #live: Live = { modules: new Map(), config: undefined };
  /** What served before `#live`. */
  readonly #trail = new Trail<Live>();
  #pending: Pending | undefined = undefined;
  #generation = 0;
  readonly #rebuildWait = new RebuildWait(BLAME_MS);
  #stopping = false;
  readonly #calls: BuiltinCalls;
  readonly #fetches = new FetchQueue(
    ({ box, text, bytes, builtin }) => {
      // Another builtin isolate has taken the place of that one, whose streams are gone.
      if (builtin !== this.#builtin || builtin.disposed) return;
      this.#guarded(() => builtin.fetch(box, text, bytes.toString("latin1")));
    },
    () => this.#crossing.poke(),
  );
  readonly #compiled: CompiledCode;
  readonly #ownProfile = new ThreadProfile();
  readonly #beats: Int32Array;
  readonly #marks: Marks | undefined;

  constructor(start: WorkerStart, post: (message: FromWorker) => void) {
    this.#start = start;
    this.#post = post;
    this.#calls = new BuiltinCalls({
      post,
      lines: start.lines,
      boxes: () => this.#boxes,
      reply: (call, value, error) => this.#reply(call, value, error),
      onPrepared: (generation) => this.#onReady(generation, "builtin"),
    });
    this.#beats = new Int32Array(start.beat);
    signThread(this.#beats);
    const { marks, index, role } = start;
    if (marks !== undefined) this.#marks = new Marks(marks, role === "control" ? 0 : index + 1);
    this.#watchdog = new Watchdog(start.beat);
    this.#gathering = new Gathering(start.gathering, start.index);
    this.#numbers = new IsolateNumbers(start.thread);
    this.#cells = new SandboxCells(start.stats, post);
    const image = new SandboxImage(start.prelude.sandbox, () => post({ type: "image_wanted" }));
    this.#supply = new Supply(image, this.#numbers);
    // What further workers load, the first one has loaded too.
    this.#compiled = new CompiledCode(COMPILED, this.#isFirst || role === "control");
    [this.#builtin, this.#crossing, this.#sockets, this.#boxes] = this.#build();
    this.#garbage = new ThreadGarbage({
      index,
      hasTraffic: role === "worker",
      counts: () => this.#crossing.counts,
      collect: (flavor) => {
        this.#guarded(() => this.#builtin.disposed || this.#builtin.collectGarbage(flavor));
        if (flavor === "regular") this.#watchdog.collectGarbage();
      },
      onStarted: () => this.#compiled.keep(compileScripts),
      onRested: () => post({ type: "rested" }),
    });
    setInterval(() => {
      this.#beats[0]!++;
      if (this.#isFirst) this.#gathering.tick();
    }, 100).unref();
    let ticked = performance.now();
    setInterval(() => {
      const now = performance.now();
      const lateMs = now - ticked - TICK_MS;
      ticked = now;
      this.#boxes.expire(now, lateMs > TICK_MS ? lateMs : 0);
      this.#garbage.tick();
    }, TICK_MS).unref();
  }

  /** True in worker 0. */
  get #isFirst(): boolean {
    return this.#start.role === "worker" && this.#start.index === 0;
  }

  #build(): [Builtin, Crossing, Sockets, Boxes] {
    const ring = createRing(this.#start.sizes);
    const contexts = new Contexts(this.#start.secret);
    contexts.onKeyLog = (path, text) => this.#post(linesOfNow(path, text));
    if (this.#isFirst)
      contexts.onChanged = onceATurn(() => {
        const text = JSON.stringify(contexts.describe());
        this.#post({ type: "publish", topic: CERTIFICATES_TOPIC, text });
      });
    this.#watched?.stop();
    this.#watched = new WatchedFiles(this.#files, this.#post, (path) => this.#onFileChanged(path));
    this.#files.restore();
    this.#calls.services = new LocalServices(contexts, this.#files, this.#watched);
    const builtin = new Builtin({
      role: this.#start.role,
      worker: this.#start.index,
      isolate: this.#numbers.next(),
      node: this.#start.node,
      prelude: this.#start.prelude,
      ring,
      stats: this.#start.stats,
      turns: this.#start.turns,
      counts: this.#start.counts,
      ledger: this.#start.ledger,
      chunks: this.#calls.chunks,
      fileFlush: this.#start.fileFlush,
      statsFrom: this.#calls.statsUsed,
      compiled: this.#compiled,
      watchdog: this.#watchdog,
      moduleOf: (name, isPrepared) => this.#moduleOf(name, isPrepared),
      park: (module, isPrepared) => this.#park(module, isPrepared),
      onCall: (name, text) => this.#calls.call(name, text),
    });
    // Its code has been tried. HangWatch finds a loop by its CPU time; a call that the clock stopped would cost the isolate.
    builtin.patience = MOST_PATIENCE;
    const onDead = (error: unknown) => this.#onDead(builtin, error);
    const { index, node, role } = this.#start;
    const gathering = role === "worker" ? this.#gathering : undefined;
    const crossing = new Crossing(ring, builtin.run);
    const sockets = new Sockets(crossing, onDead, contexts, gathering);
    const boxes = new Boxes({
      supply: this.#supply,
      watchdog: this.#watchdog,
      worker: index,
      node,
      sockets,
      crossing,
      stats: this.#cells,
      post: this.#post,
      beats: this.#beats,
      marks: this.#marks,
      // Setups of sandboxes run on other threads, so the builtin isolate is free to be entered here.
      onReads: (use, mask) => this.#guarded(() => builtin.narrow(use, mask)),
      onPolicy: (use, told) => this.#guarded(() => builtin.learnPolicy(use, told)),
      onGate: (box, isolate) => this.#guarded(() => this.#tellGate(builtin, box, isolate)),
      onFetch: (box, text, bytes) =>
        this.#fetches.push({ box, text, bytes, builtin: this.#builtin }),
      onConfined: ({ use, part }, isConfined) =>
        this.#guarded(() => builtin.confine(use, part, isConfined)),
    });
    for (const [topic, kept] of this.#calls.topics) {
      const text = readText(kept);
      builtin.publish(topic, text);
      if (topic === RUNTIME_TOPIC) boxes.setRuntime(text);
      else if (topic === NODE_TOPIC) boxes.node = JSON.parse(text);
    }
    return [builtin, crossing, sockets, boxes];
  }

  #tellGate(builtin: Builtin, box: number, isolate: SandboxIsolate | undefined): void {
    if (builtin.disposed) return;
    if (isolate === undefined) {
      builtin.closeGate(box);
      return;
    }
    builtin.openGate(box, {
      block: isolate.memory.box,
      state: isolate.gate.buffer as SharedArrayBuffer,
      beats: this.#start.beat,
      insideAt: BEAT.INSIDE,
      turnsAt: BEAT.TURNS,
      run: isolate.entry,
    });
  }

  #onFileChanged(path: string): void {
    this.#guarded(() => this.#builtin.publish(`core.file:${path}`, `${performance.now()}`));
    this.#crossing.poke();
  }

  #reply(call: number, value: unknown, error: string | undefined): void {
    this.#guarded(() => this.#builtin.reply(call, value, error));
    this.#crossing.poke();
  }

  /** Enters the builtin isolate outside a flush; `poke` runs the commands that this leaves. If it throws, the isolate is lost. */
  #guarded(enter: () => void): void {
    try {
      enter();
    } catch (error) {
      this.#onDead(this.#builtin, error);
    }
  }

  // ---- generations

  onMessage(message: ToWorker): void {
    if (this.#isDead && WAITING.has(message.type)) {
      this.#waiting.push(message);
      return;
    }
    switch (message.type) {
      case "prepare":
        this.#prepare(message);
        break;
      case "extend":
        this.#extend(message);
        break;
      case "commit":
        this.#commit(message.generation);
        break;
      case "abort":
        this.#waiting = this.#waiting.filter(({ type }) => type !== "prepare");
        if (this.#pending?.generation === message.generation && !this.#isDead)
          this.#drop(this.#pending);
        break;
      case "listen":
        void this.#listen(message.listeners);
        break;
      case "take_from":
        this.#gathering.takeFrom(message.fd, (name, handle) => this.#onGiven(name, handle));
        break;
      case "give_through":
        this.#gathering.giveThrough(message.fd);
        break;
      case "publish":
        this.#onPublished(message.topic, message.text);
        break;
      case "reply":
        this.#reply(message.call, message.value, message.error);
        break;
      case "files":
        this.#files.adopt(readText(message.text));
        break;
      case "files_found":
        this.#watched?.onFound(message.files);
        break;
      case "image":
        this.#supply.useSnapshot(message.snapshot);
        break;
      case "drain":
        void this.#drain(message.ms);
        break;
      case "drain_listeners":
        if (message.stop)
          for (const name of this.#sockets.listening.names)
            if (message.names.includes(listenerOf(name)))
              void this.#sockets.listening.unlisten(name);
        if (message.ask)
          this.#guarded(() => this.#builtin.drainListeners(message.names, this.#start.drain));
        this.#crossing.poke();
        break;
      case "profile":
        void this.#profile(message.enable, message.of);
        break;
      case "inspect":
        this.#boxes.inspect(message);
        break;
      case "flush_lines":
        void this.#flushLogs().then(() => this.#post({ type: "lines_flushed" }));
        break;
      case "stop":
        void this.#stop();
        break;
    }
  }

  /** Called with a connection that another worker has accepted and passed on. */
  #onGiven(name: string, handle: StreamHandle): void {
    if (this.#isDead) this.#given.push({ name, handle });
    else this.#sockets.take(name, handle);
  }

  #onPublished(topic: string, published: SharedText): void {
    this.#calls.note(topic, published);
    const text = readText(published);
    this.#guarded(() => this.#builtin.publish(topic, text));
    if (topic === RUNTIME_TOPIC) this.#boxes.setRuntime(text);
    else if (topic === NODE_TOPIC) this.#boxes.node = JSON.parse(text);
    this.#crossing.poke();
  }

  /** Starts or ends a profile of a sandboxed filter, or of this thread. */
  async #profile(enable: boolean, { filter, kind, isShared }: Profiled): Promise<void> {
    let profile = "";
    let error: string | undefined;
    try {
      if (isShared) {
        if (!enable) profile = await this.#builtin.heapSnapshot();
      } else if (filter !== undefined) {
        if (enable) await this.#boxes.startProfile(filter, kind);
        else profile = await this.#boxes.stopProfile(filter);
      } else if (kind === "snapshot") throw new Error("no profile of a thread is a snapshot");
      else if (enable) await this.#ownProfile.start(kind);
      else profile = await this.#ownProfile.stop();
    } catch (thrown) {
      error = thrown instanceof Error ? thrown.message : String(thrown);
    }
    this.#post({ type: "profiled", profile, error });
  }

  #prepare(message: Extract<ToWorker, { type: "prepare" }>): void {
    const { generation, modules, removed, config, rehearsed } = message;
    const pending: Pending = {
      generation,
      live: changedBy(this.#live, modules, removed, config),
      boxes: new Map(),
      removed,
      builtinReady: false,
      boxesReady: false,
    };
    if (this.#pending !== undefined) this.#drop(this.#pending);
    this.#pending = pending;
    let brought = "[]";
    const refusals = this.#tried(() => {
      const staged = this.#stage(pending, modules, config, rehearsed);
      if (staged.length === 0) brought = this.#builtin.serviceListeners();
      return staged;
    });
    if (refusals.length > 0) this.#refuse(pending, refusals);
    else {
      this.#post({ type: "staged", generation, brought });
      void this.#prepareBoxes(pending);
    }
    // After the setups of sandboxes have begun, which other threads run meanwhile.
    this.#crossing.pokeSoon();
  }

  #extend({ generation, config, listeners, nth }: Extract<ToWorker, { type: "extend" }>): void {
    const pending = this.#pending;
    if (pending?.generation !== generation) {
      this.#post({ type: "refused", generation, refusals: [refusalOf("", changeLost())] });
      return;
    }
    pending.live = { ...pending.live, config };
    pending.builtinReady = pending.boxesReady = false;
    const refusals = this.#tried(() => this.#builtin.extend(listeners, nth));
    if (refusals.length > 0) this.#refuse(pending, refusals);
    else void this.#prepareBoxes(pending);
    this.#crossing.poke();
  }

  /** Loads the changed modules and runs their setups beside what serves now. */
  #stage(
    pending: Pending,
    modules: readonly ModuleSource[],
    config: ThreadConfig | undefined,
    rehearsed = true,
  ): readonly Refusal[] {
    const { generation, removed } = pending;
    this.#files.prepare();
    return this.#tried(() => {
      const refusals: Refusal[] = [];
      const changed = this.#load(modules, refusals);
      if (refusals.length > 0) return refusals;
      return this.#builtin.prepare({
        generation,
        changed,
        removed,
        rehearsed,
        config: config && readText(config.text),
      });
    });
  }

  #tried(run: () => readonly Refusal[]): readonly Refusal[] {
    try {
      return run();
    } catch (error) {
      return [refusalOf("", error)];
    }
  }

  /** Loads changed modules. Answers those of them that were in use, and so have to be set up again. */
  #load(modules: readonly ModuleSource[], refusals: Refusal[]): string[] {
    const refuse = ({ package: name }: ModuleSource, error: unknown) =>
      void refusals.push(refusalOf(name, error));
    const parked = modules.filter(
      ({ group, package: name }) => group !== "builtin" && this.#builtin.knows(name),
    );
    for (const module of parked) {
      try {
        this.#park(module, true);
      } catch (error) {
        refuse(module, error);
      }
    }
    const own = modules.filter((module) => module.group === "builtin");
    const updated = this.#builtin.update(own, refuse);
    return [...updated, ...parked.map((module) => module.package)];
  }

  /** Makes a box for a package that a config names for the first time, or for its new code, which ends with a dropped change. */
  #park(module: ModuleSource, isPrepared: boolean): void {
    const { box, ward, hooks } = this.#boxes.add(module);
    if (isPrepared) this.#pending?.boxes.set(module.package, box);
    const [kind, name] = module.package.split("/");
    const { manifest } = module;
    const description = JSON.stringify({ kind, name, ward, hooks, manifest });
    this.#builtin.defineParked(module.package, box, description);
  }

  #moduleOf(packageName: string, isPrepared: boolean): ModuleSource | undefined {
    const { live } = (isPrepared ? this.#pending : undefined) ?? { live: this.#live };
    return live.modules.get(packageName);
  }

  async #prepareBoxes(pending: Pending): Promise<void> {
    const refusals = await this.#boxes.prepare();
    if (this.#pending !== pending) return;
    if (refusals.length > 0) this.#refuse(pending, refusals);
    else this.#onReady(pending.generation, "boxes");
  }

  #refuse(pending: Pending, refusals: readonly Refusal[]): void {
    this.#drop(pending);
    this.#post({ type: "refused", generation: pending.generation, refusals });
  }

  #drop(pending: Pending): void {
    this.#pending = undefined;
    this.#files.abort();
    this.#guarded(() => this.#builtin.abort());
    for (const box of pending.boxes.values()) this.#boxes.drop(box);
    this.#crossing.poke();
  }

  #onReady(generation: number, who: "builtin" | "boxes"): void {
    const pending = this.#pending;
    if (pending?.generation !== generation) return;
    if (who === "builtin") pending.builtinReady = true;
    else pending.boxesReady = true;
    if (!pending.builtinReady || !pending.boxesReady) return;
    if (pending.onReady !== undefined) pending.onReady();
    else this.#post({ type: "prepared", generation });
  }

  #commit(generation: number): void {
    const pending = this.#pending;
    if (pending?.generation !== generation) return;
    this.#pending = undefined;
    this.#boxes.commit(pending.boxes);
    this.#guarded(() => this.#builtin.commit(this.#start.drain));
    this.#files.commit();
    for (const name of pending.removed) this.#boxes.removePackage(name);
    if (this.#generation > 0) this.#trail.left(this.#live, performance.now());
    this.#live = pending.live;
    this.#generation = generation;
    configureListeners(this.#sockets.listening, this.#live.config?.listeners ?? []);
    // Told first, since code that hangs keeps the thread from telling it.
    this.#post({ type: "committed", generation });
    this.#crossing.poke();
    this.#garbage.onCommit(generation === 1);
  }

  async #listen(listeners: readonly ToListen[]): Promise<void> {
    const configs = this.#live.config?.listeners ?? [];
    const bound = await bindListeners(this.#sockets.listening, listeners, configs);
    if ("code" in bound) this.#post({ type: "listen_failed", ...bound });
    else this.#post({ type: "listening", listeners: bound });
  }

  // ---- the end of an isolate, of the worker

  /**
   * Called when the builtin isolate threw out of its event loop, ran out of memory, or was ended by the watchdog. Its connections
   * are lost. Another one is built with the generation that ran, or with the one of a minute ago (BLAME_MS) if code has changed since.
   */
  #onDead(builtin: Builtin, error: unknown): void {
    // Each call into an isolate that has ended fails, and comes here: the first alone counts.
    if (builtin !== this.#builtin || builtin === this.#lost || this.#stopping) return;
    this.#lost = builtin;
    const before = this.#trail.proven(performance.now());
    // Only code is blamed: core could not take a config back on the other threads.
    const blamable = before === undefined ? [] : changedPackages(before, this.#live);
    // New code that has none before it stays on the other threads, so it does here.
    const blamed = blamable.some((name) => before!.modules.has(name));
    const reason = error instanceof Error ? error.message : String(error);
    this.#post({
      type: "fault",
      package: blamable.join(", "),
      reason: blamed
        ? `the isolate of the shipped filters was lost (${reason}); the code of before serves again`
        : `the isolate of the shipped filters was lost (${reason}) and is built anew`,
      stack: error instanceof Error ? (error.stack ?? "") : "",
      ...(blamed && { reverted: blamable }),
    });
    if (blamed) {
      // The code from before has hung nobody.
      Atomics.store(this.#beats, BEAT.MOST_MS, 0);
      this.#live = withCodeOf(before!, this.#live, blamable);
      this.#trail.clear();
    }
    // Its successor may die as well, before it has taken the listening sockets.
    if (!this.#isDead) this.#listeners = this.#sockets.listening.giveAll();
    this.#isDead = true;
    if (this.#isFirst) this.#gathering.takes = false;
    this.#post({ type: "stats_lost" });
    this.#calls.flushLines();
    this.#cells.forgetGauges();
    this.#loseChange();
    this.#sockets.destroy();
    this.#boxes.dispose();
    builtin.dispose();
    giveBack(this.#start.counts, this.#start.ledger);
    new CellHeap(this.#start.turns, TURNS * 4).forget(builtin.number);
    const waitMs = this.#rebuildWait.afterLoss(performance.now(), blamed);
    setTimeout(() => this.#rebuild(), waitMs);
  }

  /** A change that was being set up, or waits for its commit, is lost with the isolates: main is told at once. */
  #loseChange(): void {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending === undefined || pending.onReady !== undefined) return;
    const { generation } = pending;
    this.#post({ type: "refused", generation, refusals: [refusalOf("", changeLost())] });
  }

  /**
   * Builds the isolates again with what is live. The listening sockets have stayed open meanwhile. Sandboxes that cannot be set up
   * hold nothing up: their failure policy answers. If shipped filters refuse what they took before, all is tried again later.
   */
  #rebuild(): void {
    if (this.#stopping) return;
    [this.#builtin, this.#crossing, this.#sockets, this.#boxes] = this.#build();
    const live = this.#live;
    const serve = (): void => {
      this.#pending = undefined;
      this.#boxes.commit(pending.boxes);
      this.#guarded(() => this.#builtin.commit(this.#start.drain));
      this.#files.commit();
      this.#sockets.listening.takeAll(this.#listeners);
      this.#isDead = false;
      if (this.#isFirst) this.#gathering.takes = true;
      for (const { name, handle } of this.#given.splice(0)) this.#sockets.take(name, handle);
      this.#crossing.poke();
      for (const message of this.#waiting.splice(0)) this.onMessage(message);
    };
    const pending: Pending = {
      generation: this.#generation,
      live,
      boxes: new Map(),
      removed: [],
      builtinReady: false,
      boxesReady: false,
      onReady: serve,
    };
    this.#pending = pending;
    const refusals = this.#stage(pending, [...live.modules.values()], live.config);
    const [refusal] = refusals;
    if (refusal !== undefined) {
      const name = refusal.package === "" ? "" : `${refusal.package}: `;
      this.#onDead(this.#builtin, new Error(`${name}cannot be set up again: ${refusal.message}`));
      return;
    }
    void this.#restoreBoxes(pending);
    this.#crossing.poke();
  }

  async #restoreBoxes(pending: Pending): Promise<void> {
    await this.#boxes.restore();
    if (this.#pending === pending) this.#onReady(pending.generation, "boxes");
  }

  async #drain(ms: number): Promise<void> {
    if (this.#isFirst) this.#gathering.takes = false;
    await Promise.all(
      this.#sockets.listening.names.map((name) => this.#sockets.listening.unlisten(name)),
    );
    this.#guarded(() => this.#builtin.drain());
    this.#crossing.poke();
    const until = performance.now() + ms;
    while (performance.now() < until && this.#builtin.activeConnections > 0) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.#post({ type: "drained" });
  }

  /** Sends gathered log lines to main, and entries that wait for sandboxed access loggers to these, for at most FLUSH_LOGS_MS. */
  async #flushLogs(): Promise<void> {
    const until = performance.now() + FLUSH_LOGS_MS;
    for (;;) {
      let waiting = 0;
      this.#guarded(() => {
        waiting = this.#builtin.flushFiles();
      });
      this.#calls.flushLines();
      if (waiting === 0 || performance.now() >= until) return;
      this.#crossing.poke();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async #stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#garbage.stop();
    await this.#flushLogs();
    this.#sockets.destroy();
    this.#boxes.dispose();
    this.#supply.dispose();
    this.#builtin.dispose();
    await this.#compiled.kept;
    await this.#watchdog.stop();
    parentPort?.close();
    // isolated-vm aborts the process if the thread ends during a collection that finds some of its handles: collect them before.
    collectGarbage();
    process.exit(0);
  }
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const early = workerData as EarlyThread | null;
  let worker: Worker | undefined;
  port.on("message", (message: ToWorker) => {
    if (message.type === "start") {
      if (early !== null) untilAllLoaded(early);
      worker = new Worker(message.start, (message) => port.postMessage(message));
    } else worker!.onMessage(message);
  });
  if (early !== null) onLoaded(early);
}
