import { latin1Decode } from "../bytes.ts";
import { CellHeap, type CellSpec } from "../cells.ts";
import type { Cluster, Clusters } from "../cluster.ts";
import type {
  ChildContext,
  Definition,
  FileSink,
  Generation,
  Kind,
  Kinds,
  LogFields,
  Regex,
  SetupContext,
  SharedCount,
  Slot,
  Timer,
  Turns,
} from "../extension.ts";
import { type FetchInit, type FetchResponse, fetchFrom, traced } from "../fetch.ts";
import type { Address, Connection, ConnectionHandler } from "../network.ts";
import { Runtime } from "../runtime.ts";
import type { ExtensionRef } from "../schema.ts";
import type { Counter, Gauge, Histogram, StatSet, Stats } from "../stats.ts";
import type { Tls, TransportOptions } from "../transport.ts";
import type { UdpHandler, UdpSocket } from "../udp.ts";
import { TestClock } from "./clock.ts";
import { TestCluster } from "./cluster.ts";
import { TestConnection } from "./connection.ts";
import { cryptoSettled } from "./crypto.ts";
import { lineOf } from "./line.ts";

async function microtasks(): Promise<void> {
  for (let k = 0; k < 50; k++) await Promise.resolve();
}

type Family = readonly [prefix: string, onValue: (rest: string, value: unknown) => void];

/** Stats in a Map, for assertions by name. */
export class TestStats implements Stats {
  readonly values: Map<string, number>;
  readonly recorded: Map<string, number[]>;
  /** Which of `values` are gauges. */
  readonly gauges: Set<string>;
  readonly #prefix: string;

