// Hot path: every read of a TCP proxy (test/bench/cpu.ts tcp).
import { indexOf, RELAYED, WORD } from "../inside/ring.ts";
import type { Crossing } from "./crossing.ts";
import type { Entry } from "./socket-table.ts";
import { type StreamHandle, type WriteRequest, writeBuffer } from "./stream-handle.ts";

/** What Relays asks of the worker's sockets. */
export interface RelayOwner {
  /** A write has failed with the error of this name. */
  onFailed(entry: Entry, error: string): void;
  /** The kernel has not taken all of a write yet: `letGo` is called once it has. */
  onUnwritten(entry: Entry, handle: StreamHandle, request: WriteRequest, letGo: () => void): void;
  /** Whether this connection may read has to be judged anew. */
  turn(entry: Entry): void;
}

/**
 * Pairs of connections whose bytes need not be seen by the isolate (COMMAND.RELAY): what one reads is written to the other at once.
 * The isolate hears of ends, errors and back-pressure, as of any connection, and finds in shared memory how much has passed.
 */
export class Relays {
  readonly #crossing: Crossing;
  readonly #cells: Float64Array;
  readonly #landingAt: number;
  readonly #owner: RelayOwner;
  /** Bytes from the landing area are written from here: those that the kernel does not take must stay as they are. */
  #copies = new Uint8Array(0);
  /** Writes that are under way use what lies before this. */
  #copyAt = 0;
  /** The latest copy. Most pieces of a stream have one size, and the next one may be a view of the same bytes. */
  #copy = new Uint8Array(0);

  constructor(crossing: Crossing, owner: RelayOwner) {
    this.#crossing = crossing;
    this.#owner = owner;
    this.#cells = new Float64Array(crossing.ring, crossing.control[WORD.RELAYED]!);
    this.#landingAt = crossing.control[WORD.LANDING]!;
  }

  /** Ties two connections together, or no longer. False: they cannot be. */
  tie(one: Entry, other: Entry | undefined, on: boolean): boolean {
    if (!on) {
      this.untie(one);
      return true;
    }
    if (other === undefined || other === one || !mayBeTied(one) || !mayBeTied(other)) return false;
    this.untie(one);
    this.untie(other);
    one.relayTo = other;
    other.relayTo = one;
    this.#owner.turn(one);
    this.#owner.turn(other);
    return true;
  }

  untie(one: Entry): void {
    const other = one.relayTo;
    if (other === undefined) return;
    one.relayTo = other.relayTo = undefined;
    this.#owner.turn(one);
    this.#owner.turn(other);
  }

  /** Passes on `n` bytes that `entry` has just read. False: they are for the isolate. */
  pass(entry: Entry, n: number): boolean {
    const to = entry.relayTo;
    if (to === undefined) return false;
    const handle = to.plain;
    // The isolate has not written to it yet, or has ended it, or its close is about to be told.
    if (handle === undefined || to.socket!.destroyed) return false;
    const cells = this.#cells;
    const at = indexOf(entry.id) * RELAYED.CELLS;
    cells[at + RELAYED.BYTES]! += n;
    cells[at + RELAYED.SIZE] = n;
    cells[at + RELAYED.AT] = performance.now();
    if (entry.slot >= 0) this.#writeSlot(entry.slot, to, handle, n);
    else this.#writeLanded(to, handle, n);
    return true;
  }

  #writeSlot(slot: number, to: Entry, handle: StreamHandle, n: number): void {
    const { slots, ring } = this.#crossing;
    const request = writeBuffer(handle, new Uint8Array(ring, slots.base + slot * slots.size, n));
    if (request === undefined) return;
    if (typeof request === "string") {
      this.#owner.onFailed(to, request);
      return;
    }
    slots.hold(slot);
    this.#owner.onUnwritten(to, handle, request, () => slots.drop(slot));
  }

  #writeLanded(to: Entry, handle: StreamHandle, n: number): void {
    const request = writeBuffer(handle, this.#takeCopy(n));
    if (request === undefined) return;
    if (typeof request === "string") {
      this.#owner.onFailed(to, request);
      return;
    }
    this.#copyAt += n;
    this.#copy = NOTHING;
    this.#owner.onUnwritten(to, handle, request, () => {});
  }

  #takeCopy(n: number): Uint8Array {
    const { memory, slots } = this.#crossing;
    if (this.#copyAt + n > this.#copies.length) {
      this.#copies = new Uint8Array(slots.size);
      this.#copyAt = 0;
      this.#copy = NOTHING;
    }
    memory.copy(this.#copies, this.#copyAt, this.#landingAt, this.#landingAt + n);
    if (this.#copy.length !== n) this.#copy = new Uint8Array(this.#copies.buffer, this.#copyAt, n);
    return this.#copy;
  }
}

const NOTHING = new Uint8Array(0);

/** Plain connections that are established. */
function mayBeTied(entry: Entry): boolean {
  return (
    entry.socket !== undefined && !entry.closed && !entry.connecting && entry.raw === undefined
  );
}
