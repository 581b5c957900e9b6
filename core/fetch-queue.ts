import type { Builtin } from "./builtin.ts";

/** How long one turn of the event loop may spend on passing fetches on. */
const TURN_MS = 5;
/** With more bytes than this waiting, a turn goes on, however long it takes, until fewer wait. */
const WAITING_BYTES_MAX = 64 * 1024 * 1024;

interface Asked {
  readonly box: number;
  /** JSON of a FetchMessage. */
  readonly text: string;
  readonly bytes: Buffer;
  /** The builtin isolate of the stream that asked. */
  readonly builtin: Builtin;
}

/**
 * Fetches of sandboxes on their way to the builtin isolate, which cannot be entered from within the crossing that asked. A slice is
 * passed on in each turn of the event loop, so that ten thousand at once do not delay traffic.
 */
export class FetchQueue {
  readonly #pass: (asked: Asked) => void;
  readonly #onPassed: () => void;
  #asked: Asked[] = [];
  #bytes = 0;

  /** `onPassed`: called after each slice. */
  constructor(pass: (asked: Asked) => void, onPassed: () => void) {
    this.#pass = pass;
    this.#onPassed = onPassed;
  }

  push(asked: Asked): void {
    if (this.#asked.length === 0) setImmediate(this.#passSlice);
    this.#asked.push(asked);
    this.#bytes += asked.text.length + asked.bytes.length;
  }

  readonly #passSlice = (): void => {
    const until = performance.now() + TURN_MS;
    const asked = this.#asked;
    let taken = 0;
    while (taken < asked.length) {
      const next = asked[taken++]!;
      this.#bytes -= next.text.length + next.bytes.length;
      this.#pass(next);
      if (performance.now() > until && this.#bytes < WAITING_BYTES_MAX) break;
    }
    this.#asked = asked.slice(taken);
    if (this.#asked.length > 0) setImmediate(this.#passSlice);
    this.#onPassed();
  };
}
