// Hot path: each crossing asks it for connections and for waiting work.
import {
  type Address,
  type ConnectionHandler,
  type ConnectOptions,
  readInternalAddress,
} from "@tsproxy/sdk";
import { SocketConnection } from "./connection.ts";
import { Handshake } from "./handshake.ts";
import {
  connectInternally,
  type Delivery,
  type InternalListener,
  type InternalOwner,
} from "./internal.ts";
import type { Io } from "./io.ts";
import { RelayTable } from "./relay.ts";
import { COMMAND } from "./ring.ts";
import type { TimerWheel } from "./timers.ts";

/** Most bytes that one task (`soon`) writes into the output segment: bytes read before TLS began, and the options of TLS. */
const TASK_BYTES = 80 * 1024;
/** Rounds of delivery between internal connections in one crossing, before sockets have their turn again. */
const INTERNAL_ROUNDS = 16;
/** With this many waiting tasks further datagrams are dropped. */
const MAX_TASKS = 4096;

const NO_HANDLER = { onData: () => {}, onEof: () => {}, onClosed: () => {} };

type Guard = (connection: SocketConnection, call: () => void) => void;

/** An outgoing connection that waits for an id from core, with the text of COMMAND.CONNECT. */
interface Outgoing {
  readonly connection: SocketConnection;
  readonly address: Uint8Array;
}

/** All connections of an isolate by id, and what is to be done in a later turn (`turn`) instead of on an event. */
export class ConnectionTable implements InternalOwner {
  readonly io: Io;
  readonly wheel: TimerWheel;
  readonly relays: RelayTable;
  readonly onFault: (error: unknown) => void;
  readonly #byIndex: (SocketConnection | undefined)[] = [];
  readonly #pulls: SocketConnection[] = [];
  #agains: SocketConnection[] = [];
  /** Closed by this side: their handlers are told at the end of the crossing, never within a call of their own. */
  #closed: SocketConnection[] = [];
  readonly #withoutId: Outgoing[] = [];
  readonly #address = new Uint8Array(512);
  readonly #tasks: (() => void)[] = [];
  /** What is to be done for internal connections. */
  #inbound: Delivery[] = [];
  #scratch = new Uint8Array(0);
  /** Finds the internal listener of that name; set by the engine. */
  internalListener: (name: string) => InternalListener | undefined = () => undefined;

  constructor(io: Io, wheel: TimerWheel, onFault: (error: unknown) => void = () => {}) {
    this.io = io;
    this.wheel = wheel;
    this.relays = new RelayTable(io, wheel);
    this.onFault = onFault;
  }

  find(id: number): SocketConnection | undefined {
    const connection = this.#byIndex[id & 0xffff];
    return connection !== undefined && connection.id === id ? connection : undefined;
  }

  add(connection: SocketConnection): void {
    this.#byIndex[connection.id & 0xffff] = connection;
  }

  release(connection: SocketConnection): void {
    this.#byIndex[connection.id & 0xffff] = undefined;
    this.io.command(COMMAND.RELEASE, connection.id, 0, 0);
  }

