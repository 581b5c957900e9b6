import {
  CellHeap,
  Chunk,
  type Clusters,
  type Definition,
  latin1Decode,
  latin1Encode,
  Runtime,
  type RuntimeValue,
  surroundings,
} from "@tsproxy/sdk";
import type { FileFlush, NodeConfig, Refusal, RuntimeConfig } from "../protocol.ts";
import { listenerOf } from "../protocol.ts";
import { SocketConnection } from "./connection.ts";
import { ConnectionTable } from "./connection-table.ts";
import { Context, type Surroundings } from "./context.ts";
import type { CryptoAnswer, CryptoCall, CryptoHost } from "./crypto.ts";
import { namedClusters, SandboxFetches } from "./fetches.ts";
import { FileTable } from "./files.ts";
import { Gate, type GateParts } from "./gate.ts";
import { Generations, type GenerationsOwner } from "./generations.ts";
import { installGlobals } from "./globals.ts";
import { Host, type HostCall } from "./host.ts";
import { Io } from "./io.ts";
import { Regexes } from "./regexes.ts";
import { Registry, Scope } from "./registry.ts";
import { CLOSED_FLAG, EVENT, SOCKET_ERRORS, TURNS, WORD } from "./ring.ts";
import { type ParkedDescription, Sandboxes } from "./sandboxes.ts";
import { SharedCounts } from "./shared-counts.ts";
import { ScopedStats, StatsTable } from "./stats.ts";
import { TimerWheel } from "./timers.ts";
import { NODE_TOPIC, RUNTIME_TOPIC, Topics } from "./topics.ts";
import { UdpTable } from "./udp.ts";
import { unmapped } from "./unmapped.ts";

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

/**
 * The builtin isolate's half of core, called by core through main.ts. `run` handles the ring's events and answers with commands;
 * `generations` changes what runs.
 */
export class Engine implements GenerationsOwner {
  readonly host: Host;
  readonly regexes: Regexes;
  readonly registry: Registry;
  readonly topics: Topics;
  readonly generations: Generations;
  readonly #io: Io;
  readonly #wheel: TimerWheel;
  readonly #connections: ConnectionTable;
  readonly #udp: UdpTable;
  readonly #stats: StatsTable;
  readonly #runtime = new Runtime();
  readonly #files: FileTable;
  readonly #around: Surroundings;
  readonly #modules = new Map<string, Definition>();
  readonly #chunk: Chunk;
  readonly #fetches = new Map<number, SandboxFetches>();
  readonly #sandboxes: Sandboxes;

