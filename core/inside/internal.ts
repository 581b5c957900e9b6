import { type Address, Chunk, internalAddress, type Output } from "@tsproxy/sdk";
import { type ConnectionOwner, SocketConnection, type Wire } from "./connection.ts";
import { COMMAND, HOW } from "./ring.ts";

/** The remote address of every connection that an internal listener accepts, as in Envoy. */
const CLIENT = internalAddress("internal_client_address");
/** Most bytes in one `onData`, as from a socket. */
const PIECE = 64 * 1024;
/** Ids from here on belong to no socket, whose generations are lower. */
const FIRST_ID = 0x4000_0000;

const EMPTY = new Uint8Array(0);
const NO_HANDLER = { onData: () => {}, onEof: () => {}, onClosed: () => {} };

let nextId = 0;

/** A listener without a socket, for connections that upstreams of the same isolate open. */
export interface InternalListener {
  /** Some of its connections are encrypted. */
  readonly secure: boolean;
  onAccepted(connection: SocketConnection): void;
  /** Bytes that may wait for one end before the other end is blocked. */
  readonly bufferBytes: number;
}

/** Something to do for a connection in a turn of its own. */
export interface Delivery {
  readonly connection: SocketConnection;
  deliver(): void;
}

/** The table that both ends of an internal connection are in. */
export interface InternalOwner extends ConnectionOwner {
  /** Memory that is valid until the next call. */
  scratch(size: number): Uint8Array;
  /** Asks for a turn in which `delivery.deliver` is called. */
  deliver(delivery: Delivery): void;
  /** Connects `client` with the connection that it answers, by sockets of core. Only in a turn. */
  pair(client: SocketConnection, bufferBytes: number): SocketConnection;
}

/** Where an internal connection leads. */
export interface InternalTarget {
  readonly address: Address;
  /** The client encrypts. */
  readonly secure: boolean;
  find(): InternalListener | undefined;
}

/** Connects `client` to the listener that `target` finds. If there is none, `client` is closed in a later turn. */
export function connectInternally(
  table: InternalOwner,
  client: SocketConnection,
  target: InternalTarget,
): void {
  const listener = target.find();
  if (listener !== undefined && (target.secure || listener.secure)) {
    pairInTurn(table, client, target, listener.bufferBytes);
    return;
  }
  const end = new InternalEnd(table, client, listener?.bufferBytes ?? 0);
  client.wireTo(end, FIRST_ID + (nextId++ & 0xffff_fff));
  if (listener === undefined) {
    end.refuse();
    return;
  }
  const server = new SocketConnection(table, -1, NO_HANDLER);
  const other = new InternalEnd(table, server, listener.bufferBytes);
  server.wireTo(other, FIRST_ID + (nextId++ & 0xffff_fff));
  end.meet(other, () => client.onConnected(CLIENT));
  other.meet(end, () => accept(server, client, target));
}

/** TLS is done by core, on sockets: where an end has it, core connects the two. */
function pairInTurn(
  table: InternalOwner,
  client: SocketConnection,
  target: InternalTarget,
  bufferBytes: number,
): void {
  const deliver = (): void => {
    if (!client.open) return;
    const server = table.pair(client, bufferBytes);
    table.deliver({ connection: server, deliver: () => accept(server, client, target) });
    client.onConnected(CLIENT);
  };
  table.deliver({ connection: client, deliver });
}

function accept(server: SocketConnection, client: SocketConnection, target: InternalTarget): void {
  server.remoteAddress = server.directAddress = CLIENT;
  server.localAddress = target.address;
  server.metadata = client.passedMetadata;
  // The config may have changed since the client connected.
  const listener = target.find();
  if (listener === undefined) server.close("abort");
  else listener.onAccepted(server);
}

/**
 * One end of an internal connection without TLS, in the place of the ring. Bytes written here are copied, since they are lent for one event only,
 * and delivered to the other end in a later turn.
 *
 *   writes ──> the peer's queue ──deliver──> the peer's handler
 */
export class InternalEnd implements Wire {
  readonly hasRoom = true;
  readonly #table: InternalOwner;
  readonly #connection: SocketConnection;
  readonly #limit: number;
  readonly #output: Output = { memory: EMPTY, at: 0 };
  #peer: InternalEnd | undefined = undefined;
  /** Run in the first turn: connects, accepts or refuses. */
  #start: (() => void) | undefined = undefined;
  /** Bytes from the peer that have not been delivered. */
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  /** The peer's connection is blocked until the queue is half empty. */
  #full = false;
  #paused = false;
  #scheduled = false;
  /** Whether the peer has ended: `waiting` while bytes are queued before the end, then `told` to the handler. */
  #eof: "no" | "waiting" | "told" = "no";
  #ended = false;
  /** The peer has closed, and reads no more. */
  #peerClosed = false;
  #reset = false;
  #closed = false;

