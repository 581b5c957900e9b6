/** Threads flush their lines at the same moments, up to 20 ms late; for so long others may still be on their way. */
export const LINES_WAIT_MS = 60;
/** Chars that wait at most. Whoever logs that much flushes by size, and is not waited for. */
const HELD_MAX = 1024 * 1024;

interface Piece {
  readonly time: number;
  readonly text: string;
}

/**
 * Lines of all threads on their way into files, put in the order in which they were written, as if there were one thread
 * (Envoy's workers share a file's buffer).
 */
export class LineOrder {
  readonly #append: (path: string, text: string) => void;
  readonly #held = new Map<string, Piece[]>();
  #size = 0;
  #timer: NodeJS.Timeout | undefined = undefined;

  constructor(append: (path: string, text: string) => void) {
    this.#append = append;
  }

  /**
   * `marks`: when the text from some char on was written, as a flat list [epoch ms, first char, …]. An empty text only makes
   * the file.
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
    if (this.#size > HELD_MAX) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), LINES_WAIT_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const [path, pieces] of this.#held) {
      // Stable: lines of one thread keep their order.
      pieces.sort((a, b) => a.time - b.time);
      this.#append(path, pieces.map((piece) => piece.text).join(""));
    }
    this.#held.clear();
    this.#size = 0;
  }
}