  connect(address: Address, handler: ConnectionHandler, options: ConnectOptions): SocketConnection {
    const connection = new SocketConnection(this, -1, handler);
    connection.connecting = true;
    connection.connectBegin = this.wheel.now;
    connection.remoteAddress = address;
    connection.awaitsClose = options.awaitsClose === true;
    if (options.timeoutMs > 0) connection.connectTimeout(options.timeoutMs);
    if (options.transport !== undefined) {
      const generation = options.transport.current;
      const handshake = new Handshake(connection, handler, generation);
      const transport = generation.value.connect?.(handshake, options.transportOptions ?? {});
      if (handshake.take(transport)) connection.hold(handshake);
    }
    const internal = address.path === undefined ? undefined : readInternalAddress(address);
    if (internal !== undefined) {
      const { listener } = internal;
      connectInternally(this, connection, {
        address,
        secure: options.transport?.current.value.secure === true,
        find: () => this.internalListener(listener),
      });
      return connection;
    }
    const text = connectText(address, options);
    let size = 0;
    for (; size < text.length && size < this.#address.length; size++)
      this.#address[size] = text.charCodeAt(size);
    const entry = { connection, address: this.#address.slice(0, size) };
    if (!this.#connectWithId(entry)) {
      this.#withoutId.push(entry);
      this.io.touch();
    }
    return connection;
  }

  /** Commands core to connect. False: no id or no room in this crossing. */
  #connectWithId({ connection, address }: Outgoing): boolean {
    if (!this.io.canCopy(address.length)) return false;
    const id = this.io.takeId();
    if (id < 0) return false;
    const at = this.io.place(address, 0, address.length);
    this.io.command(COMMAND.CONNECT, id, at, address.length);
    connection.id = id;
    this.add(connection);
    connection.onId(id);
    return true;
  }

  /** A connection is closed before it got an id. */
  forgetWithoutId(connection: SocketConnection): void {
    const at = this.#withoutId.findIndex((entry) => entry.connection === connection);
    if (at >= 0) this.#withoutId.splice(at, 1);
  }

  /** Runs a task that writes up to TASK_BYTES: at once if there is room in this crossing, else in a later turn. */
  soon(task: () => void): void {
    if (this.soonIsNow) task();
    else {
      this.#tasks.push(task);
      this.io.touch();
    }
  }

  /** `soon` would run it at once. */
  get soonIsNow(): boolean {
    return this.#tasks.length === 0 && this.io.hasRoom && this.io.canCopy(TASK_BYTES);
  }
  get soonIsFull(): boolean {
    return this.#tasks.length >= MAX_TASKS;
  }

  /** Asks for a turn in which the connection writes its kept bytes. */
  pull(connection: SocketConnection): void {
    if (!this.#pulls.includes(connection)) this.#pulls.push(connection);
    this.io.touch();
  }

  again(connection: SocketConnection): void {
    this.#agains.push(connection);
    this.io.touch();
  }

  closed(connection: SocketConnection): void {
    // Core closes its socket after this turn, and says so.
    if (connection.awaitsClose && connection.id >= 0) return;
    this.#closed.push(connection);
    this.io.touch();
  }

  deliver(delivery: Delivery): void {
    this.#inbound.push(delivery);
    this.io.touch();
  }

  pair(client: SocketConnection, bufferBytes: number): SocketConnection {
    const id = this.io.takeId();
    const server = new SocketConnection(this, this.io.takeId(), NO_HANDLER);
    this.io.command(COMMAND.PAIR, id, server.id, bufferBytes);
    client.id = id;
    this.add(client);
    this.add(server);
    client.onId(id);
    return server;
  }

  /** Memory that is valid until the next call. */
  scratch(size: number): Uint8Array {
    if (this.#scratch.length < size) this.#scratch = new Uint8Array(size);
    return this.#scratch;
  }

  /** Delivers between internal connections, and then what they have written in answer, in INTERNAL_ROUNDS rounds at most. */
  #deliver(guard: Guard): void {
    for (let round = 0; round < INTERNAL_ROUNDS && this.#inbound.length > 0; round++) {
      const inbound = this.#inbound;
      this.#inbound = [];
      for (const delivery of inbound) {
        if (this.io.hasRoom) guard(delivery.connection, () => delivery.deliver());
        else this.#inbound.push(delivery);
      }
    }
  }

  /** Does the waiting work, as far as there is room. */
  turn(guard: Guard): void {
    if (this.#inbound.length > 0) this.#deliver(guard);
    while (this.#withoutId.length > 0 && this.#connectWithId(this.#withoutId[0]!))
      this.#withoutId.shift();
    while (this.#tasks.length > 0 && this.io.hasRoom && this.io.canCopy(TASK_BYTES))
      this.#tasks.shift()!();
    while (this.#pulls.length > 0 && this.io.hasRoom) {
      // Removed first: on `onDrained` the handler may write so much that the connection is pulled again.
      const connection = this.#pulls.shift()!;
      let done = true;
      guard(connection, () => {
        done = connection.flushPending();
      });
      if (done) continue;
      this.#pulls.unshift(connection);
      break;
    }
    const agains = this.#agains;
    if (agains.length > 0) {
      this.#agains = [];
      for (const connection of agains) {
        if (!this.io.hasRoom) this.#agains.push(connection);
        else guard(connection, () => connection.onAgain());
      }
    }
  }

  /** Tells handlers of the connections that this side has closed. Their ids are released when core confirms. */
  tellClosed(guard: Guard): void {
    while (this.#closed.length > 0) {
      const closed = this.#closed;
      this.#closed = [];
      for (const connection of closed) {
        if (!connection.gone)
          guard(connection, () => connection.onClosed(true, "", connection.connecting));
      }
    }
  }

  get wantsTurn(): boolean {
    return (
      this.#withoutId.length > 0 ||
      this.#inbound.length > 0 ||
      this.#tasks.length > 0 ||
      this.#pulls.length > 0 ||
      this.#agains.length > 0 ||
      this.io.overflowed
    );
  }
}

/** The text of COMMAND.CONNECT. */
function connectText(address: Address, { keepAlive, bind, bufferBytes }: ConnectOptions): string {
  const text = `${address.ip}|${address.port}|${address.path ?? ""}`;
  if (keepAlive === undefined && bind === undefined && bufferBytes === undefined) return text;
  const probes =
    keepAlive === undefined ? "" : `${keepAlive.idleS},${keepAlive.intervalS},${keepAlive.probes}`;
  return `${text}|${probes}|${bind?.ip ?? ""}|${bind?.port ?? 0}|${bufferBytes ?? 0}`;
}