  constructor(
    ring: SharedArrayBuffer,
    cells: SharedArrayBuffer,
    turns: SharedArrayBuffer,
    counts: SharedArrayBuffer,
    ledger: SharedArrayBuffer,
    chunks: SharedArrayBuffer,
    call: HostCall,
    options: EngineOptions,
  ) {
    surroundings.hostname = options.hostname ?? "";
    surroundings.environment = options.environment ?? {};
    this.host = new Host(call);
    this.regexes = new Regexes(this.host);
    surroundings.regex = (pattern) => this.regexes.compile(pattern);
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
      const listener = this.generations.listener(name);
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
      chunks,
      options.fileFlush,
    );
    this.topics = new Topics(this.host);
    this.topics.subscribe(RUNTIME_TOPIC, (values) =>
      this.#runtime.replace(values as readonly [string, RuntimeValue][]),
    );
    this.#sandboxes = new Sandboxes(this.#io, this.host);
    this.registry = new Registry(
      (name, error) => this.host.fault(name, error),
      (name, isPrepared) => this.#demand(name, isPrepared),
    );
    this.#chunk = new Chunk(this.#io.memory, 0, 0);
    this.#wheel.advance(this.#io.now);
    const clusters: Clusters = {
      get: (name) => this.generations.clusters?.get(name),
      has: (name) => this.generations.hasCluster(name),
      status: () => this.generations.clusters?.status?.(),
    };
    const holder = { worker: options.worker, isolate: options.isolate ?? 1 };
    this.#around = {
      role: options.role,
      rehearsed: true,
      worker: options.worker,
      node: options.node,
      host: this.host,
      regexes: this.regexes,
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
    this.generations = new Generations(this.#around, this);
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

  // ---- the data path

  /** One crossing: handles up to `count` events of the ring, as long as there is room. Answers the number of commands. */
  run(count: number): number {
    const io = this.#io;
    const control = io.control;
    const parked = this.#sandboxes.table;
    io.begin();
    this.#wheel.begin(io.now);
    const events = control[WORD.EVENTS]! >> 2;
    let k = 0;
    for (let i = events; k < count && io.hasRoom; k++, i += 4) {
      this.#onEvent(control[i]!, control[i + 1]!, control[i + 2]!, control[i + 3]!);
      parked.relieveGates();
    }
    // Behind the events, as in Envoy: what came while the thread was late is not too late.
    this.#wheel.advance(io.now);
    if (this.#connections.wantsTurn) this.#connections.turn(this.guard);
    if (parked.wantsTurn && io.hasRoom) parked.turn();
    parked.enterGates();
    parked.leaveGates();
    this.#connections.tellClosed(this.guard);
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
    const listed = this.#stats.takeListed();
    this.host.tell("stats", { returned: this.#stats.takeReturned(), defined, listed });
  }

  /** Runs a call on behalf of a connection, which alone is closed if it throws. */
  readonly guard = (connection: SocketConnection, call: () => void): void => {
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
        case EVENT.UNSENT:
          connection.onUnsent(a);
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
    const listener = this.generations.listener(listenerOf(name));
    if (listener === undefined) connection.close("abort");
    else {
      try {
        listener.onAccepted(connection);
      } catch (error) {
        this.#onFault(connection, error);
      }
    }
    return connection;
  }

  /** Core has bound a UDP listener's socket. Each datagram goes to the listener that has this name when it arrives. */
  #onUdpBound(id: number, text: string): void {
    const [name = "", ip = "", port = "0"] = text.split("|");
    const socket = this.#udp.adopt(
      id,
      { ip, port: Number(port) },
      {
        onDatagram: (bytes, from) =>
          this.generations.listener(listenerOf(name))?.onDatagram(bytes, from, socket),
        onError: () => {},
      },
    );
  }

  /** Setup in a sandbox has told that the use's filters read only these parts of their streams (bits of layout.ts). */
  narrow(use: number, mask: number): void {
    this.#sandboxes.narrow(use, mask);
  }

  /** New streams of that account go to the ward of their sandbox from now on, or no longer. */
  confine(use: number, part: number, isConfined: boolean): void {
    this.#sandboxes.confine(use, part, isConfined);
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
      const clusters = namedClusters(this.#around.clusters, (name) =>
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

  #demand(packageName: string, isPrepared: boolean): Definition | undefined {
    const problem = this.host.demand(packageName, isPrepared);
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

  /** Prepares a change (Generations.prepare) with the code of the packages in `changedNames` as it was defined last. */
  prepare(
    generation: number,
    changedNames: readonly string[],
    removed: readonly string[],
    config: RuntimeConfig | undefined,
    rehearsed = true,
  ): readonly Refusal[] {
    const changed = new Map<string, Definition>();
    for (const name of changedNames) {
      const definition = this.#modules.get(name);
      if (definition !== undefined) changed.set(name, definition);
    }
    for (const name of removed) this.#modules.delete(name);
    this.#around.rehearsed = rehearsed;
    return this.generations.prepare(generation, changed, removed, config);
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

  /** Writes waiting lines of files. Answers how many access log entries sandboxes have not accepted yet. */
  flushFiles(): number {
    this.#files.flush();
    return this.#sandboxes.flushLogs();
  }
}

const NO_HANDLER = { onData: () => {}, onEof: () => {}, onClosed: () => {} };
