// Hot path: every record is copied here (test/bench/sandbox.ts).
import { BOX, GATE, RECORD, RECORD_WORDS } from "../inside/sandbox/layout.ts";

/** Most bytes of records that may wait for a later crossing; beyond that, streams are answered with an overload. */
const BACKLOG_BYTES_MAX = 16 * 1024 * 1024;
/** Most records that may wait: ten thousand calls of a sandbox may be answered at once, with three records each. */
const BACKLOG_MAX = 65_536;

interface Waiting {
  readonly token: number;
  /** Undefined: the end of a stream. */
  readonly block: Buffer | undefined;
  readonly rangeAt: number;
  readonly rangeSize: number;
}

/** Records on their way into one sandbox: copied into its block, or kept in a backlog while that is full or in use. */
export class Inbox {
  readonly #words: Int32Array;
  readonly #bytes: Buffer;
  /** The gate writes records into the same block, and counts them in the same words. */
  readonly #gate: Int32Array;
  #backlog: Waiting[] = [];
  #backlogBytes = 0;
  /** The sandbox is running on another thread and owns the block. */
  locked = false;

  constructor(words: Int32Array, bytes: Buffer, gate: Int32Array) {
    this.#words = words;
    this.#bytes = bytes;
    this.#gate = gate;
  }

  /** Number of records in the block. */
  get count(): number {
    return this.#gate[GATE.COUNT]!;
  }
  /** Bytes of records in the block. */
  get used(): number {
    return this.#gate[GATE.USED]! + this.count * RECORD_WORDS * 4;
  }
  get backlog(): number {
    return this.#backlog.length;
  }

  /** Adds a small record that must not get lost: if need be it waits in the backlog, whatever its limit. */
  mustAdd(block: Buffer): void {
    if (!this.add(0, block, 0, block.length, 0, 0))
      this.#backlog.push({ token: 0, block, rangeAt: 0, rangeSize: 0 });
  }

  /**
   * Adds a record of `size` bytes at `at`. Its range (of bytes) lies elsewhere in the same memory, or at the record's tail if its offset
   * is 0. False: block and backlog are full.
   */
  add(
    token: number,
    memory: Buffer,
    at: number,
    size: number,
    rangeAt: number,
    rangeSize: number,
  ): boolean {
    if (
      !this.locked &&
      this.#backlog.length === 0 &&
      this.#copy(memory, at, size, rangeAt, rangeSize)
    )
      return true;
    const block = Buffer.from(memory.subarray(at, at + size));
    const whole =
      rangeAt === 0 ? block : Buffer.concat([block, memory.subarray(rangeAt, rangeAt + rangeSize)]);
    return this.#keep({ token, block: whole, rangeAt: rangeAt === 0 ? 0 : size, rangeSize });
  }

  end(token: number): boolean {
    if (!this.locked && this.#backlog.length === 0 && this.count < BOX.RECORD_COUNT) {
      this.#putEnd(token);
      return true;
    }
    return this.#keep({ token, block: undefined, rangeAt: 0, rangeSize: 0 });
  }

  #keep(waiting: Waiting): boolean {
    const size = waiting.block?.length ?? 0;
    // The end of a stream must not get lost, so it has no limit.
    if (
      size > 0 &&
      (this.#backlog.length >= BACKLOG_MAX || this.#backlogBytes + size > BACKLOG_BYTES_MAX)
    )
      return false;
    this.#backlog.push(waiting);
    this.#backlogBytes += size;
    return true;
  }

  #putEnd(token: number): void {
    const i = (BOX.RECORDS >> 2) + this.#gate[GATE.COUNT]!++ * RECORD_WORDS;
    this.#words[i] = -1;
    this.#words[i + 1] = token;
  }

  #copy(memory: Buffer, at: number, size: number, rangeAt: number, rangeSize: number): boolean {
    const inPlace = rangeAt !== 0;
    const whole = size + (inPlace ? (rangeSize + 7) & ~7 : 0);
    const gate = this.#gate;
    const used = gate[GATE.USED]!;
    if (this.count === BOX.RECORD_COUNT || used + whole > BOX.HEAP_SIZE) return false;
    const words = this.#words;
    const to = BOX.HEAP + used;
    const i = (BOX.RECORDS >> 2) + gate[GATE.COUNT]!++ * RECORD_WORDS;
    memory.copy(this.#bytes, to, at, at + size);
    words[i] = to;
    words[i + 1] = size;
    words[i + 3] = rangeSize;
    if (inPlace) {
      words[i + 2] = to + size;
      if (rangeSize > 0) memory.copy(this.#bytes, to + size, rangeAt, rangeAt + rangeSize);
    } else words[i + 2] = to + size - ((rangeSize + 7) & ~7);
    gate[GATE.USED] = used + whole;
    return true;
  }

  /** Moves records from the backlog into the block while there is room. */
  fill(): void {
    let taken = 0;
    for (const { token, block, rangeAt, rangeSize } of this.#backlog) {
      if (block === undefined) {
        if (this.count === BOX.RECORD_COUNT) break;
        this.#putEnd(token);
      } else {
        const size = rangeAt === 0 ? block.length : rangeAt;
        if (!this.#copy(block, 0, size, rangeAt, rangeSize)) break;
        this.#backlogBytes -= block.length;
      }
      taken++;
    }
    if (taken > 0) this.#backlog.splice(0, taken);
  }

  /** The sandbox has read the block: it is empty now. */
  clear(): void {
    this.#gate[GATE.COUNT] = this.#gate[GATE.USED] = 0;
  }
}

/** Smallest size of a record. */
export const RECORD_SIZE_MIN = RECORD.PAYLOAD * 4;
