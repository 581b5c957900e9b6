// Hot path: every command finds its connection here.
import type dgram from "node:dgram";
import type net from "node:net";
import { INDEXES, indexOf } from "../inside/ring.ts";
import type { SecureWrites } from "./secure-writes.ts";
import type { StreamHandle } from "./stream-handle.ts";

export type RawSocket = net.Socket & { _handle: StreamHandle | null };

/** A connection of a worker, or a UDP socket. */
export class Entry {
  readonly id: number;
  socket: RawSocket | undefined = undefined;
  slot = -1;
  /** It has read since `reclaimSlots` looked last. */
  active = false;
  paused = false;
  /** It has more to read, but not in this turn of the event loop: others come first. */
  waits = false;
  blocked = false;
  /** The handle that writes go to directly. Undefined while connecting, with TLS, and once the connection is being ended. */
  plain: StreamHandle | undefined = undefined;
  /** Number of writes that the kernel has not taken completely. */
  writing = 0;
  /** Bytes that the kernel has not taken, as the isolate was told last. */
  unsent = 0;
  /** The isolate may use its id for a connection of its own (WORD.IDS), and has not yet. */
  offered = false;
  closed = false;
  connecting = false;
  /** It was accepted from a client. */
  accepted = false;
  /** Closed by a command of the isolate, not by the peer. */
  local = false;
  /** A TLS handshake is under way: reading is not paused. */
  handshakes = false;
  /** Writes go here after the TLS handshake. */
  secure: SecureWrites | undefined = undefined;
  /** The TCP socket below, where `socket` is TLS. */
  raw: RawSocket | undefined = undefined;
  udp: dgram.Socket | undefined = undefined;
  /** What it reads is written to that one, and the other way round (Relays). */
  relayTo: Entry | undefined = undefined;
  /** Why it ended: an index into SOCKET_ERRORS. */
  error = 0;
  /** Decrypted bytes that arrived during a flush, to be delivered after it. */
  late: Buffer[] | undefined = undefined;

  constructor(id: number) {
    this.id = id;
  }
}

/** Open at once: offered and closing connections need some of the ids. */
export const MAX_CONNECTIONS = 60_000;

/** The connections of a worker by their ids. An index is issued again only after the isolate's release, and then makes another id. */
export class SocketTable {
  /** Connections and UDP sockets that are not closed. */
  open = 0;
  readonly #entries: (Entry | undefined)[] = [];
  readonly #generations: number[] = [];
  readonly #freeIndexes: number[] = [];

  issue(): Entry {
    const index = this.#freeIndexes.length > 0 ? this.#freeIndexes.pop()! : this.#entries.length;
    if (index >= INDEXES) throw new Error("more than 65,536 connections on one worker");
    const generation = ((this.#generations[index] ?? 0) + 1) & 0x7fff;
    this.#generations[index] = generation;
    const entry = new Entry((generation << 16) | index);
    this.#entries[index] = entry;
    return entry;
  }

  find(id: number): Entry | undefined {
    const entry = this.#entries[indexOf(id)];
    return entry !== undefined && entry.id === id ? entry : undefined;
  }

  /** False: it is not closed yet, and its id still means it. */
  release(entry: Entry): boolean {
    if (!entry.closed) return false;
    this.#entries[indexOf(entry.id)] = undefined;
    this.#freeIndexes.push(indexOf(entry.id));
    return true;
  }

  *all(): Iterable<Entry> {
    for (const entry of this.#entries) if (entry !== undefined) yield entry;
  }
}
