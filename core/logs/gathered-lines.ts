// Hot path: access logs (test/bench/cpu.ts production).
import type { FromWorker } from "../protocol.ts";
import { steadyNow } from "../steady-clock.ts";
import { LineBuffers, lent } from "./line-buffer.ts";

type Lines = Extract<FromWorker, { type: "lines" }>;

const encoder = new TextEncoder();

/** A text for a file, all of it of now; an empty one creates the file. */
export function linesOfNow(path: string, text: string): Lines {
  return { type: "lines", path, bytes: encoder.encode(text), marks: [steadyNow(), 0] };
}

interface Gathered {
  readonly buffer: Buffer;
  used: number;
  readonly marks: number[];
}

/** So many pieces are sent although main has not asked for more: well within the thread's memory for lines. */
const READY_MOST = 16;

/**
 * Lines of one thread for files, as bytes in memory that is used again: strings, and buffers that are handed on, keep V8 collecting
 * the old generation of each thread that they pass (7 µs a request, were it only main's). A piece is ready when it is flushed, or
 * when the next lines do not fit. The first one goes to main at once, which then asks all threads for theirs (LineOrder); those that
 * get ready until then wait: each message wakes main.
 */
export class GatheredLines {
  readonly #post: (message: Lines) => void;
  readonly #files = new Map<string, Gathered>();
  readonly #buffers: LineBuffers;
  readonly #ready: Lines[] = [];
  /** Main has got lines since it asked last, and will ask again. */
  #told = false;

  /** `memory`: of this thread (lineMemory). */
  constructor(post: (message: Lines) => void, memory: SharedArrayBuffer) {
    this.#post = post;
    this.#buffers = new LineBuffers(memory);
  }

  /** Copies lines. `marks`: as of `lines` (FromWorker). */
  add(path: string, lines: Uint8Array, marks: readonly number[]): void {
    const file = this.#roomFor(path, lines.length);
    const from = file.used;
    file.buffer.set(lines, from);
    file.used += lines.length;
    for (let k = 0; k < marks.length; k += 2) file.marks.push(marks[k]!, from + marks[k + 1]!);
  }

  /** The gathered lines of a file, with room for `size` bytes more. */
  #roomFor(path: string, size: number): Gathered {
    const known = this.#files.get(path);
    if (known !== undefined && known.used + size <= known.buffer.length) return known;
    this.flush(path);
    const file = { buffer: this.#buffers.take(size), used: 0, marks: [] };
    this.#files.set(path, file);
    return file;
  }

  /** What has gathered for the file is ready. */
  flush(path: string): void {
    this.#finish(path);
    if (this.#ready.length === 0 || (this.#told && this.#ready.length < READY_MOST)) return;
    this.#told = true;
    this.#send();
  }

  /** Main asks: sends all. */
  flushAll(): void {
    for (const path of [...this.#files.keys()]) this.#finish(path);
    this.#send();
    this.#told = false;
  }

  #finish(path: string): void {
    const file = this.#files.get(path);
    if (file === undefined) return;
    this.#files.delete(path);
    const { buffer, used, marks } = file;
    this.#ready.push({ type: "lines", path, bytes: lent(buffer, used), marks });
  }

  #send(): void {
    for (const lines of this.#ready.splice(0)) this.#post(lines);
  }
}
