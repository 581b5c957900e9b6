import {
  type Address,
  CellHeap,
  Chunk,
  type Clusters,
  type Definition,
  type ExtensionRef,
  latin1Decode,
  latin1Encode,
  Runtime,
  type RuntimeValue,
  type Service,
  surroundings,
} from "@tsproxy/sdk";
import type {
  DrainOptions,
  FileFlush,
  ListenerConfig,
  NodeConfig,
  Refusal,
  RuntimeConfig,
} from "../protocol.ts";
import { listenerOf } from "../protocol.ts";
import { SocketConnection } from "./connection.ts";
import { ConnectionTable } from "./connection-table.ts";
import { Context, type Surroundings } from "./context.ts";
import type { CryptoAnswer, CryptoCall, CryptoHost } from "./crypto.ts";
import { DrainWindow } from "./drain.ts";
import { namedClusters, SandboxFetches } from "./fetches.ts";
import { FileTable } from "./files.ts";
import { Gate, type GateParts } from "./gate.ts";
import { installGlobals } from "./globals.ts";
import { Host, type HostCall } from "./host.ts";
import { Io } from "./io.ts";
import type { Chain, Listener } from "./listener.ts";
import { ListenerBuilder } from "./listener-builder.ts";
import { compileRegex } from "./regex.ts";
import { Registry, Scope, type SlotState } from "./registry.ts";
import { CLOSED_FLAG, EVENT, SOCKET_ERRORS, TURNS, WORD } from "./ring.ts";
import { type ParkedDescription, Sandboxes } from "./sandboxes.ts";
import { SharedCounts } from "./shared-counts.ts";
import { ScopedStats, StatsTable } from "./stats.ts";
import { TimerWheel } from "./timers.ts";
import { NODE_TOPIC, RUNTIME_TOPIC, Topics } from "./topics.ts";
import { UdpTable } from "./udp.ts";
import { unmapped } from "./unmapped.ts";

/** How long a preparation may wait for its `cx.waitFor` promises. */
const WAIT_LIMIT_MS = 15_000;
/** Share of the stats cells that the builtin isolate uses; the others belong to sandboxes. */
const ENGINE_CELLS = 3 / 4;

/** What core tells a new builtin isolate about itself. */
export interface EngineOptions {
  readonly role: "worker" | "control" | "canary";
  readonly worker: number;
  readonly node: NodeConfig & { readonly address?: string };
  readonly fileFlush?: FileFlush;
  /** The machine's name, for access logs. */
  readonly hostname?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Random bytes, one char each, that seed `crypto`. */
  readonly seed?: string;
  /** A number that no other isolate of this process has had. */
  readonly isolate?: number;
  /** Stats cells that earlier isolates of this worker have used. */
  readonly statsFrom?: number;
}

interface ServiceUse {
  readonly package: string;
  readonly hash: string;
  readonly slot: SlotState<Service>;
}

type Listeners = Map<string, { readonly hash: string; readonly listener: Listener }>;

/** The listeners and services of one configuration, running or prepared. */
interface World {
  readonly listeners: ReadonlyMap<string, { readonly hash: string; readonly listener: Listener }>;
  readonly services: ReadonlyMap<string, ServiceUse>;
}

/** A change that has been set up and waits for `commit` or `abort`. */
interface Preparation {
  readonly generation: number;
  readonly world: World;
  /** The listeners of `world` if the change brings a config; `extend` adds to them. */
  readonly listeners: Listeners;
  /** Slots made for it; `abort` retires them. */
  readonly made: SlotState[];
}

/**
 * The builtin isolate's half of core, called by core through main.ts. `run` handles the ring's events and answers with commands;
 * `prepare`, `extend`, `commit` and `abort` change the configuration that runs.
 */
