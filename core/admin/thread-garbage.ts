import {
  AfterReloads,
  COLLECT_AFTER_MS,
  COLLECT_APART_MS,
  collectGarbage,
  type Flavor,
  Rest,
} from "./garbage.ts";

/** The thread whose heaps these are. */
export interface ThreadHeaps {
  /** Its number among the threads, which collect one after the other. */
  readonly index: number;
  /** Clients wait for it. */
  readonly hasTraffic: boolean;
  readonly counts: () => { readonly crossings: number; readonly events: number };
  /** Collects in the thread's isolates. */
  readonly collect: (flavor: Flavor) => void;
  /** The start is over, and its garbage gone. */
  readonly onStarted: () => void;
  /** It was busy, and has come to rest. */
  readonly onRested: () => void;
}

/** When the garbage of a thread is collected: after its start, after series of reloads, and when it comes to rest. */
export class ThreadGarbage {
  readonly #heaps: ThreadHeaps;
  readonly #reloads: AfterReloads;
  readonly #resting: Rest;
  #stopped = false;

  constructor(heaps: ThreadHeaps) {
    this.#heaps = heaps;
    this.#reloads = new AfterReloads(() => this.#collect("regular"), 1 + heaps.index);
    this.#resting = new Rest(() => {
      this.#collect("last-resort");
      heaps.onRested();
    });
  }

  /** To be called once a second. */
  tick(): void {
    this.#resting.tick(this.#heaps.counts().crossings);
  }

  onCommit(isStart: boolean): void {
    if (isStart) this.#awaitRest();
    else this.#reloads.onCommit();
  }

  /** The thread ends. */
  stop(): void {
    this.#stopped = true;
  }

  #awaitRest(): void {
    const { index, hasTraffic, counts, onStarted } = this.#heaps;
    const { events } = counts();
    const wait = COLLECT_AFTER_MS + COLLECT_APART_MS * (1 + index);
    setTimeout(() => {
      if (hasTraffic && counts().events !== events) {
        // A worker that has traffic by now must not stop for long: compiled code stays until it comes to rest.
        this.#collect("regular");
        this.#resting.postpone();
      } else this.#collect("last-resort");
      onStarted();
    }, wait).unref();
  }

  /** `last-resort` gives free memory and compiled code back too. */
  #collect(flavor: Flavor): void {
    if (this.#stopped) return;
    collectGarbage(flavor);
    this.#heaps.collect(flavor);
  }
}
