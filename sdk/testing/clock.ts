import type { Timer } from "../extension.ts";

/** A clock that the test moves: timers fire within `advance`, in order of time. */
export class TestClock {
  ms = 0;
  readonly #armed = new Set<TestTimer>();

  timer(onFired: () => void): Timer {
    return new TestTimer(this, onFired, this.#armed);
  }

  advance(ms: number): void {
    const until = this.ms + ms;
    for (;;) {
      let next: TestTimer | undefined;
      for (const t of this.#armed)
        if (t.at <= until && (next === undefined || t.at < next.at)) next = t;
      if (next === undefined) break;
      this.ms = next.at;
      next.fire();
    }
    this.ms = until;
  }

  /** How many timers are armed. */
  get armed(): number {
    return this.#armed.size;
  }
}

class TestTimer implements Timer {
  at = 0;
  readonly #clock: TestClock;
  readonly #onFired: () => void;
  readonly #set: Set<TestTimer>;

  constructor(clock: TestClock, onFired: () => void, set: Set<TestTimer>) {
    this.#clock = clock;
    this.#onFired = onFired;
    this.#set = set;
  }
  arm(ms: number): void {
    this.at = this.#clock.ms + ms;
    this.#set.add(this);
  }
  cancel(): void {
    this.#set.delete(this);
  }
  get armed(): boolean {
    return this.#set.has(this);
  }
  fire(): void {
    this.#set.delete(this);
    this.#onFired();
  }
}
