// Hot path: every crossing and every write.
import { copyBytes, type Output } from "@tsproxy/sdk";
import { COMMAND, WORD } from "./ring.ts";

/** Smaller ranges are copied behind the previous write to the same connection, if there is one, so that both become one write. */
const COPY_BELOW = 2048;
/** A crossing ends early when the output segment has less room than this left, or the command ring fewer free entries. */
const OUTPUT_RESERVE = 96 * 1024;
const COMMAND_RESERVE = 7;

/** The isolate's side of the ring (ring.ts): writes commands, and bytes into the output segment. */
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
  /** Commands for the next crossing: the ring was full, or there was no crossing. Flat, four words a command. */
  readonly #waiting: number[] = [];
  readonly #output: Output;
  #outputStart = 0;
  /** A crossing is under way. Promises may settle after it and setups run outside one: their commands wait for the next. */
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

  /** Monotonic milliseconds, as core wrote them for this crossing. */
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

  /** Tells the watchdog that this crossing makes progress. */
  beat(): void {
    this.control[WORD.BEAT]! += 2;
  }

  /** Asks core for a crossing, unless one is under way. */
  touch(): void {
    if (!this.#active) this.control[WORD.AGAIN] = 1;
  }

  /** True while all commands and bytes that one more event can cause fit. */
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

  /** Commands wait for the next crossing. */
  get overflowed(): boolean {
    return this.#waiting.length > 0;
  }

  /** Adds a command; op is one of COMMAND, the meaning of `a` and `b` is told there. */
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

  /** An id that core has offered for an outgoing connection; -1: none is left in this crossing. */
  takeId(): number {
    if (!this.#active || this.#idsTaken === this.#idMax) return -1;
    return this.control[this.#ids + this.#idsTaken++]!;
  }

  /** True if a write command may name these bytes where they lie, without a copy. */
  isLent(memory: Uint8Array, at: number): boolean {
    return memory === this.memory && at >= this.#segments;
  }

  /** Room for `size` bytes and a command. Commands that wait must not name the output segment, since it may be another one then. */
  canCopy(size: number): boolean {
    return (
      this.#active &&
      size <= this.#outEnd - this.#outAt &&
      this.#commandCount < this.#commandMax &&
      this.#waiting.length === 0
    );
  }

  /** Whether these bytes can be written where they lie, and are not better copied. */
  canForward(id: number, memory: Uint8Array, at: number, size: number): boolean {
    return (
      this.#active &&
      this.isLent(memory, at) &&
      (size >= COPY_BELOW || !this.#hasWritten(id)) &&
      this.#commandCount < this.#commandMax &&
      this.#waiting.length === 0
    );
  }

  /** The latest command writes to that connection from the output segment, so more bytes can join it. */
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

  /** Copies into the output segment; answers the offset there. Only after `canCopy`. */
  place(memory: Uint8Array, at: number, end: number): number {
    const to = this.#outAt;
    const size = end - at;
    copyBytes(this.memory, to, memory, at, size);
    this.#outAt += size;
    return to;
  }

  /** Writes ASCII text into the output segment; answers its offset. Only after `canCopy`. */
  placeText(text: string): number {
    const to = this.#outAt;
    for (let k = 0; k < text.length; k++) this.memory[to + k] = text.charCodeAt(k);
    this.#outAt += text.length;
    return to;
  }

  /** Reserves memory for a record, whose command must follow in this crossing. Answers the offset, a multiple of 8; -1: no room. */
  reserveBlock(size: number): number {
    const at = (this.#outAt + 7) & ~7;
    if (!this.canCopy(at - this.#outAt + size)) return -1;
    this.#outAt = at + size;
    return at;
  }

  /** The free part of the output segment as an Output, to be followed by `commit`. Only after `canCopy` with this size. */
  reserve(_size: number): Output {
    this.#output.at = this.#outputStart = this.#outAt;
    return this.#output;
  }

  isOutput(output: Output): boolean {
    return output === this.#output;
  }

  /** Writes what was put into the Output of `reserve`. Answers its size. */
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
      // Adjacent bytes of the output segment become one write. The previous command may name another segment.
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
