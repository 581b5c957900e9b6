import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { Builtin } from "./builtin.ts";
import { resolveName, type Family } from "./dns.ts";
import { FileWriter } from "./file-writer.ts";
import { createRing } from "./inside/ring.ts";
import type {
  AddressConfig,
  FromWorker,
  ModuleSource,
  Refusal,
  RuntimeConfig,
  ToWorker,
  WorkerStart,
} from "./protocol.ts";
import { Sockets } from "./sockets.ts";

/** Connections of a chain that is gone may finish for so long (Envoy's --drain-time-s). */
const DRAIN_MS = 600_000;
/** A generation that kills its isolate this soon after its commit is taken back. */
const BLAME_MS = 60_000;
const REBUILD_MS = [0, 250, 1000, 5000] as const;

/** What runs: enough to build the isolate anew. */
interface Live {
  readonly modules: ReadonlyMap<string, ModuleSource>;
  readonly config: RuntimeConfig | undefined;
}

/** One thread: its sockets, its builtin isolate, its sandboxes; and the generations they pass through. */
class Worker {
  readonly #start: WorkerStart;
  readonly #post: (message: FromWorker) => void;
  readonly #files: FileWriter;
  readonly #topics = new Map<string, unknown>();
  #builtin: Builtin;
  #sockets: Sockets;
  #live: Live = { modules: new Map(), config: undefined };
  #before: Live | undefined = undefined;
  #committedAt = 0;
  #pending: { readonly generation: number; readonly live: Live } | undefined = undefined;
  #generation = 0;
  #deaths = 0;
  #stopping = false;
  readonly #beats: Int32Array;

  constructor(start: WorkerStart, post: (message: FromWorker) => void) {
    this.#start = start;
    this.#post = post;
    this.#files = new FileWriter((path, message) => this.#log("error", `cannot write ${path}: ${message}`));
    this.#beats = new Int32Array(start.beat);
    [this.#builtin, this.#sockets] = this.#build();
    setInterval(() => this.#beats[0]!++, 100).unref();
  }

  #build(): [Builtin, Sockets] {
    const ring = createRing(this.#start.sizes);
    let sockets: Sockets | undefined;
    const builtin = new Builtin({
      role: this.#start.role,
      worker: this.#start.index,
      node: this.#start.node,
      prelude: this.#start.prelude,
      ring,
      stats: this.#start.stats,
      onCall: (name, text) => this.#onCall(name, text),
    });
    sockets = new Sockets(ring, builtin.run, (error) => this.#onDead(builtin, error));
    for (const [topic, value] of this.#topics) builtin.publish(topic, value);
    return [builtin, sockets];
  }

  #log(level: "debug" | "info" | "warn" | "error", message: string, fields: Record<string, unknown> = {}): void {
    this.#post({ type: "log", level, message, fields });
  }

  // ---- calls of the isolate

  #onCall(name: string, text: string): void {
    if (name === "append") {
      const at = text.indexOf("\0");
      this.#files.append(text.slice(0, at), text.slice(at + 1));
      return;
    }
    const value = JSON.parse(text);
    switch (name) {
      case "log":
        this.#post({ type: "log", ...value });
        break;
      case "fault":
        this.#post({ type: "fault", ...value });
        break;
      case "stats":
        this.#post({ type: "stats", defined: value.defined });
        break;
      case "publish":
        this.#post({ type: "publish", topic: value.topic, value: value.value });
        break;
      case "prepared":
        this.#onPrepared(value.generation);
        break;
      case "operation":
        this.#onOperation(value.call, value.name, value.args);
        break;
    }
  }

  #onOperation(call: number, name: string, args: unknown): void {
    if (name !== "dns.resolve") {
      this.#post({ type: "call", call, name, args });
      return;
    }
    const { name: host, family } = args as { name: string; family?: Family };
    resolveName(host, family ?? "AUTO").then(
      (addresses) => this.#reply(call, { addresses }, undefined),
      (error: Error) => this.#reply(call, undefined, error.message),
    );
  }

  #reply(call: number, value: unknown, error: string | undefined): void {
    this.#guarded(() => this.#builtin.reply(call, value, error));
    this.#sockets.poke();
  }

