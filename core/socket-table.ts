// Hot path: every command finds its connection here.
import type dgram from "node:dgram";
import type net from "node:net";
import { indexOf } from "./inside/ring.ts";
import type { SecureWrites } from "./secure-writes.ts";
import type { StreamHandle } from "./stream-handle.ts";

export type RawSocket = net.Socket & { _handle: StreamHandle | null };

/** A connection of a worker, or a UDP socket. */
export class Entry {
  readonly id: number;
  socket: RawSocket | undefined = undefined;
  slot = -1;
  /** Has read since the last sweep. */
  active = false;
  paused = false;
  blocked = false;
  /** Where writes go while the connection takes them as they are: no TLS, no end yet. */
  plain: StreamHandle | undefined = undefined;
  /** Writes that the kernel has not taken to the end. */
  writing = 0;
  offered = false;
  closed = false;
  connecting = false;
  /** We have closed it. */
  local = false;
  /** TLS is under way: nobody stops that. */
  handshakes = false;
  /** Where writes go once TLS is there. */
  secure: SecureWrites | undefined = undefined;
  /** The TCP socket below, where `socket` is TLS. */
  raw: RawSocket | undefined = undefined;
  udp: dgram.Socket | undefined = undefined;
  /** Index in SOCKET_ERRORS of what became of it. */
  error = 0;
  /** Decrypted bytes that came in the middle of a flush. */
  late: Buffer[] | undefined = undefined;

  constructor(id: number) {
    this.id = id;
  }
}

/** Ids have 16 bits of index. */
const INDEX_MAX = 0xffff;

/** The connections of a worker by their ids. An index is issued again only after the isolate's release, and then makes another id. */
export class SocketTable {
  readonly #entries: (Entry | undefined)[] = [];
  readonly #generations: number[] = [];
  readonly #freeIndexes: number[] = [];

  issue(): Entry {
    const index = this.#freeIndexes.length > 0 ? this.#freeIndexes.pop()! : this.#entries.length;
    if (index > INDEX_MAX) throw new Error("more than 65,536 connections on one worker");
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
