import { setTimeout as sleep } from "node:timers/promises";
import { giveBack } from "./line-buffer.ts";

/** If more bytes than this wait, they are written without waiting for the other threads. */
const HELD_MAX = 2 * 1024 * 1024;
/** Least milliseconds between two times at which all threads are woken for their lines, unless all are wanted at once. */
const GATHER_MS = 100;

/** Of lines that came together, those that were logged at one time. */
interface Piece {
  readonly time: number;
  readonly lines: Uint8Array;
  readonly from: number;
  readonly to: number;
}

/** Appends to a file, and calls `onDone` when the bytes are written, or are lost. */
type Append = (path: string, bytes: Uint8Array, onDone: () => void) => void;

/**
 * Writes the log lines of all threads into their files in the order in which they were logged, as if there were one thread
 * (Envoy's workers share a file's buffer). When a line arrives, all threads are asked for theirs, and nothing is written before
 * they have answered.
 */
export class LineOrder {
  readonly #append: Append;
  /** Asks all threads for their lines. Settles when these have been added. */
  readonly #gather: () => Promise<void>;
  readonly #held = new Map<string, Piece[]>();
  #size = 0;
  #isGathering = false;
  /** Lines have come since threads were asked: they may have more. */
  #more = false;
  #gatheredAt = Number.NEGATIVE_INFINITY;

  constructor(append: Append, gather: () => Promise<void>) {
    this.#append = append;
    this.#gather = gather;
  }

  /**
   * Adds lines of one thread, which gets their memory back (LineBuffers). `marks`: when they were logged, as a flat list
   * [`steadyNow`'s ms, index of the first byte, …]. No bytes only create the file.
   */
  add(path: string, bytes: Uint8Array, marks: readonly number[]): void {
    if (bytes.length === 0) {
      this.#append(path, bytes, () => {});
      return;
    }
    const held = this.#held.get(path) ?? [];
    this.#held.set(path, held);
    for (let k = 0; k < marks.length; k += 2) {
      const [time, from, to = bytes.length] = [marks[k]!, marks[k + 1]!, marks[k + 3]];
      held.push({ time, lines: bytes, from, to });
    }
    this.#size += bytes.length;
    if (this.#size > HELD_MAX) this.#write();
    this.#more = true;
    if (!this.#isGathering) void this.#gatherAll();
  }

  /** A thread that has told of lines keeps further ones until it is asked (GatheredLines). */
  async #gatherAll(): Promise<void> {
    this.#isGathering = true;
    while (this.#more) {
      const waitMs = this.#gatheredAt + GATHER_MS - performance.now();
      if (waitMs > 0) await sleep(waitMs);
      this.#more = false;
      await this.flush();
    }
    this.#isGathering = false;
  }

  /** Settles when all lines that any thread has logged before the call have been handed to the files. */
  async flush(): Promise<void> {
    this.#gatheredAt = performance.now();
    await this.#gather();
    this.#write();
  }

  #write(): void {
    const held = [...this.#held];
    this.#held.clear();
    this.#size = 0;
    for (const [path, pieces] of held) {
      // The sort is stable, so lines of one thread keep their order.
      pieces.sort((a, b) => a.time - b.time);
      for (const [bytes, onDone] of joined(pieces)) this.#append(path, bytes, onDone);
    }
  }
}

/** Bytes to append one after the other, each with what to call once they are written. */
function joined(pieces: readonly Piece[]): (readonly [Uint8Array, () => void])[] {
  const all = new Set(pieces.map(({ lines }) => lines));
  const changes = pieces.filter(({ lines }, k) => lines !== pieces[k - 1]?.lines).length;
  // Each as it came, as with one thread: copies are garbage that V8 lets lie (3 MiB after 10 s of load).
  if (changes === all.size) return [...all].map((lines) => [lines, () => giveBack(lines)]);
  const bytes = Buffer.concat(pieces.map(({ lines, from, to }) => lines.subarray(from, to)));
  for (const lines of all) giveBack(lines);
  return [[bytes, () => {}]];
}