export class Engine {
  readonly host: Host;
  readonly registry: Registry;
  readonly topics: Topics;
  readonly #io: Io;
  readonly #wheel: TimerWheel;
  readonly #connections: ConnectionTable;
  readonly #udp: UdpTable;
  readonly #stats: StatsTable;
  readonly #runtime = new Runtime();
  readonly #files: FileTable;
  readonly #around: Surroundings;
  readonly #role: EngineOptions["role"];
  readonly #modules = new Map<string, Definition>();
  readonly #chunk: Chunk;
  #world: World = { listeners: new Map(), services: new Map() };
  #preparation: Preparation | undefined = undefined;
  /** Set while setups run, so that they see the clusters of the configuration being prepared. */
  #preparing: World | undefined = undefined;
  readonly #fetches = new Map<number, SandboxFetches>();
  #draining = false;
  readonly #sandboxes: Sandboxes;

  constructor(
    ring: SharedArrayBuffer,
    cells: SharedArrayBuffer,
    turns: SharedArrayBuffer,
    counts: SharedArrayBuffer,
    ledger: SharedArrayBuffer,
    call: HostCall,
    options: EngineOptions,
  ) {
    this.#role = options.role;
    surroundings.hostname = options.hostname ?? "";
    surroundings.environment = options.environment ?? {};
    surroundings.regex = compileRegex;
    this.host = new Host(call);
    this.#io = new Io(ring);
    this.#wheel = new TimerWheel(
      (error) => this.host.fault("", error),
      () => this.#io.touch(),
    );
    installGlobals({
      now: () => this.#wheel.now,
      timer: (onFired) => this.#wheel.timer(onFired),
      onError: (error) => this.host.fault("", error),
      log: (level, message) => this.host.log(level, message, { of: "console" }),
      ...(options.seed !== undefined && { crypto: this.#crypto(options.seed) }),
    });
    this.#connections = new ConnectionTable(this.#io, this.#wheel, (error) =>
      this.host.fault("", error),
    );
    this.#connections.internalListener = (name) => {
      const listener = this.#world.listeners.get(name)?.listener;
      return listener?.config.internalBufferBytes === undefined ? undefined : listener;
    };
    this.#udp = new UdpTable(this.#io, this.#connections);
    this.#stats = new StatsTable(
      new Float64Array(cells, 0, Math.floor((cells.byteLength / 8) * ENGINE_CELLS)),
      () => this.host.log("warn", "the table of stats is full: new ones are not counted", {}),
      options.statsFrom,
    );
    this.#files = new FileTable(
      this.host,
      this.#wheel,
      new ScopedStats(this.#stats, ""),
      options.fileFlush,
    );
    this.topics = new Topics(this.host);
    this.topics.subscribe(RUNTIME_TOPIC, (values) =>
      this.#runtime.replace(values as readonly [string, RuntimeValue][]),
    );
    this.#sandboxes = new Sandboxes(this.#io, this.host);
    this.registry = new Registry(
      (name, error) => this.host.fault(name, error),
      (name) => this.#demand(name),
    );
    this.#chunk = new Chunk(this.#io.memory, 0, 0);
    this.#wheel.advance(this.#io.now);
    const clusters: Clusters = {
      get: (name) => this.#clusters()?.get(name),
      has: (name) => {
        const known = this.#clusters();
        return known?.has?.(name) ?? known?.get(name) !== undefined;
      },
      status: () => this.#clusters()?.status?.(),
    };
    const holder = { worker: options.worker, isolate: options.isolate ?? 1 };
    this.#around = {
      role: options.role,
      rehearsed: true,
      worker: options.worker,
      node: options.node,
      host: this.host,
      registry: this.registry,
      connections: this.#connections,
      udp: this.#udp,
      wheel: this.#wheel,
      stats: this.#stats,
      runtime: this.#runtime,
      topics: this.topics,
      files: this.#files,
      clusters,
      turns: new Int32Array(turns, 0, Math.min(TURNS, turns.byteLength / 4)),
      cells:
        turns.byteLength > TURNS * 4
          ? new CellHeap(turns, TURNS * 4, undefined, holder)
          : undefined,
      counts: new SharedCounts(counts, ledger, () =>
        this.host.log("warn", "the table of shared counts is full: new ones count by worker", {}),
      ),
      waits: [],
    };
    this.registry.contextMaker = (scope) => new Context(this.#around, scope);
    this.#setNode(options.node);
    this.topics.subscribe(NODE_TOPIC, (node) => this.#setNode(node as EngineOptions["node"]));
  }

  #setNode(node: EngineOptions["node"]): void {
    this.#around.node = node;
    surroundings.node = { ...node };
  }

  get io(): Io {
    return this.#io;
  }
  get wheel(): TimerWheel {
    return this.#wheel;
  }

  /** Bytes go to core as Latin-1 text, which copies them. */
  #crypto(seed: string): CryptoHost {
    const run = async (what: CryptoCall, data: Uint8Array): Promise<CryptoAnswer> => {
      const bytes = latin1Decode(data, 0, data.length);
      return (await this.host.operation("crypto", { what, bytes })) as CryptoAnswer;
    };
    return { seed, run };
  }

  #clusters(): Clusters | undefined {
    const world = this.#preparing ?? this.#world;
    for (const { slot } of world.services.values()) {
      const generation = this.#preparing !== undefined ? (slot.next ?? slot.current) : slot.current;
      if (generation.value.clusters !== undefined) return generation.value.clusters;
    }
    return undefined;
  }

  // ---- the data path

  /** One crossing: handles up to `count` events of the ring, as long as there is room. Answers the number of commands. */
  run(count: number): number {
    const io = this.#io;
    const control = io.control;
    const parked = this.#sandboxes.table;
    io.begin();
    this.#wheel.advance(io.now);
    const events = control[WORD.EVENTS]! >> 2;
    let k = 0;
    for (let i = events; k < count && io.hasRoom; k++, i += 4) {
      this.#onEvent(control[i]!, control[i + 1]!, control[i + 2]!, control[i + 3]!);
      parked.relieveGates();
    }
    if (this.#connections.wantsTurn) this.#connections.turn(this.#guard);
    if (parked.wantsTurn && io.hasRoom) parked.turn();
    parked.enterGates();
    parked.leaveGates();
    this.#connections.tellClosed(this.#guard);
    control[WORD.CONSUMED] = k;
    control[WORD.AGAIN] = this.#connections.wantsTurn || parked.wantsTurn ? 1 : 0;
    control[WORD.WAKE_IN] = this.#wheel.wakeIn();
    io.end();
    if (this.#stats.hasNews) this.tellStats();
    return io.commandCount;
  }

  /** Tells core the names of stats that have been defined since the last call. */
  tellStats(): void {
    if (!this.#stats.hasNews) return;
    const defined = this.#stats.defined;
    this.#stats.defined = [];
    this.host.tell("stats", { defined, listed: this.#stats.takeListed() });
  }

  readonly #guard = (connection: SocketConnection, call: () => void): void => {
    try {
      call();
    } catch (error) {
      this.#onFault(connection, error);
    }
  };

  /** A package threw: core is told, and only the connection concerned is closed. */
  #onFault(connection: SocketConnection | undefined, error: unknown): void {
    this.host.fault("", error);
    connection?.close("abort");
  }

  #onEvent(kind: number, id: number, a: number, b: number): void {
    let connection: SocketConnection | undefined;
    try {
      if (kind === EVENT.VERDICT) {
        this.#sandboxes.table.onVerdict(id, a, b);
        return;
      }
      if (kind === EVENT.DATAGRAM) {
        this.#udp.onDatagram(id, a, b);
        return;
      }
      if (kind === EVENT.UDP_BOUND) {
        this.#onUdpBound(id, this.#text(a, b));
        return;
      }
      if (kind === EVENT.ACCEPTED) {
        connection = this.#accept(id, this.#text(a, b));
        return;
      }
      connection = this.#connections.find(id);
      if (connection === undefined) {
        if (kind === EVENT.CLOSED) this.#udp.onClosed(id);
        return;
      }
      switch (kind) {
        case EVENT.DATA: {
          const chunk = this.#chunk;
          chunk.memory = this.#io.memory;
          chunk.at = a;
          chunk.end = a + b;
          connection.onData(chunk);
          break;
        }
        case EVENT.EOF:
          connection.onEof();
          break;
        case EVENT.BLOCKED:
          connection.onSocketBlocked();
          break;
        case EVENT.DRAINED:
          connection.onSocketDrained();
          break;
        case EVENT.CONNECTED: {
          const [ip = "", port = "0"] = this.#text(a, b).split("|");
          connection.onConnected({ ip, port: Number(port) });
          break;
        }
        case EVENT.SECURED:
          connection.handshake?.onTold(this.#text(a, b));
          break;
        case EVENT.CLOSED:
          try {
            connection.onClosed(
              (a & CLOSED_FLAG.LOCAL) !== 0,
              SOCKET_ERRORS[b] ?? "EIO",
              (a & CLOSED_FLAG.CONNECTING) !== 0,
            );
          } finally {
            this.#connections.release(connection);
          }
          break;
      }
    } catch (error) {
      this.#onFault(connection, error);
    }
  }

  #text(at: number, length: number): string {
    let text = "";
    for (let k = at; k < at + length; k++) text += String.fromCharCode(this.#io.memory[k]!);
    return text;
  }

  #accept(id: number, text: string): SocketConnection {
    const [name = "", remoteIp = "", remotePort = "0", localIp = "", localPort = "0", path = ""] =
      text.split("|");
    const connection = new SocketConnection(this.#connections, id, NO_HANDLER);
    const unix = path === "" ? undefined : { ip: "", port: 0, path };
    connection.remoteAddress = unix ?? { ip: unmapped(remoteIp), port: Number(remotePort) };
    connection.directAddress = connection.remoteAddress;
    connection.localAddress = unix ?? { ip: unmapped(localIp), port: Number(localPort) };
    this.#connections.add(connection);
    const entry = this.#world.listeners.get(listenerOf(name));
    if (entry === undefined) connection.close("abort");
    else {
      try {
        entry.listener.onAccepted(connection);
      } catch (error) {
        this.#onFault(connection, error);
      }
    }
    return connection;
  }

  /** The TCP listener of exactly that address, else one of that port on the wildcard address. */
  #listenerAt({ ip, port }: Address): Listener | undefined {
    let any: Listener | undefined;
    for (const { listener } of this.#world.listeners.values()) {
      const at = listener.config.address;
      if (at.port !== port || at.udp === true || at.path !== undefined) continue;
      if (at.ip === ip) return listener;
      if (at.ip === "0.0.0.0" || at.ip === "::") any ??= listener;
    }
    return any;
  }

  /** Core has bound a UDP listener's socket. Each datagram goes to the listener that has this name when it arrives. */
  #onUdpBound(id: number, text: string): void {
    const [name = "", ip = "", port = "0"] = text.split("|");
    const socket = this.#udp.adopt(
      id,
      { ip, port: Number(port) },
      {
        onDatagram: (bytes, from) =>
          this.#world.listeners.get(listenerOf(name))?.listener.onDatagram(bytes, from, socket),
        onError: () => {},
      },
    );
  }

  /** Setup in a sandbox has told that the use's filters read only these parts of their streams (bits of layout.ts). */
  narrow(use: number, mask: number): void {
    this.#sandboxes.narrow(use, mask);
  }

  /** A balancer package has been set up in its sandbox. `told`: JSON of a ToldPolicy. */
  learnPolicy(use: number, told: string): void {
    this.#sandboxes.learnPolicy(use, told);
  }

  /** A message of `fetch` in a sandbox. `text`: JSON of a FetchMessage, `bytes` Latin-1; text "": the sandbox has ended. */
  fetchFor(box: number, text: string, bytes: string): void {
    let fetches = this.#fetches.get(box);
    if (text === "") {
      fetches?.cancel();
      this.#fetches.delete(box);
      return;
    }
    if (fetches === undefined) {
      const clusters = namedClusters({ get: (name) => this.#clusters()?.get(name) }, (name) =>
        this.#sandboxes.mayAsk(box, name),
      );
      const cx = { clusters, timer: (onFired: () => void) => this.#wheel.timer(onFired) };
      fetches = new SandboxFetches(cx, (head, body) =>
        this.host.tellText("fetched", `${box}\0${head}\0${body}`),
      );
      this.#fetches.set(box, fetches);
    }
    fetches.onMessage(text, latin1Encode(bytes));
  }

  /** Core enters the isolate outside a crossing: the clock is set, so that timers armed now start from the present time. */
  onEntered(): void {
    this.#wheel.now = this.#io.now;
  }

  /** Opens the chain's own gate to a sandbox. `parts` undefined: the sandbox has ended. */
  setGate(box: number, parts: GateParts | undefined): void {
    const { table } = this.#sandboxes;
    table.setGate(box, parts && new Gate(parts, table));
  }

  // ---- code and configuration

  #demand(packageName: string): Definition | undefined {
    const problem = this.host.demand(packageName);
    if (problem !== "") throw new Error(problem);
    return this.#modules.get(packageName);
  }

  /** A module has been loaded; its default export is one definition or several. They are used from the next preparation on. */
  define(packageName: string, exported: unknown): void {
    const list = Array.isArray(exported) ? exported : [exported];
    const folder = packageName.slice(packageName.indexOf("/") + 1);
    for (const definition of list as Definition[]) {
      if (
        definition === null ||
        typeof definition !== "object" ||
        typeof definition.setup !== "function"
      ) {
        throw new Error("the default export is not a filter: export default defineHttpFilter({…})");
      }
      const key = list.length === 1 ? packageName : `${definition.kind}/${folder}`;
      this.#modules.set(key, definition);
    }
  }

  /** A package that lives in a sandbox: `description` is JSON of a ParkedDescription. */
  defineParked(packageName: string, box: number, description: string): void {
    const parked = JSON.parse(description) as ParkedDescription;
    this.#modules.set(packageName, this.#sandboxes.define(packageName, box, parked));
  }

  /**
   * Sets everything that changes up beside what runs. If there are refusals it answers them and nothing has changed. Else it
   * tells core "prepared" once all `cx.waitFor` promises have settled, after WAIT_LIMIT_MS at the latest. `config` undefined:
   * only code changes.
   */
  prepare(
    generation: number,
    changedNames: readonly string[],
    removed: readonly string[],
    config: RuntimeConfig | undefined,
    rehearsed = true,
  ): readonly Refusal[] {
    if (this.#preparation !== undefined) this.abort();
    this.#around.rehearsed = rehearsed;
    const changed = new Map<string, Definition>();
    for (const name of changedNames) {
      const definition = this.#modules.get(name);
      if (definition !== undefined) changed.set(name, definition);
    }
    const refusals: Refusal[] = [];
    const made: SlotState[] = [];
    this.#around.waits = [];
    for (const name of removed) this.#modules.delete(name);
    this.registry.begin(generation, changed, removed);
    const services = new Map<string, ServiceUse>();
    const listeners: Listeners = new Map();
    const world: World = config === undefined ? this.#world : { listeners, services };
    this.#preparing = world;
    if (config !== undefined) {
      this.#prepareServices(config, services, made, refusals);
      const missesService = refusals.length > 0;
      this.registry.prepareCode(changed, refusals);
      // Without the cluster manager, every cluster that a route names would be unknown.
      if (!missesService) this.#prepareListeners(config.listeners, 0, listeners, made, refusals);
    }
    this.registry.prepareCode(changed, refusals);
    this.#preparing = undefined;
    this.tellStats();
    if (refusals.length > 0) {
      for (const slot of made) slot.retire();
      this.registry.abort();
      return refusals;
    }
    this.#preparation = { generation, world, listeners, made };
    this.#waitForAll(generation);
    return [];
  }

  /** Adds listeners that services bring along to the present preparation. `nth`: index of the first among all listeners. */
  extend(configs: readonly ListenerConfig[], nth: number): readonly Refusal[] {
    const { generation, world, listeners, made } = this.#preparation!;
    const refusals: Refusal[] = [];
    this.#around.waits = [];
    this.#preparing = world;
    this.#prepareListeners(configs, nth, listeners, made, refusals);
    this.#preparing = undefined;
    this.tellStats();
    if (refusals.length > 0) this.abort();
    else this.#waitForAll(generation);
    return refusals;
  }

  #prepareServices(
    config: RuntimeConfig,
    services: Map<string, ServiceUse>,
    made: SlotState[],
    refusals: Refusal[],
  ): void {
    for (const [k, entry] of config.services.entries()) {
      const place = `/services/${k}/config`;
      const runs = entry.runs ?? "workers";
      if (this.#role === "worker" && runs === "control") continue;
      if (this.#role === "control" && runs === "workers") continue;
      const ref: ExtensionRef = {
        name: entry.package,
        package: entry.package,
        config: entry.config,
      };
      const hash = entry.hash ?? JSON.stringify(entry.config);
      const old = this.#world.services.get(entry.package);
      this.registry.attempt(entry.package, place, refusals, () => {
        if (old === undefined) {
          const slot = this.registry.create(
            "service",
            ref,
            { pointer: place, statPrefix: "" },
            undefined,
          );
          made.push(slot as never);
          services.set(entry.package, { package: entry.package, hash, slot });
        } else {
          if (old.hash !== hash) this.registry.renew(old.slot as never, ref);
          services.set(entry.package, { package: entry.package, hash, slot: old.slot });
        }
      });
    }
  }

  #prepareListeners(
    configs: readonly ListenerConfig[],
    nth: number,
    listeners: Listeners,
    made: SlotState[],
    refusals: Refusal[],
  ): void {
    const listenerAt = (address: Address) => this.#listenerAt(address);
    const builder = new ListenerBuilder(this.#around, listenerAt, made, refusals);
    for (const [k, entry] of configs.entries()) {
      if (this.#role !== "canary" && this.#role !== (entry.thread ?? "worker")) continue;
      const hash = entry.hash ?? JSON.stringify(entry);
      const old = this.#world.listeners.get(entry.name);
      if (old !== undefined && old.hash === hash) {
        listeners.set(entry.name, old);
        continue;
      }
      const place = `/listeners/${nth + k}`;
      this.registry.attempt("", place, refusals, () => {
        // Connections to an address that is gone are drained with the chains they are in.
        const kept = old && keepsAddresses(old.listener.config, entry) ? old.listener : undefined;
        const listener = builder.build(entry, kept, place);
        listeners.set(entry.name, { hash, listener });
      });
    }
  }

  /** Tells core "prepared" once all waits have settled or WAIT_LIMIT_MS is over. */
  #waitForAll(generation: number): void {
    const waits = this.#around.waits;
    this.#around.waits = [];
    const tell = (): void => {
      if (this.#preparation?.generation === generation) this.host.tell("prepared", { generation });
    };
    if (waits.length === 0) {
      tell();
      return;
    }
    let open = waits.length;
    let told = false;
    const timer = this.#wheel.timer(() => {
      if (told) return;
      told = true;
      this.host.log("warn", "went on without waiting any longer", {
        for: waits.map((w) => w.what).join(", "),
      });
      tell();
    });
    timer.arm(WAIT_LIMIT_MS);
    const settled = (): void => {
      if (--open > 0 || told) return;
      told = true;
      timer.cancel();
      tell();
    };
    for (const wait of waits) wait.settled.then(settled, settled);
  }

  /** Puts the preparation into service. Connections of removed chains are drained as `how` says. */
  commit(how: DrainOptions): void {
    const preparation = this.#preparation;
    if (preparation === undefined) return;
    this.#preparation = undefined;
    this.registry.commit();
    const before = this.#world;
    this.#world = preparation.world;
    this.#tellConnections();
    if (before === preparation.world) return;
    for (const [name, use] of before.services) {
      if (this.#world.services.get(name)?.slot !== use.slot)
        (use.slot as unknown as SlotState).retire();
    }
    const kept = new Set<unknown>();
    const logging = new Set<unknown>();
    for (const { listener } of this.#world.listeners.values()) {
      logging.add(listener.logs);
      for (const slot of listener.listenerFilters) kept.add(slot);
      for (const chain of listener.chains) {
        for (const slot of chain.slots) kept.add(slot);
        kept.add(chain.transport);
      }
    }
    for (const { listener } of before.listeners.values()) {
      for (const chain of listener.chains) {
        if (chain.slots.some((slot) => kept.has(slot))) continue;
        this.#drainChain(chain, how);
        for (const slot of chain.slots) (slot as unknown as SlotState).retire();
        (chain.transport as unknown as SlotState | undefined)?.retire();
      }
      for (const slot of listener.listenerFilters)
        if (!kept.has(slot)) (slot as unknown as SlotState).retire();
      if (!logging.has(listener.logs)) for (const slot of listener.logs?.slots ?? []) slot.retire();
    }
  }

  /** Tells connections of the chains that stay about changed packages. */
  #tellConnections(): void {
    const drain = this.#drainWindow({ ms: 0, immediate: true });
    for (const { listener } of this.#world.listeners.values()) {
      for (const { runs, slots, transport } of listener.chains) {
        for (const run of [...runs])
          this.#guard(run.connection, () => run.onPackagesChanged(slots, transport, drain));
      }
    }
  }

  #drainChain(chain: Chain, how: DrainOptions): void {
    if (chain.runs.size === 0) return;
    this.#drainRuns(chain, this.#drainWindow(how));
    const timer = this.#wheel.timer(() => {
      for (const run of [...chain.runs]) run.connection.close("flush");
    });
    timer.arm(how.ms);
  }

  #drainWindow(how: DrainOptions): DrainWindow {
    return new DrainWindow(how, () => this.#wheel.now);
  }

  #drainRuns(chain: Chain, drain: DrainWindow): void {
    for (const run of [...chain.runs]) this.#guard(run.connection, () => run.drain(drain));
  }

  /** Drops the present preparation, if there is one, also one that core has stopped in the middle. */
  abort(): void {
    const preparation = this.#preparation;
    this.#preparation = this.#preparing = undefined;
    this.registry.abort();
    for (const slot of preparation?.made ?? []) slot.retire();
  }

  /** JSON of ListenerConfig[]: listeners that services bring along, after the present preparation. */
  serviceListeners(): string {
    const world = this.#preparation?.world ?? this.#world;
    const list: unknown[] = [];
    for (const { slot } of world.services.values()) {
      const service = (slot.next ?? slot.current).value;
      if (service.listener !== undefined) list.push(service.listener);
    }
    return JSON.stringify(list);
  }

  /** Runs a tool of a package for the command line. `input` and the answer are JSON; throws if there is no such tool. */
  tool(packageName: string, name: string, input: string): string {
    const run = this.registry.definition(packageName)?.tools?.[name];
    if (run === undefined) throw new Error(`${packageName} has no tool "${name}"`);
    const place = { pointer: "", statPrefix: "" };
    const scope = new Scope(this.registry, packageName, place, undefined);
    try {
      return JSON.stringify(run(JSON.parse(input), new Context(this.#around, scope)) ?? null);
    } finally {
      scope.dispose();
    }
  }

  /** Drains all connections at once. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    const drain = this.#drainWindow({ ms: 0, immediate: true });
    for (const { listener } of this.#world.listeners.values())
      for (const chain of listener.chains) this.#drainRuns(chain, drain);
  }

  /** Drains the connections that these listeners have and those that they will accept. A drain that has begun goes on. */
  drainListeners(names: readonly string[], how: DrainOptions): void {
    const drain = this.#drainWindow(how);
    for (const name of names) {
      const listener = this.#world.listeners.get(name)?.listener;
      if (listener === undefined || listener.draining !== undefined) continue;
      listener.draining = drain;
      for (const chain of listener.chains) this.#drainRuns(chain, drain);
    }
  }

  /** Number of open connections of all listeners. */
  activeConnections(): number {
    let n = 0;
    for (const { listener } of this.#world.listeners.values())
      for (const chain of listener.chains) n += chain.runs.size;
    return n;
  }

  /** Writes waiting lines of files. Answers how many access log entries sandboxes have not accepted yet. */
  flushFiles(): number {
    this.#files.flush();
    return this.#sandboxes.flushLogs();
  }
}

/** True if a client of the first configuration would reach the second one as well: no address is gone. */
function keepsAddresses(before: ListenerConfig, now: ListenerConfig): boolean {
  const all = ({ address, additionalAddresses = [] }: ListenerConfig) =>
    [address, ...additionalAddresses].map((at) => JSON.stringify(at));
  const here = new Set(all(now));
  return all(before).every((at) => here.has(at));
}

const NO_HANDLER = { onData: () => {}, onEof: () => {}, onClosed: () => {} };