  /** Enters the isolate outside a flush: what it asks for runs with the next one. */
  #guarded(enter: () => void): void {
    try {
      enter();
    } catch (error) {
      this.#onDead(this.#builtin, error);
    }
  }

  // ---- generations

  onMessage(message: ToWorker): void {
    switch (message.type) {
      case "prepare":
        this.#prepare(message);
        break;
      case "commit":
        this.#commit(message.generation);
        break;
      case "abort":
        if (this.#pending?.generation === message.generation) {
          this.#pending = undefined;
          this.#guarded(() => this.#builtin.abort());
        }
        break;
      case "listen":
        void this.#listen(message.listeners);
        break;
      case "publish":
        this.#topics.set(message.topic, message.value);
        this.#guarded(() => this.#builtin.publish(message.topic, message.value));
        this.#sockets.poke();
        break;
      case "reply":
        this.#reply(message.call, message.value, message.error);
        break;
      case "drain":
        void this.#drain(message.ms);
        break;
      case "stop":
        void this.#stop();
        break;
    }
  }

  #prepare(message: Extract<ToWorker, { type: "prepare" }>): void {
    const { generation, modules, removed, config } = message;
    const refusals: Refusal[] = [];
    const next = new Map(this.#live.modules);
    for (const name of removed) next.delete(name);
    for (const module of modules) next.set(module.package, module);
    try {
      refusals.push(...this.#load(this.#builtin, modules));
      if (refusals.length === 0) {
        this.#pending = { generation, live: { modules: next, config: config ?? this.#live.config } };
        refusals.push(
          ...this.#builtin.prepare({ generation, changed: modules.map((m) => m.package), removed, config }),
        );
      }
    } catch (error) {
      refusals.push({ package: "", message: (error as Error).message, path: "", place: "", stack: (error as Error).stack ?? "" });
    }
    if (refusals.length > 0) {
      this.#pending = undefined;
      this.#post({ type: "refused", generation, refusals });
    }
    this.#sockets.poke();
  }

  #load(builtin: Builtin, modules: Iterable<ModuleSource>): Refusal[] {
    const refusals: Refusal[] = [];
    for (const module of modules) {
      try {
        builtin.define(module);
      } catch (error) {
        const e = error as Error;
        refusals.push({ package: module.package, message: e.message, path: "", place: "", stack: e.stack ?? "" });
      }
    }
    return refusals;
  }

  #onPrepared(generation: number): void {
    if (this.#pending?.generation === generation) this.#post({ type: "prepared", generation });
  }

  #commit(generation: number): void {
    const pending = this.#pending;
    if (pending?.generation !== generation) return;
    this.#pending = undefined;
    this.#guarded(() => this.#builtin.commit(DRAIN_MS));
    this.#before = this.#generation === 0 ? undefined : this.#live;
    this.#live = pending.live;
    this.#generation = generation;
    this.#committedAt = performance.now();
    const names = new Set(this.#live.config?.listeners.map((listener) => listener.name));
    for (const name of this.#sockets.listening) if (!names.has(name)) this.#sockets.unlisten(name);
    this.#sockets.poke();
    this.#post({ type: "committed", generation });
  }

  async #listen(listeners: readonly { readonly name: string; readonly address: AddressConfig }[]): Promise<void> {
    const bound: { name: string; address: AddressConfig }[] = [];
    for (const { name, address } of listeners) {
      const config = this.#live.config?.listeners.find((listener) => listener.name === name);
      this.#sockets.unlisten(name);
      try {
        const at = await this.#sockets.listen(name, address, {
          backlog: config?.backlog ?? 0,
          reusePort: this.#start.role === "worker",
          ipv6Only: address.ip.includes(":") && address.ipv4Compat !== true,
        });
        bound.push({ name, address: at });
      } catch (error) {
        const e = error as NodeJS.ErrnoException;
        this.#post({ type: "listen_failed", name, code: e.code ?? "", message: e.message });
        return;
      }
    }
    this.#post({ type: "listening", listeners: bound });
  }

  // ---- the end of an isolate, of the worker

  /**
   * The isolate threw out of its loop, ran out of memory, or the watchdog ended it. Its sockets are gone; another one is built
   * with what ran before, or, if the latest change is young enough to be to blame, with what ran before that.
   */
  #onDead(builtin: Builtin, error: unknown): void {
    if (builtin !== this.#builtin || this.#stopping) return;
    const blamed = this.#before !== undefined && performance.now() - this.#committedAt < BLAME_MS;
    const changed = blamed ? changedPackages(this.#before!, this.#live) : [];
    const reason = error instanceof Error ? error.message : String(error);
    this.#post({
      type: "fault",
      package: changed.join(", "),
      reason: blamed
        ? `the isolate of the shipped filters was lost (${reason}); the generation before serves again`
        : `the isolate of the shipped filters was lost (${reason}) and is built anew`,
      stack: error instanceof Error ? (error.stack ?? "") : "",
    });
    if (blamed) {
      this.#live = { modules: this.#before!.modules, config: this.#before!.config };
      this.#before = undefined;
    }
    this.#pending = undefined;
    const listeners = this.#sockets.giveListeners();
    this.#sockets.destroy();
    void builtin.dispose();
    const delay = REBUILD_MS[Math.min(this.#deaths++, REBUILD_MS.length - 1)]!;
    setTimeout(() => {
      [this.#builtin, this.#sockets] = this.#build();
      const modules = [...this.#live.modules.values()];
      this.#load(this.#builtin, modules);
      const generation = this.#generation;
      this.#pending = { generation, live: this.#live };
      const refusals = this.#builtin.prepare({
        generation,
        changed: modules.map((m) => m.package),
        removed: [],
        config: this.#live.config,
      });
      for (const refusal of refusals) this.#log("error", `cannot be set up again: ${refusal.message}`, { filter: refusal.package });
      this.#builtin.commit(DRAIN_MS);
      this.#pending = undefined;
      this.#sockets.takeListeners(listeners);
      this.#sockets.poke();
    }, delay);
  }

  async #drain(ms: number): Promise<void> {
    for (const name of this.#sockets.listening) this.#sockets.unlisten(name);
    this.#guarded(() => this.#builtin.drain());
    this.#sockets.poke();
    const until = performance.now() + ms;
    while (performance.now() < until && this.#builtin.activeConnections > 0) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.#post({ type: "drained" });
  }

  async #stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#guarded(() => this.#builtin.flushFiles());
    await this.#files.end();
    this.#sockets.destroy();
    await this.#builtin.dispose();
    parentPort?.close();
    process.exit(0);
  }
}

function changedPackages(before: Live, after: Live): string[] {
  const names: string[] = [];
  for (const [name, module] of after.modules) if (before.modules.get(name)?.hash !== module.hash) names.push(name);
  return names;
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const worker = new Worker(workerData as WorkerStart, (message) => port.postMessage(message));
  port.on("message", (message: ToWorker) => worker.onMessage(message));
}
