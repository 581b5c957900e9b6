import { type Address, Chunk, internalAddress, type Output } from "@tsproxy/sdk";
import { type ConnectionTable, SocketConnection, type Wire } from "./connection.ts";
import { COMMAND, HOW } from "./ring.ts";

/** What every client of an internal listener is called, as in Envoy. */
const CLIENT = internalAddress("internal_client_address");
/** A handler is shown no more at once, as from a socket. */
const PIECE = 64 * 1024;
/** Ids that no socket gets: a generation is never that high. */
const FIRST_ID = 0x4000_0000;

const EMPTY = new Uint8Array(0);
const NO_HANDLER = { onData: () => {}, onEof: () => {}, onClosed: () => {} };

let nextId = 0;

/** A listener that has no socket: it takes connections that others of this isolate make. */
export interface InternalListener {
  onAccepted(connection: SocketConnection): void;
  /** So much waits for either end before the other one is told to pause. */
  readonly bufferBytes: number;
}

/** Connects `client` to the listener that is found there, or lets it hear that there is none. */
export function connectInternally(
  table: ConnectionTable,
  client: SocketConnection,
  address: Address,
  find: () => InternalListener | undefined,
): void {
  const listener = find();
  const end = new InternalEnd(table, client, listener?.bufferBytes ?? 0);
  client.wireTo(end, FIRST_ID + (nextId++ & 0xffff_fff));
  if (listener === undefined) {
    end.refuse();
    return;
  }
  const server = new SocketConnection(table, -1, NO_HANDLER);
  const other = new InternalEnd(table, server, listener.bufferBytes);
  server.wireTo(other, FIRST_ID + (nextId++ & 0xffff_fff));
  server.remoteAddress = server.directAddress = CLIENT;
  server.localAddress = address;
  server.metadata = client.passedMetadata;
  end.meet(other, () => client.onConnected(CLIENT));
  other.meet(end, () => {
    // The config may have changed since.
    const found = find();
    if (found === undefined) server.close("abort");
    else found.onAccepted(server);
  });
}

/**
 * One end of a connection within this isolate: what it writes is what the other end is shown in a later turn. A copy is made of it, as
 * what is lent lasts no longer than an event.
 *
 *   writes ──> the peer's queue ──deliver──> the peer's handler
 */
export class InternalEnd implements Wire {
  readonly hasRoom = true;
  readonly #table: ConnectionTable;
  readonly #connection: SocketConnection;
  readonly #limit: number;
  readonly #output: Output = { memory: EMPTY, at: 0 };
  #peer: InternalEnd | undefined = undefined;
  /** Begins it, in its first turn. */
  #start: (() => void) | undefined = undefined;
  /** From the peer, not yet shown. */
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  /** The peer has been told to wait. */
  #full = false;
  #paused = false;
  #scheduled = false;
  /** The peer writes no more: `waiting` behind what is queued, then `told`. */
  #eof: "no" | "waiting" | "told" = "no";
  #ended = false;
  /** The peer has closed: nobody reads what this end writes. */
  #forlorn = false;
  #reset = false;
  #closed = false;

  constructor(table: ConnectionTable, connection: SocketConnection, limit: number) {
    this.#table = table;
    this.#connection = connection;
    this.#limit = limit;
  }

  meet(peer: InternalEnd, start: () => void): void {
    this.#peer = peer;
    this.#start = start;
    this.#schedule();
  }

  /** Nobody listens there. */
  refuse(): void {
    this.#start = () => this.#gone("");
    this.#schedule();
  }

  // ---- what the connection does with its socket

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
        this.#peer?.finish();
        this.#schedule();
        break;
      case COMMAND.CLOSE:
        this.#close(how);
        break;
      default:
        // OpenSSL wants a socket.
        this.#connection.transportFailure = "TLS is not possible on an internal connection";
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
    peer.forsake(how === HOW.RESET);
    this.#peer = undefined;
  }

  #send(bytes: Uint8Array): void {
    if (this.#closed) return;
    if (this.#forlorn) {
      // As a socket learns by RST.
      this.#reset = true;
      this.#schedule();
    } else if (this.#peer?.take(bytes) === true) this.#connection.onSocketBlocked();
  }

  // ---- what the other end does to this one

  /** True: it has more than it should, and the other end is to wait. */
  take(bytes: Uint8Array): boolean {
    this.#queue.push(bytes);
    this.#queued += bytes.length;
    this.#schedule();
    if (this.#full || this.#queued <= this.#limit) return false;
    this.#full = true;
    return true;
  }

  finish(): void {
    if (this.#eof === "no") this.#eof = "waiting";
    this.#schedule();
  }

  forsake(reset: boolean): void {
    this.#forlorn = true;
    this.#peer = undefined;
    if (reset) {
      this.#reset = true;
      this.#queue.length = 0;
    }
    this.finish();
  }

  // ---- its turn

  #schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.#table.deliver(this);
  }

  get connection(): SocketConnection {
    return this.#connection;
  }

  /** Shows the connection what has come, as long as there is room for what it answers. */
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
    this.#peer?.forsake(false);
    this.#peer = undefined;
    this.#connection.onClosed(false, error, this.#connection.connecting);
  }
}
