const LAZY_MS = 20; // what nobody waits for (ends of streams) goes along with other records, or after this long
const LAZY_MAX = 128;
const MERGE_MS = 20;

/** The timers of one sandbox. */
export class Alarms {
  readonly #now: () => number;
  readonly #wake: () => void;
  readonly #merge: () => void;
  #lazy = 0;
  #lazyTimer: NodeJS.Timeout | undefined = undefined;
  #mergeTimer: NodeJS.Timeout | undefined = undefined;
  #wakeTimer: NodeJS.Timeout | undefined = undefined;
  #wakeAt = Number.POSITIVE_INFINITY;

  /** `wake`: the isolate is to be entered; `merge`: its counts are to be taken. */
  constructor(now: () => number, wake: () => void, merge: () => void) {
    this.#now = now;
    this.#wake = wake;
    this.#merge = merge;
  }

  /** Something waits that nobody waits for. */
  beLazy(): void {
    this.#lazy++;
    if (this.#lazyTimer !== undefined) return;
    this.#lazyTimer = setTimeout(() => {
      this.#lazyTimer = undefined;
      if (this.#lazy > 0) this.#wake();
    }, LAZY_MS);
    this.#lazyTimer.unref();
  }

  get isLazy(): boolean {
    return this.#lazy > 0;
  }
  /** So much waits that the isolate is to be entered for it. */
  get isCrowded(): boolean {
    return this.#lazy >= LAZY_MAX;
  }

  /** The isolate is entered, or is lost: nothing waits. */
  forgetLazy(): void {
    this.#lazy = 0;
  }

  /** Counts are taken soon after an entry, not only once a second. */
  mergeSoon(): void {
    if (this.#mergeTimer !== undefined) return;
    this.#mergeTimer = setTimeout(() => {
      this.#mergeTimer = undefined;
      this.#merge();
    }, MERGE_MS);
    this.#mergeTimer.unref();
  }

  /** A timer in the isolate is due at `at`. */
  wakeAt(at: number): void {
    if (!(at < this.#wakeAt)) return;
    this.#wakeAt = at;
    clearTimeout(this.#wakeTimer);
    this.#wakeTimer = setTimeout(
      () => {
        this.#wakeAt = Number.POSITIVE_INFINITY;
        this.#wake();
      },
      Math.max(1, Math.min(at - this.#now(), 0x7fff_ffff)),
    );
    this.#wakeTimer.unref();
  }

  /** The isolate is lost. */
  reset(): void {
    this.#lazy = 0;
    clearTimeout(this.#wakeTimer);
    this.#wakeAt = Number.POSITIVE_INFINITY;
  }

  end(): void {
    this.reset();
    clearTimeout(this.#lazyTimer);
    clearTimeout(this.#mergeTimer);
  }
}