  constructor(
    prefix = "",
    values = new Map<string, number>(),
    recorded = new Map<string, number[]>(),
    gauges = new Set<string>(),
  ) {
    this.#prefix = prefix;
    this.values = values;
    this.recorded = recorded;
    this.gauges = gauges;
  }
  /** The value of a stat; 0 if nothing has asked for it. */
  value(name: string): number {
    return this.values.get(name) ?? 0;
  }
  #cell(name: string, min: number): Counter & Gauge {
    const key = this.#prefix + name;
    const values = this.values;
    if (!values.has(key)) values.set(key, 0);
    const set = (value: number) => void (isFiniteNumber(value) && values.set(key, value));
    const add = (n: number) => void (isFiniteNumber(n) && n >= min && set(values.get(key)! + n));
    const one = (n: number) => (amount?: undefined) => {
      if (amount !== undefined) throw new TypeError("inc() and dec() count one; write add(n)");
      add(n);
    };
    return { inc: one(1), dec: one(-1), add, set };
  }
  counter(name: string): Counter {
    return this.#cell(name, 0);
  }
  gauge(name: string): Gauge {
    this.gauges.add(this.#prefix + name);
    return this.#cell(name, Number.NEGATIVE_INFINITY);
  }
  histogram(name: string): Histogram {
    const list = this.recorded.get(this.#prefix + name) ?? [];
    this.recorded.set(this.#prefix + name, list);
    return { record: (value) => void (isFiniteNumber(value) && list.push(value)) };
  }
  scope(prefix: string): Stats {
    return new TestStats(this.#prefix + prefix, this.values, this.recorded, this.gauges);
  }
  list({ counters, gauges, histograms }: StatSet): void {
    for (const name of counters) this.counter(name);
    for (const name of gauges) this.gauge(name);
    for (const [name] of histograms) this.histogram(name);
  }
}

/** Throws what is no number, as the proxy does. */
function isFiniteNumber(value: number): boolean {
  if (typeof value === "number") return Number.isFinite(value);
  throw new TypeError(`a stat was given a ${typeof value}; write a number`);
}

/** A connection that a package has opened with `cx.connect`, or adopted. */
export interface Opened {
  readonly address: Address;
  /** Replaced when another generation adopts the connection. */
  handler: ConnectionHandler;
  readonly connection: TestConnection;
  readonly timeoutMs: number;
  /** The options for its transport socket. */
  readonly transportOptions?: TransportOptions | undefined;
}

/** A UDP socket whose peer the test plays. */
export class TestUdpSocket implements UdpSocket {
  readonly localAddress: Address = { ip: "127.0.0.1", port: 5300 };
  readonly address: Address;
  readonly handler: UdpHandler | undefined;
  open = true;
  /** Text of each datagram sent, one char per byte, and its destination if one was given. */
  readonly sent: { readonly text: string; readonly to: Address | undefined }[] = [];

  constructor(address: Address, handler?: UdpHandler) {
    this.address = address;
    this.handler = handler;
  }
  send(memory: Uint8Array, at: number, end: number, to?: Address): boolean {
    if (this.open) this.sent.push({ text: latin1Decode(memory, at, end), to });
    return this.open;
  }
  close(): void {
    this.open = false;
  }
}

/** A use of an extension that a test can reload. */
export class TestSlot<T> implements Slot<T> {
  readonly ref: ExtensionRef;
  current: TestGeneration<T>;

  constructor(ref: ExtensionRef, value: T) {
    this.ref = ref;
    this.current = new TestGeneration(value, 1);
  }
  /** Plays a reload of the package: from now on `current` has this value. */
  replace(value: T): void {
    this.current = new TestGeneration(value, this.current.number + 1);
  }
}

/** The generation that a slot of a TestContext has at the moment. */
export class TestGeneration<T> implements Generation<T> {
  readonly value: T;
  readonly number: number;
  /** How often it has been acquired and not released. */
  uses = 0;

  constructor(value: T, number: number) {
    this.value = value;
    this.number = number;
  }
  acquire(): void {
    this.uses++;
  }
  release(): void {
    this.uses--;
  }
}

/** The `cx` of a test: its clock moves when the test says so, its stats can be read, and the test plays the peers of connections. */
export class TestContext implements SetupContext {
  role: "worker" | "control" | "canary" = "worker";
  worker = 0;
  node: SetupContext["node"] = { id: "test-node", cluster: "test-cluster" };
  readonly clock: TestClock;
  readonly stats: TestStats;
  readonly runtime: Runtime;
  readonly logged: { level: string; message: string; fields: LogFields }[] = [];
  readonly opened: Opened[] = [];
  readonly files = new Map<string, string>();
  published = new Map<string, unknown>();
  readonly operations = new Map<string, (args: unknown) => unknown>();
  readonly definitions = new Map<string, Definition>();
  readonly clusterMap: Map<string, Cluster>;
  readonly waits: Promise<unknown>[] = [];
  /** Every use of an extension, in the order they were asked for. */
  readonly slots: TestSlot<unknown>[] = [];
  statPrefix = "";
  previous: unknown = undefined;
  #subscribers = new Map<string, ((value: unknown) => void)[]>();
  readonly #disposers: (() => void)[] = [];
  readonly #timers: Timer[] = [];
  readonly clusters: Clusters = { get: (name) => this.clusterMap.get(name) };

  readonly log = {
    debug: (message: string, fields: LogFields = {}) =>
      void this.logged.push({ level: "debug", message, fields }),
    info: (message: string, fields: LogFields = {}) =>
      void this.logged.push({ level: "info", message, fields }),
    warn: (message: string, fields: LogFields = {}) =>
      void this.logged.push({ level: "warn", message, fields }),
    error: (message: string, fields: LogFields = {}) =>
      void this.logged.push({ level: "error", message, fields }),
  };

  /** `before`: the context that this one follows in a reload; tests call `reload` instead. */
  constructor(before?: TestContext) {
    this.clock = before?.clock ?? new TestClock();
    this.stats = before?.stats ?? new TestStats();
    this.runtime = before?.runtime ?? new Runtime();
    this.clusterMap = before?.clusterMap ?? new Map();
    this.readable = before?.readable ?? new Map();
    this.#turns = before === undefined ? new Map() : before.#turns;
    this.#counts = before === undefined ? new Map() : before.#counts;
    this.cells =
      before?.cells ?? new CellHeap(new ArrayBuffer(1 << 20), 0, () => 1e9 + this.clock.ms);
  }

  /**
   * Plays a reload of the package: returns the context of the next generation, for `setup` of the new or the same code. It has
   * the same clock, stats, cells and clusters; its `previous` is what the callback of this one's `onHandover` returns, copied as
   * JSON, as from isolate to isolate. Streams that have begun go on with the old filters; `dispose` this context when they have
   * ended.
   */
  reload(): TestContext {
    const next = new TestContext(this);
    const left = this.handover?.();
    next.previous = left === undefined ? undefined : JSON.parse(JSON.stringify(left));
    for (const [name, definition] of this.definitions) next.definitions.set(name, definition);
    return next;
  }

  /** A cluster that `clusters` and `fetch` know; `answer` plays its upstream. Without it the test does, through `exchanges`. */
  cluster(name: string, answer?: TestCluster["answering"]): TestCluster {
    const cluster = new TestCluster(name, this.stats);
    cluster.answering = answer;
    this.clusterMap.set(name, cluster);
    return cluster;
  }

  /** Makes a package known to `extension` and `shipped`, by `kind/name`. */
  define(packageName: string, definition: unknown): this {
    this.definitions.set(packageName, definition as Definition);
    return this;
  }
  /** `setup` of a definition with this context; the config is taken as it is. */
  setup<K extends Kind>(definition: Definition<K>, config: unknown): Kinds[K] {
    return definition.setup(config as never, this);
  }

  /** Lets promises settle that wait for nothing outside of the test, and those of `crypto.subtle`. `settled` of streams and chains does this too. */
  async turn(): Promise<void> {
    await microtasks();
    await cryptoSettled(microtasks);
  }

  fetch(target: string, init?: FetchInit): Promise<FetchResponse> {
    return traced(fetchFrom(this, target, init));
  }
  now(): number {
    return this.clock.ms;
  }
  timer(onFired: () => void): Timer {
    const timer = this.clock.timer(onFired);
    this.#timers.push(timer);
    return timer;
  }
  extension<K extends Kind>(
    kind: K,
    ref: ExtensionRef,
    options: { readonly statPrefix?: string } = {},
  ): Slot<Kinds[K]> {
    const definition = this.definitions.get(ref.package);
    if (definition === undefined || definition.kind !== kind)
      throw new Error(`no ${kind} package "${ref.package}"`);
    const outer = this.statPrefix;
    this.statPrefix = options.statPrefix ?? "";
    const slot = new TestSlot(ref, definition.setup(ref.config as never, this) as Kinds[K]);
    this.statPrefix = outer;
    this.slots.push(slot as TestSlot<unknown>);
    return slot;
  }
  shipped<K extends Kind>(kind: K, packageName: string, config: unknown = {}): Slot<Kinds[K]> {
    return this.extension(kind, { name: packageName, package: packageName, config });
  }
  regex(pattern: string): Regex {
    const whole = new RegExp(`^(?:${pattern})$`);
    const all = new RegExp(pattern, "g");
    return {
      groups: (new RegExp(`${pattern}|`).exec("")?.length ?? 1) - 1,
      matches: (text) => whole.test(text),
      replaceAll: (text, substitution) =>
        text.replace(
          all,
          substitution
            .replaceAll("$", "$$$$")
            .replace(/\\(\d)/g, (_, n) => (n === "0" ? "$&" : `$${n}`)),
        ),
    };
  }
  connect(
    address: Address,
    handler: ConnectionHandler,
    options: { timeoutMs: number; transportOptions?: TransportOptions },
  ): Connection {
    const connection = new TestConnection(this.opened.length + 100);
    connection.remoteAddress = address;
    const { timeoutMs, transportOptions } = options;
    this.opened.push({ address, handler, connection, timeoutMs, transportOptions });
    return connection;
  }
  /** Sockets that `udp` has opened, in order. */
  readonly udpSockets: TestUdpSocket[] = [];
  udp(address: Address, handler: UdpHandler): TestUdpSocket {
    const socket = new TestUdpSocket(address, handler);
    this.udpSockets.push(socket);
    return socket;
  }
  adopt(connection: Connection, handler: ConnectionHandler): void {
    const opened = this.opened.find((o) => o.connection === connection);
    if (opened !== undefined) opened.handler = handler;
    else
      this.opened.push({
        address: connection.remoteAddress,
        handler,
        connection: connection as TestConnection,
        timeoutMs: 0,
      });
  }
  file(path: string): FileSink {
    const append = (line: string) => void this.files.set(path, (this.files.get(path) ?? "") + line);
    const print: FileSink["print"] = (format, source) => append(lineOf(format, source));
    return { append, print, flush: () => {} };
  }
  /** Files that `readFile` finds, by path; changed by `changeFile`. */
  readonly readable: Map<string, string>;
  readonly #watchers = new Map<string, (() => boolean)[]>();
  readFile(path: string): string {
    const text = this.readable.get(path);
    if (text === undefined) throw new Error(`no file "${path}" in this test`);
    return text;
  }
  watchFile(path: string, onChanged: () => boolean): void {
    this.#watchers.set(path, [...(this.#watchers.get(path) ?? []), onChanged]);
  }
  /** True: all that watch it have taken it. */
  changeFile(path: string, text: string): boolean {
    this.readable.set(path, text);
    const taken = (this.#watchers.get(path) ?? []).map((onChanged) => onChanged());
    return !taken.includes(false);
  }
  /** Tests of transports set one of their own. */
  tls: Tls = {
    context: () => {
      throw new Error("no TLS in this test");
    },
    certificates: () => {
      throw new Error("no TLS in this test");
    },
  };
  publish(topic: string, value: unknown): void {
    this.published.set(topic, value);
    for (const f of this.#subscribers.get(topic) ?? []) f(value);
    this.#tellFamilies(topic, value);
  }
  subscribe(topic: string, onValue: (value: unknown) => void): void {
    this.#subscribers.set(topic, [...(this.#subscribers.get(topic) ?? []), onValue]);
    if (this.published.has(topic)) onValue(this.published.get(topic));
  }
  /** Plays another thread, or generation, of the process of `other`: what one publishes, both hear. */
  join(other: TestContext): void {
    this.published = other.published;
    this.#subscribers = other.#subscribers;
    this.#families = other.#families;
  }
  retract(topic: string): void {
    this.published.delete(topic);
    for (const f of this.#subscribers.get(topic) ?? []) f(undefined);
    this.#tellFamilies(topic, undefined);
  }
  #families: Family[] = [];
  subscribeAll(prefix: string, onValue: (rest: string, value: unknown) => void): void {
    const family: Family = [prefix, onValue];
    this.#families.push(family);
    this.onDispose(() => void this.#families.splice(this.#families.indexOf(family), 1));
    for (const [topic, value] of this.published)
      if (topic.startsWith(prefix)) onValue(topic.slice(prefix.length), value);
  }
  #tellFamilies(topic: string, value: unknown): void {
    for (const [prefix, onValue] of [...this.#families])
      if (topic.startsWith(prefix)) onValue(topic.slice(prefix.length), value);
  }
  /** Ends with this context, or earlier by its `end`, which runs what its `onDispose` was given. */
  child(name: string): ChildContext {
    const disposers: (() => void)[] = [];
    const own = new Map<PropertyKey, unknown>();
    const cellOf: SetupContext["cell"] = (cell, spec) => this.cell(`${name}/${cell}`, spec);
    own.set("cell", cellOf);
    own.set("onDispose", (dispose: () => void) => void disposers.push(dispose));
    own.set("end", () => {
      for (const dispose of disposers.splice(0)) dispose();
    });
    this.onDispose(own.get("end") as () => void);
    return new Proxy(this, {
      get(context, key) {
        if (own.has(key)) return own.get(key);
        const value: unknown = Reflect.get(context, key, context);
        return typeof value === "function" ? value.bind(context) : value;
      },
    }) as unknown as ChildContext;
  }
  /** Memory that workers share: to play another worker, give it to another context. */
  cells: CellHeap;
  cell<T>(name: string, spec: CellSpec<T>): T {
    return spec.open(this.cells, this.cells.acquire(`${spec.kind} ${name}`, spec.bytes)!);
  }
  readonly #turns: Map<string, number>;
  turns(name: string): Turns {
    return {
      next: () => {
        const turn = this.#turns.get(name) ?? 0;
        this.#turns.set(name, turn + 1);
        return turn;
      },
    };
  }
  readonly #counts: Map<string, SharedCount>;
  sharedCount(name: string): SharedCount {
    let held = 0;
    const count = this.#counts.get(name) ?? {
      get value() {
        return held;
      },
      tryAcquire: (max) => (held < max ? ++held : 0),
      acquire: () => ++held,
      release: () => --held,
    };
    this.#counts.set(name, count);
    return count;
  }
  waitFor(settled: Promise<unknown>): void {
    this.waits.push(settled);
  }
  async operation(name: string, args: unknown): Promise<unknown> {
    const run = this.operations.get(name);
    if (run === undefined) throw new Error(`no operation "${name}" in this test`);
    return run(args);
  }
  onDispose(dispose: () => void): void {
    this.#disposers.push(dispose);
  }
  /** Ends the generation: runs what `onDispose` was given, and cancels its timers. */
  dispose(): void {
    for (const dispose of this.#disposers.splice(0)) dispose();
    for (const timer of this.#timers.splice(0)) timer.cancel();
  }
  /** The callback of `onHandover`. */
  handover: (() => unknown) | undefined = undefined;
  onHandover(state: () => unknown): void {
    this.handover = state;
  }
}
