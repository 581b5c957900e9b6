/** Faults that open the breaker, unless another number is given, and the time they must fall in. */
const FAULTS = 3;
export const WINDOW_MS = 10_000;
const BACK_OFF_FIRST_MS = 1000;
const BACK_OFF_LAST_MS = 30_000;
/** A breaker that stays closed this long begins with the first back-off again. */
const FORGIVEN_MS = 60_000;
/** A trial whose stream lasts longer than this has gone well, unless another time is given. */
const TRIAL_MS = 10_000;

/**
 * Whether code that has failed may run.
 *
 *   closed ──three faults in 10 s──▶ open ──back-off──▶ half-open ──a stream that ends well──▶ closed
 *                                     ▲                     │
 *                                     └──── a fault ────────┘  (back-off doubles, 1 s to 30 s)
 */
export class Breaker {
  readonly #limit: number;
  #faults: number[] = [];
  #isClosed = true;
  #backOffMs = 0;
  /** When the back-off ends. */
  #until = Number.NEGATIVE_INFINITY;
  #closedAt = Number.NEGATIVE_INFINITY;
  /** The stream that tries a half-open breaker; 0: none. */
  #trial = 0;
  /** When it has lasted long enough. */
  #trialUntil = Number.NEGATIVE_INFINITY;
  readonly #trialMs: number;

  constructor({ limit = FAULTS, trialMs = TRIAL_MS } = {}) {
    this.#limit = limit;
    this.#trialMs = trialMs;
  }

  state(now: number): "closed" | "open" | "half-open" {
    if (this.#isClosed) return "closed";
    return now < this.#until ? "open" : "half-open";
  }

  /**
   * True for 10 s after a fault, while it is open or has just become half-open, and during a trial: entries run on another thread
   * then, where they cannot hold this one up.
   */
  isSuspect(now: number): boolean {
    if (this.#trial !== 0 && now < this.#trialUntil) return true;
    const last = this.#faults.at(-1);
    return (last !== undefined && now - last < WINDOW_MS) || now - this.#until < WINDOW_MS;
  }

  /** It is as good as new, or nobody has tried it for a long time. */
  isForgiven(now: number): boolean {
    const last = this.#faults.at(-1) ?? Number.NEGATIVE_INFINITY;
    return now - Math.max(last, this.#closedAt, this.#until) > FORGIVEN_MS;
  }

  /** Counts a fault; `atOnce`: one is enough. Answers for how many milliseconds it is open from now on. */
  fault(now: number, atOnce = false): number {
    this.#faults = this.#faults.filter((at) => now - at < WINDOW_MS);
    this.#faults.push(now);
    this.#trial = 0;
    if (this.#isClosed && !atOnce && this.#faults.length < this.#limit) return 0;
    if (this.#isClosed && now - this.#closedAt > FORGIVEN_MS) this.#backOffMs = 0;
    this.#backOffMs = Math.min(BACK_OFF_LAST_MS, Math.max(BACK_OFF_FIRST_MS, this.#backOffMs * 2));
    this.#isClosed = false;
    this.#until = now + this.#backOffMs;
    return this.#backOffMs;
  }

  /** Its faults were those of others. */
  absolve(): void {
    if (this.#isClosed) this.#faults = [];
  }

  /** Whether a new stream may run. While it is half-open one may, until that one's outcome is known. */
  lets(now: number, token: number, isLive: (token: number) => boolean): boolean {
    const state = this.state(now);
    if (state !== "half-open") return state === "closed";
    if (this.#trial === token) return true;
    if (this.#trial !== 0 && isLive(this.#trial)) return false;
    this.#trial = token;
    this.#trialUntil = now + this.#trialMs;
    return true;
  }

  /** These streams have ended, and the code has heard of it and returned. */
  ended(tokens: readonly number[], now: number): void {
    if (this.#trial !== 0 && tokens.includes(this.#trial)) this.#close(now);
  }

  /** Ends a trial whose stream goes on and on. To be called from time to time. */
  endLongTrial(now: number, isLive: (token: number) => boolean): void {
    if (this.#trial !== 0 && now >= this.#trialUntil && isLive(this.#trial)) this.#close(now);
  }

  #close(now: number): void {
    this.#isClosed = true;
    this.#trial = 0;
    this.#closedAt = now;
    this.#faults = this.#faults.slice(-1);
  }
}