  constructor(table: InternalOwner, connection: SocketConnection, limit: number) {
    this.#table = table;
    this.#connection = connection;
    this.#limit = limit;
  }

  /** Joins the two ends; `start` is called in this end's first turn. */
  meet(peer: InternalEnd, start: () => void): void {
    this.#peer = peer;
    this.#start = start;
    this.#schedule();
  }

  /** There is no such listener: the connection closes in its first turn. */
  refuse(): void {
    this.#start = () => this.#gone("");
    this.#schedule();
  }

  // ---- Wire: calls of the connection

  canCopy(): boolean {
    return true;
  }
  canForward(): boolean {
    return false;
  }
  forward(): void {}

  copyOut(_id: number, memory: Uint8Array, at: number, end: number): void {
    this.#send(memory.slice(at, end));
  }

  reserve(size: number): Output {
    const output = this.#output;
    output.memory = this.#table.scratch(size);
    output.at = 0;
    return output;
  }
  isOutput(output: Output): boolean {
    return output === this.#output;
  }
  commit(): number {
    const { memory, at } = this.#output;
    if (at > 0) this.#send(memory.slice(0, at));
    return at;
  }

  command(op: number, _id: number, how: number): void {
    if (this.#closed) return;
    switch (op) {
      case COMMAND.PAUSE:
        this.#paused = true;
        break;
      case COMMAND.RESUME:
        this.#paused = false;
        this.#schedule();
        break;
      case COMMAND.END:
        this.#ended = true;
        this.#peer?.onPeerEnded();
        this.#schedule();
        break;
      case COMMAND.CLOSE:
        this.#close(how);
        break;
      default:
        this.#connection.transportFailure =
          "the listener began to use TLS while this internal connection was being opened";
        this.#connection.close("abort");
    }
  }

  place(): number {
    return 0;
  }
  placeText(): number {
    return 0;
  }

  #close(how: number): void {
    this.#closed = true;
    this.#queue.length = 0;
    const peer = this.#peer;
    if (peer === undefined) return;
    peer.onPeerClosed(how === HOW.RESET);
    this.#peer = undefined;
  }

  #send(bytes: Uint8Array): void {
    if (this.#closed) return;
    if (this.#peerClosed) {
      // A socket would get RST.
      this.#reset = true;
      this.#schedule();
    } else if (this.#peer?.take(bytes) === true) this.#connection.onSocketBlocked();
  }

  // ---- calls of the other end

  /** Queues bytes. True: the queue has just passed the limit, and the writer is blocked. */
  take(bytes: Uint8Array): boolean {
    this.#queue.push(bytes);
    this.#queued += bytes.length;
    this.#schedule();
    if (this.#full || this.#queued <= this.#limit) return false;
    this.#full = true;
    return true;
  }

  /** The other end writes no more. */
  onPeerEnded(): void {
    if (this.#eof === "no") this.#eof = "waiting";
    this.#schedule();
  }

  /** The other end has closed. */
  onPeerClosed(reset: boolean): void {
    this.#peerClosed = true;
    this.#peer = undefined;
    if (reset) {
      this.#reset = true;
      this.#queue.length = 0;
    }
    this.onPeerEnded();
  }

  // ---- delivery

  #schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.#table.deliver(this);
  }

  get connection(): SocketConnection {
    return this.#connection;
  }

  /** One turn: gives the connection what has come, as long as the ring has room for what it writes in answer. */
  deliver(): void {
    this.#scheduled = false;
    const start = this.#start;
    if (start !== undefined) {
      this.#start = undefined;
      start();
    }
    while (this.#queue.length > 0 && this.#listens) {
      if (!this.#table.io.hasRoom) {
        this.#schedule();
        return;
      }
      this.#show(this.#queue[0]!);
    }
    if (this.#queue.length > 0) return;
    if (this.#reset) this.#gone("ECONNRESET");
    if (!this.#listens) return;
    if (this.#eof === "waiting") {
      this.#eof = "told";
      this.#connection.onEof();
    }
    if (this.#eof === "told" && this.#ended) this.#gone("");
  }

  get #listens(): boolean {
    return !this.#paused && !this.#closed;
  }

  #show(bytes: Uint8Array): void {
    const size = Math.min(bytes.length, PIECE);
    if (size === bytes.length) this.#queue.shift();
    else this.#queue[0] = bytes.subarray(size);
    this.#queued -= size;
    if (this.#full && this.#queued <= this.#limit / 2) {
      this.#full = false;
      this.#peer?.connection.onSocketDrained();
    }
    this.#connection.onData(new Chunk(bytes, 0, size));
  }

  #gone(error: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queue.length = 0;
    this.#peer?.onPeerClosed(false);
    this.#peer = undefined;
    this.#connection.onClosed(false, error, this.#connection.connecting);
  }
}
