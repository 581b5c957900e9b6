import type {
  Address,
  CellHeap,
  CellSpec,
  Certificate,
  ChildContext,
  Clusters,
  Connection,
  ConnectionHandler,
  ConnectOptions,
  ExtensionRef,
  FileSink,
  Kind,
  Kinds,
  Log,
  LogFields,
  Regex,
  Runtime,
  SetupContext,
  SharedCount,
  Slot,
  Stats,
  Timer,
  Tls,
  TlsContext,
  TlsContextOptions,
  Turns,
  UdpHandler,
  UdpSocket,
} from "@tsproxy/sdk";
import {
  type FetchInit,
  type FetchResponse,
  fetchFrom,
  openPrivateCell,
  traced,
} from "@tsproxy/sdk";
import { configNameOf } from "./config-name.ts";
import { SocketConnection } from "./connection.ts";
import type { ConnectionTable } from "./connection-table.ts";
import type { FileTable } from "./files.ts";
import type { Host } from "./host.ts";
import type { Regexes } from "./regexes.ts";
import { type Registry, Scope } from "./registry.ts";
import type { SharedCounts } from "./shared-counts.ts";
import { ScopedStats, type StatsTable } from "./stats.ts";
import type { TimerWheel } from "./timers.ts";
import type { Topics } from "./topics.ts";
import type { UdpTable } from "./udp.ts";

/** What all contexts of one isolate share. */
export interface Surroundings {
  readonly role: "worker" | "control" | "canary";
  /** The canary has already run the setups of the present preparation. */
  rehearsed: boolean;
  readonly worker: number;
  /** Replaced before the first setup (NODE_TOPIC). */
  node: SetupContext["node"];
  readonly host: Host;
  readonly regexes: Regexes;
  readonly registry: Registry;
  readonly connections: ConnectionTable;
  readonly udp: UdpTable;
  readonly wheel: TimerWheel;
  readonly stats: StatsTable;
  readonly runtime: Runtime;
  readonly topics: Topics;
  readonly files: FileTable;
  readonly clusters: Clusters;
  /** Counters behind `cx.turns`, shared by all workers of the process. */
  readonly turns: Int32Array;
  /** Shared cells of all workers; undefined in the canary, whose cells are private. */
  readonly cells: CellHeap | undefined;
  readonly counts: SharedCounts;
  /** Promises of `cx.waitFor` that the present preparation waits for. */
  waits: { readonly settled: Promise<unknown>; readonly what: string }[];
}

/** The `cx` of one setup in the builtin isolate. Most of what is made through it ends with the setup's scope. */
export class Context implements SetupContext {
  readonly role: "worker" | "control" | "canary";
  readonly rehearsed: boolean;
  readonly worker: number;
  readonly node: SetupContext["node"];
  readonly log: Log;
  readonly stats: Stats;
  readonly runtime: Runtime;
  readonly statPrefix: string;
  readonly listenerStatPrefix: string | undefined;
  readonly configName: string;
  readonly clusters: Clusters;
  readonly previous: unknown;
  readonly #around: Surroundings;
  readonly #scope: Scope;
  /** The files that it has read. */
  readonly #read = new Set<string>();

  constructor(around: Surroundings, scope: Scope) {
    this.role = around.role;
    this.rehearsed = around.rehearsed;
    this.worker = around.worker;
    this.node = around.node;
    this.log = new PackageLog(around.host, scope.package);
    this.stats = new ScopedStats(around.stats, "", scope.place.lent);
    this.runtime = around.runtime;
    this.statPrefix = scope.place.statPrefix;
    this.listenerStatPrefix = scope.place.listenerStatPrefix;
    this.configName = configNameOf(scope.place.pointer);
    this.clusters = around.clusters;
    this.previous = scope.previous;
    this.#around = around;
    this.#scope = scope;
  }

  /** For packages in sandboxes (sandboxes.ts): the place of use number `use`, and the use that it replaces. */
  claimUse(use: number): {
    readonly place: string;
    readonly statPrefix: string;
    readonly previousUse: number | undefined;
  } {
    const previousUse = this.previous as number | undefined;
    this.#scope.handover = () => use;
    const { pointer, statPrefix } = this.#scope.place;
    return { place: pointer, statPrefix, previousUse };
  }

  fetch(target: string, init?: FetchInit): Promise<FetchResponse> {
    return traced(fetchFrom(this, target, init));
  }

  now(): number {
    return this.#around.wheel.now;
  }

  timer(onFired: () => void): Timer {
    const timer = this.#around.wheel.timer(onFired);
    return timer;
  }

  extension<K extends Kind>(
    kind: K,
    ref: ExtensionRef,
    options: { readonly statPrefix?: string } = {},
  ): Slot<Kinds[K]> {
    const pointer = this.#scope.nestedPlace(kind, ref.name);
    const { lent } = this.#scope.place;
    const place = { pointer, statPrefix: options.statPrefix ?? "", ...(lent && { lent }) };
    const { change } = this.#scope;
    const slot = this.#around.registry.create(kind, ref, place, undefined, change);
    this.#scope.children.push(slot as never);
    return slot;
  }

  shipped<K extends Kind>(kind: K, packageName: string, config: unknown = {}): Slot<Kinds[K]> {
    return this.extension(kind, { name: packageName, package: packageName, config });
  }

  regex(pattern: string): Regex {
    return this.#around.regexes.compile(pattern);
  }

  connect(address: Address, handler: ConnectionHandler, options: ConnectOptions): Connection {
    return this.#around.connections.connect(address, handler, options);
  }

