/** Faults that open the breaker, and the time they must fall in. */
const FAULTS = 3;
const WINDOW_MS = 10_000;
const BACK_OFF_FIRST_MS = 1000;
const BACK_OFF_LAST_MS = 30_000;
/** A breaker that stays closed this long begins with the first back-off again. */
const FORGIVEN_MS = 60_000;

/**
 * Whether a sandbox may be entered.
 *
 *   closed ──three faults in 10 s──▶ open ──back-off──▶ half-open ──a good entry──▶ closed
 *                                     ▲                     │
 *                                     └──── a fault ────────┘  (back-off doubles, 1 s to 30 s)
 */
export class Breaker {
  #faults: number[] = [];
  #state: "closed" | "open" | "half-open" = "closed";
  #backOffMs = 0;
  #closedAt = Number.NEGATIVE_INFINITY;
  opened = 0;

  get state(): "closed" | "open" | "half-open" {
    return this.#state;
  }

  /** True if there was a fault in the last 10 s: entries run on another thread then, where they cannot hold this one up. */
  isSuspect(now: number): boolean {
    const last = this.#faults.at(-1);
    return this.#state === "half-open" || (last !== undefined && now - last < WINDOW_MS);
  }

  /** Counts a fault. Answers how many milliseconds to wait before the isolate is built again. */
  fault(now: number): number {
    this.#faults = this.#faults.filter((at) => now - at < WINDOW_MS);
    this.#faults.push(now);
    if (this.#state === "closed" && this.#faults.length < FAULTS) return 0;
    if (this.#state === "closed" && now - this.#closedAt > FORGIVEN_MS) this.#backOffMs = 0;
    this.#backOffMs = Math.min(BACK_OFF_LAST_MS, Math.max(BACK_OFF_FIRST_MS, this.#backOffMs * 2));
    this.#state = "open";
    this.opened++;
    return this.#backOffMs;
  }

  /** The isolate has been built again: one entry may try it. */
  onRebuilt(): void {
    if (this.#state === "open") this.#state = "half-open";
  }

  /** An entry has ended well. */
  succeeded(now: number): void {
    if (this.#state !== "half-open") return;
    this.#state = "closed";
    this.#closedAt = now;
    this.#faults = this.#faults.slice(-1);
  }
}
