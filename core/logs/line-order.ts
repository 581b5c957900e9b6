/** If more chars than this wait, they are written without waiting for the other threads. */
const HELD_MAX = 1024 * 1024;

interface Piece {
  readonly time: number;
  readonly text: string;
}

/**
 * Writes the log lines of all threads into their files in the order in which they were logged, as if there were one thread
 * (Envoy's workers share a file's buffer). When a line arrives, all threads are asked for theirs, and nothing is written before
 * they have answered.
 */
export class LineOrder {
  readonly #append: (path: string, text: string) => void;
  /** Asks all threads for their lines. Settles when these have been added. */
  readonly #gather: () => Promise<void>;
  readonly #held = new Map<string, Piece[]>();
  #size = 0;
  #gathering: Promise<void> | undefined = undefined;

  constructor(append: (path: string, text: string) => void, gather: () => Promise<void>) {
    this.#append = append;
    this.#gather = gather;
  }

  /**
   * Adds lines of one thread. `marks`: when they were logged, as a flat list [`steadyNow`'s ms, index of the first char, …]. An
   * empty text only creates the file.
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

  /** Settles when all lines that any thread has logged before the call have been handed to the files. */
  async flush(): Promise<void> {
    await this.#gather();
    this.#write();
  }

  #write(): void {
    for (const [path, pieces] of this.#held) {
      // The sort is stable, so lines of one thread keep their order.
      pieces.sort((a, b) => a.time - b.time);
      this.#append(path, pieces.map((piece) => piece.text).join(""));
    }
    this.#held.clear();
    this.#size = 0;
  }
}
