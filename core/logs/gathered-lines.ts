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

/**
 * Lines of one thread for files, as bytes in memory that is used again: strings, and buffers that are handed on, keep V8 collecting
 * the old generation of each thread that they pass (7 µs a request, were it only main's). What has gathered goes to main when it is
 * flushed, or when the next text does not fit.
 */
export class GatheredLines {
  readonly #post: (message: Lines) => void;
  readonly #files = new Map<string, Gathered>();
  readonly #buffers: LineBuffers;

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

  /** Sends what has gathered for the file. */
  flush(path: string): void {
    const file = this.#files.get(path);
    if (file === undefined) return;
    this.#files.delete(path);
    const { buffer, used, marks } = file;
    this.#post({ type: "lines", path, bytes: lent(buffer, used), marks });
  }

  flushAll(): void {
    for (const path of [...this.#files.keys()]) this.flush(path);
  }
}