  udp(address: Address, handler: UdpHandler, options: { readonly bind?: Address } = {}): UdpSocket {
    return this.#around.udp.connect(address, handler, options.bind);
  }

  adopt(connection: Connection, handler: ConnectionHandler): void {
    if (connection instanceof SocketConnection) connection.adopt(handler);
  }

  file(path: string): FileSink {
    return this.#around.files.open(path);
  }

  readFile(path: string, encoding: "utf8" | "base64" = "utf8"): string {
    const { host } = this.#around;
    const text = host.ask("file.read", { path, encoding }) as string;
    if (!this.#read.has(path)) {
      this.#read.add(path);
      host.tell("file.use", { path });
      this.#scope.onDispose(() => host.tell("file.release", { path }));
    }
    return text;
  }

  watchFile(path: string, onChanged: () => boolean): void {
    if (this.role === "canary") return;
    const { topics, host } = this.#around;
    const onSaved = () => {
      host.tell("file.changing", {});
      let isTaken = false;
      try {
        isTaken = onChanged();
      } finally {
        host.tell("file.changed", { isTaken });
      }
    };
    this.#scope.onDispose(topics.subscribe(`core.file:${path}`, onSaved));
    host.tell("file.watch", { path });
    this.#scope.onDispose(() => host.tell("file.unwatch", { path }));
  }

  get tls(): Tls {
    return {
      context: (options) => this.#tlsContext(options),
      leadsTo: (chain, authorities) =>
        this.#around.host.ask("tls.leadsTo", { chain, authorities }) as boolean,
      certificates: (pem) =>
        this.#around.host.ask("tls.certificates", { pem }) as readonly Certificate[],
    };
  }

  #tlsContext(options: TlsContextOptions): TlsContext {
    const { host } = this.#around;
    const made = host.ask("tls.context", options) as Omit<TlsContext, "release">;
    let isReleased = false;
    const release = (): void => {
      if (isReleased) return;
      isReleased = true;
      this.#scope.forget(release);
      host.tell("tls.release", { id: made.id });
    };
    this.#scope.onDispose(release);
    return { ...made, release };
  }

  publish(topic: string, value: unknown): void {
    if (this.role !== "canary") this.#around.topics.publish(topic, value);
  }

  subscribe(topic: string, onValue: (value: unknown) => void): void {
    if (this.role === "canary") return;
    this.#scope.onDispose(this.#around.topics.subscribe(topic, onValue));
  }

  retract(topic: string): void {
    if (this.role !== "canary") this.#around.topics.retract(topic);
  }

  subscribeAll(prefix: string, onValue: (rest: string, value: unknown) => void): void {
    if (this.role === "canary") return;
    this.#scope.onDispose(this.#around.topics.subscribeAll(prefix, onValue));
  }

  waitFor(settled: Promise<unknown>, what: string): void {
    if (this.role !== "canary") this.#around.waits.push({ settled, what });
  }

  cell<T>(name: string, spec: CellSpec<T>): T {
    const { cells } = this.#around;
    if (cells === undefined) return openPrivateCell(spec);
    const at = cells.acquire(
      `${this.#scope.package} ${this.#scope.place.pointer} ${spec.kind} ${name}`,
      spec.bytes,
    );
    if (at === undefined) throw new Error(`no shared memory is left for "${name}"`);
    this.#scope.onDispose(() => cells.release(at));
    return spec.open(cells, at);
  }

  turns(name: string): Turns {
    const { turns } = this.#around;
    let hash = 0x811c9dc5;
    for (let k = 0; k < name.length; k++) hash = Math.imul(hash ^ name.charCodeAt(k), 0x01000193);
    const at = (hash ^ (hash >>> 16)) & (turns.length - 1);
    return { next: () => Atomics.add(turns, at, 1) >>> 0 };
  }

  sharedCount(name: string): SharedCount {
    return this.#around.counts.of(name);
  }

  child(name: string): ChildContext {
    const around = this.#around;
    const outer = this.#scope;
    const pointer = `${outer.place.pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
    const lent = around.stats.lend(`${outer.package} ${pointer}`);
    const place = { pointer, statPrefix: this.statPrefix, lent };
    const scope = new Scope(outer.registry, outer.package, place, undefined, outer.change);
    const end = (): void => {
      outer.forget(end);
      scope.dispose();
    };
    scope.onDispose(() => around.stats.takeBack(lent));
    outer.onDispose(end);
    return Object.assign(new Context(around, scope), { end });
  }

  operation(name: string, args: unknown): Promise<unknown> {
    return this.#around.host.operation(name, args);
  }

  onDispose(dispose: () => void): void {
    this.#scope.onDispose(dispose);
  }

  onHandover(state: () => unknown): void {
    this.#scope.handover = state;
  }
}

class PackageLog implements Log {
  readonly #host: Host;
  readonly #package: string;

  constructor(host: Host, packageName: string) {
    this.#host = host;
    this.#package = packageName;
  }
  debug(message: string, fields?: LogFields): void {
    this.#host.log("debug", message, { filter: this.#package, ...fields });
  }
  info(message: string, fields?: LogFields): void {
    this.#host.log("info", message, { filter: this.#package, ...fields });
  }
  warn(message: string, fields?: LogFields): void {
    this.#host.log("warn", message, { filter: this.#package, ...fields });
  }
  error(message: string, fields?: LogFields): void {
    this.#host.log("error", message, { filter: this.#package, ...fields });
  }
}
