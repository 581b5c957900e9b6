// Hot path: every record to a sandbox and every verdict from one (test/bench/sandbox.ts).
import type { HeadGuard } from "./head-guard.ts";
import {
  GENERATION_MAX,
  type HookMask,
  makeToken,
  RECORD,
  RECORD_BLOCK_MAX,
  SLOT_MAX,
  slotOf,
} from "./sandbox/layout.ts";

/** What the ring lends to parked streams. */
export interface ParkPorts {
  /** The worker's memory: the same object that lent chunks and heads lie in. */
  readonly memory: Uint8Array;
  readonly words: Int32Array;
  /** Offset of room (a multiple of 8) that stays as it is until core has run this crossing's commands; -1: none for now. */
  reserve(size: number): number;
  /** A record lies at [at, at + size). */
  park(box: number, token: number, at: number, size: number): void;
  /** The stream behind this token (of lane 0) is over. */
  forget(box: number, token: number): void;
  /** `ParkTable.turn` is to be called in another crossing: there was no room. */
  again(): void;
  /** A sandbox answered what it must not: its stream has been failed. */
  malformed(box: number, reason: string): void;
}

/** A use of a sandboxed package. */
export interface ParkedUse {
  readonly box: number;
  readonly use: number;
  /** What its filters may have and read. */
  hooks: HookMask;
  /** What the package's source names: for streams whose route has a config of its own. */
  readonly named?: HookMask;
  /** What of heads may be seen and changed. Absent: all. */
  readonly guard?: HeadGuard | undefined;
  /** It may not replace bodies. */
  readonly keepsBodies?: boolean;
  /** Where a hook of it throws, the stream goes on without it. */
  readonly failsOpen?: boolean;
}

/** A filter whose other half lives in a sandbox. */
export interface Parked {
  /** `at`: the answer in the worker's memory. `status`: 0, or core's own answer (STATUS). */
  onVerdict(lane: number, at: number, size: number, status: number): void;
  /** There may be room now. False: still none. */
  retry(): boolean;
}

/** The parked streams of a worker by their tokens. */
export class ParkTable {
  readonly ports: ParkPorts;
  readonly #parked: (Parked | undefined)[] = [];
  readonly #generations: number[] = [];
  readonly #free: number[] = [];
  #waiting: Parked[] = [];
  #at = 0;

  constructor(ports: ParkPorts) {
    this.ports = ports;
  }

  /** A token for a filter that is about to send its first record; 0: there are too many. */
  acquire(parked: Parked): number {
    let slot = this.#free.pop();
    if (slot === undefined) {
      slot = this.#parked.length;
      if (slot === SLOT_MAX) return 0;
      this.#generations[slot] = 0;
    }
    // Generation 0 is left out, so that no token is 0.
    const generation = (this.#generations[slot]! % (GENERATION_MAX - 1)) + 1;
    this.#generations[slot] = generation;
    this.#parked[slot] = parked;
    return makeToken(slot, generation);
  }

  release(box: number, token: number): void {
    const slot = slotOf(token);
    this.#parked[slot] = undefined;
    this.#free.push(slot);
    this.ports.forget(box, token);
  }

  /** Called by the event loop. A negative size is a status of core's own. */
  onVerdict(token: number, at: number, size: number): void {
    const slot = slotOf(token);
    const parked = this.#parked[slot];
    if (parked === undefined || makeToken(slot, this.#generations[slot]!) !== (token & ~1)) return;
    if (size < 0) parked.onVerdict(token & 1, 0, 0, -size);
    else parked.onVerdict(token & 1, at, size, 0);
  }

  /** Someone found no room: it is asked again in a later crossing. */
  wait(parked: Parked): void {
    if (this.#waiting.length === 0) this.ports.again();
    this.#waiting.push(parked);
  }

  get wantsTurn(): boolean {
    return this.#waiting.length > 0;
  }

  turn(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0) return;
    this.#waiting = [];
    for (let k = 0; k < waiting.length; k++) {
      if (!waiting[k]!.retry()) {
        this.#waiting.push(...waiting.slice(k));
        this.ports.again();
        return;
      }
    }
  }

  /** Begins a record of `size` bytes in all (a multiple of 8); the word it begins at, or -1. Nothing else before `send`. */
  begin(size: number, kind: number, flags: number, token: number, use: number): number {
    if (size > RECORD_BLOCK_MAX) return -1;
    const at = this.ports.reserve(size);
    if (at < 0) return -1;
    this.#at = at;
    const w = at >> 2;
    const { words } = this.ports;
    words[w] = kind | (flags << 8);
    words[w + RECORD.TOKEN] = token;
    words[w + RECORD.USE] = use;
    words[w + RECORD.RANGE_AT] = 0;
    words[w + RECORD.RANGE_SIZE] = 0;
    words[w + RECORD.ARGUMENT] = 0;
    return w;
  }

  send(box: number, token: number, size: number): void {
    this.ports.park(box, token, this.#at, size);
  }
}

/** Bytes of a record with `payload` bytes behind its head and a tail of `range` bytes. */
export const recordSize = (payload: number, range: number): number =>
  ((RECORD.PAYLOAD * 4 + payload + 7) & ~7) + ((range + 7) & ~7);
