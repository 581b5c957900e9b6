/** Chars that wait at most. Whoever logs that much flushes by size, and is not waited for. */
const HELD_MAX = 1024 * 1024;

interface Piece {
  readonly time: number;
  readonly text: string;
}

/**
 * Lines of all threads on their way into files, put in the order in which they were written, as if there were one thread
 * (Envoy's workers share a file's buffer). With the first of them all threads are asked for theirs, and none is written before
 * they have answered.
 */
export class LineOrder {
  readonly #append: (path: string, text: string) => void;
  /** Settles when what waits in any thread has been added. */
  readonly #gather: () => Promise<void>;
  readonly #held = new Map<string, Piece[]>();
  #size = 0;
  #gathering: Promise<void> | undefined = undefined;

  constructor(append: (path: string, text: string) => void, gather: () => Promise<void>) {
    this.#append = append;
    this.#gather = gather;
  }

  /**
   * `marks`: when the text from some char on was written, as a flat list [`steadyNow`'s ms, first char, …]. An empty text only
   * makes the file.
   */
  add(path: string, text: string, marks: readonly number[]): void {
    if (text === "") {
      this.#append(path, text);
      return;
    }
    const held = this.#held.get(path) ?? [];
    this.#held.set(path, held);
    for (let k = 0; k < marks.length; k += 2)
      held.push({ time: marks[k]!, text: text.slice(marks[k + 1], marks[k + 3]) });
    this.#size += text.length;
    if (this.#size > HELD_MAX) this.#write();
    else
      this.#gathering ??= this.flush().finally(() => {
        this.#gathering = undefined;
      });
  }

  /** Settles when all lines that were written in any thread before are with the files. */
  async flush(): Promise<void> {
    await this.#gather();
    this.#write();
  }

  #write(): void {
    for (const [path, pieces] of this.#held) {
      // Stable: lines of one thread keep their order.
      pieces.sort((a, b) => a.time - b.time);
      this.#append(path, pieces.map((piece) => piece.text).join(""));
    }
    this.#held.clear();
    this.#size = 0;
  }
}
