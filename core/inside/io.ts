// Hot path: every event and every write pass here.
import { copyBytes, type Output } from "@tsproxy/sdk";
import { COMMAND, WORD } from "./ring.ts";

/** A range below this size is copied beside what goes to the same peer just before it, so that one write does for both. */
const COPY_BELOW = 2048;
/** A crossing ends early once the output segment has less room than this left, or the command ring fewer places. */
const OUTPUT_RESERVE = 96 * 1024;
const COMMAND_RESERVE = 7;

/** The isolate's hands on the ring: commands out, and the output segment that they name. */
export class Io {
  readonly memory: Uint8Array;
  readonly control: Int32Array;
  readonly #clock: Float64Array;
  readonly #commands: number;
  readonly #commandMax: number;
  readonly #ids: number;
  readonly #idMax: number;
  readonly #segments: number;
  #commandCount = 0;
  #idsTaken = 0;
  #outStart = 0;
  #outEnd = 0;
  #outAt = 0;
  /** Commands that found the ring full; they go first next time. Flat, four a command. */
  readonly #waiting: number[] = [];
  readonly #output: Output;
  #outputStart = 0;
  /** Inside `run`. Promises settle after it has returned, and setups run outside it: what they ask for waits for the next. */
  #active = false;

  constructor(shared: SharedArrayBuffer) {
    this.memory = new Uint8Array(shared);
    this.control = new Int32Array(shared);
    this.#clock = new Float64Array(shared, WORD.NOW * 4, 1);
    const word = (index: number): number => this.control[index]!;
    this.#commands = word(WORD.COMMANDS) >> 2;
    this.#commandMax = word(WORD.COMMAND_COUNT);
    this.#ids = word(WORD.IDS) >> 2;
    this.#idMax = word(WORD.ID_COUNT);
    this.#segments = word(WORD.SEGMENTS);
    this.#output = { memory: this.memory, at: 0 };
  }

  get now(): number {
    return this.#clock[0]!;
  }

  /** A crossing begins. */
  begin(): void {
    this.#active = true;
    this.#commandCount = 0;
    this.#idsTaken = 0;
    this.#outStart = this.#outAt = this.control[WORD.OUT_START]!;
    this.#outEnd = this.control[WORD.OUT_END]!;
    const waiting = this.#waiting;
    if (waiting.length > 0) {
      const n = Math.min(waiting.length, this.#commandMax * 4);
      for (let k = 0; k < n; k++) this.control[this.#commands + k] = waiting[k]!;
      this.#commandCount = n / 4;
      waiting.splice(0, n);
    }
  }

  /** The crossing ends. */
  end(): void {
    this.#active = false;
  }

  get inCrossing(): boolean {
    return this.#active;
  }

  /** Outside a crossing: asks core for one. */
  touch(): void {
    if (!this.#active) this.control[WORD.AGAIN] = 1;
  }

  /** True while another event's answer surely fits. */
  get hasRoom(): boolean {
    return (
      this.#outEnd - this.#outAt >= OUTPUT_RESERVE &&
      this.#commandCount <= this.#commandMax - COMMAND_RESERVE &&
      this.#idsTaken <= this.#idMax - 2
    );
  }

  get commandCount(): number {
    return this.#commandCount;
  }

  /** Commands are left over for the next crossing. */
  get overflowed(): boolean {
    return this.#waiting.length > 0;
  }

  command(op: number, id: number, a: number, b: number): void {
    if (!this.#active || this.#commandCount === this.#commandMax || this.#waiting.length > 0) {
      this.#waiting.push(op, id, a, b);
      this.touch();
      return;
    }
    const i = this.#commands + this.#commandCount++ * 4;
    const control = this.control;
    control[i] = op;
    control[i + 1] = id;
    control[i + 2] = a;
    control[i + 3] = b;
  }

  /** An id that core has offered for an outgoing connection, or -1 if none is left in this crossing. */
  takeId(): number {
    if (!this.#active || this.#idsTaken === this.#idMax) return -1;
    return this.control[this.#ids + this.#idsTaken++]!;
  }

  /** True if a write command may name these bytes where they lie, so that they need no copy. */
  isLent(memory: Uint8Array, at: number): boolean {
    return memory === this.memory && at >= this.#segments;
  }

  /** Ranges in the output segment may only be named while the ring has place: left-over commands outlive the segment. */
  canCopy(size: number): boolean {
    return (
      this.#active &&
      size <= this.#outEnd - this.#outAt &&
      this.#commandCount < this.#commandMax &&
      this.#waiting.length === 0
    );
  }

  canForward(id: number, memory: Uint8Array, at: number, size: number): boolean {
    return (
      this.#active &&
      this.isLent(memory, at) &&
      (size >= COPY_BELOW || !this.#hasWritten(id)) &&
      this.#commandCount < this.#commandMax &&
      this.#waiting.length === 0
    );
  }

  /** The latest command is a write to that connection out of the output segment: more can join it. */
  #hasWritten(id: number): boolean {
    if (this.#commandCount === 0) return false;
    const i = this.#commands + (this.#commandCount - 1) * 4;
    return (
      this.control[i] === COMMAND.WRITE &&
      this.control[i + 1] === id &&
      this.control[i + 2]! >= this.#outStart &&
      this.control[i + 2]! < this.#outEnd
    );
  }

  /** Writes bytes where they lie. Only after `canForward`. */
  forward(id: number, at: number, size: number): void {
    this.command(COMMAND.WRITE, id, at, size);
  }

  /** Copies into the output segment and writes. Only after `canCopy`. */
  copyOut(id: number, memory: Uint8Array, at: number, end: number): void {
    const to = this.place(memory, at, end);
    this.#write(id, to, end - at);
  }

  /** Copies into the output segment; its offset there. Only after `canCopy`. */
  place(memory: Uint8Array, at: number, end: number): number {
    const to = this.#outAt;
    const size = end - at;
    copyBytes(this.memory, to, memory, at, size);
    this.#outAt += size;
    return to;
  }

  /** ASCII text into the output segment; its offset. Only after `canCopy`. */
  placeText(text: string): number {
    const to = this.#outAt;
    for (let k = 0; k < text.length; k++) this.memory[to + k] = text.charCodeAt(k);
    this.#outAt += text.length;
    return to;
  }

  /** Room for a record, at a multiple of 8, whose command must follow in the same crossing; -1: none. */
  reserveBlock(size: number): number {
    const at = (this.#outAt + 7) & ~7;
    if (!this.canCopy(at - this.#outAt + size)) return -1;
    this.#outAt = at + size;
    return at;
  }

  /** The output segment as an Output. Only after `canCopy`, which knows its size. */
  reserve(_size: number): Output {
    this.#output.at = this.#outputStart = this.#outAt;
    return this.#output;
  }

  isOutput(output: Output): boolean {
    return output === this.#output;
  }

  commit(id: number): number {
    const size = this.#output.at - this.#outputStart;
    this.#outAt = this.#output.at;
    if (size > 0) this.#write(id, this.#outputStart, size);
    return size;
  }

  #write(id: number, at: number, size: number): void {
    if (this.#commandCount > 0) {
      const i = this.#commands + (this.#commandCount - 1) * 4;
      const control = this.control;
      // Neighbours in the output segment become one write; never across a border of segments.
      if (
        control[i] === COMMAND.WRITE &&
        control[i + 1] === id &&
        control[i + 2]! >= this.#outStart &&
        control[i + 2]! + control[i + 3]! === at
      ) {
        control[i + 3] = control[i + 3]! + size;
        return;
      }
    }
    this.command(COMMAND.WRITE, id, at, size);
  }
}
