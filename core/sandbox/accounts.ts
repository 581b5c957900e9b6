import { Breaker, WINDOW_MS } from "./breaker.ts";

/** What a fault is charged to: a use, and one of its per-route configs (part 0: none). Use 0: nobody knows. */
export interface Account {
  readonly use: number;
  readonly part: number;
}
export const NOBODY: Account = { use: 0, part: 0 };

/** So many faults in 10 s, whoever they are charged to, are the package's own, unless a place without any has run meanwhile. */
const FAULTS_OF_ALL = 12;
/** As long as so many fall in the time that breakers look at, one fault opens the breaker of whoever it is charged to. */
const FAULTS_OF_MANY = 12;
/** Most accounts that are remembered; if there are more, the oldest is forgotten. */
const ACCOUNTS_MAX = 1024;

/** Of a map by account. */
export const keyOf = ({ use, part }: Account): number => part * 2 ** 32 + use;

/** The breakers of one sandbox: one for each account that has failed, and those that concern all of them. */
export class Accounts {
  readonly #byKey = new Map<number, Breaker>();
  /** Faults that cannot be charged to anybody. */
  readonly #ofNobody: Breaker;
  /** All faults. */
  readonly #ofAll: Breaker;
  readonly #trialMs: number;
  /** Times of the latest faults, FAULTS_OF_MANY at most. */
  readonly #latest: number[] = [];
  /** Nothing has failed for a long time. */
  isClean = true;

  /** `trialMs`: a trial whose stream lasts longer has gone well. */
  constructor(trialMs: number) {
    this.#trialMs = trialMs;
    this.#ofNobody = new Breaker({ trialMs });
    this.#ofAll = new Breaker({ limit: FAULTS_OF_ALL, trialMs });
  }

  /** Charges a fault. Answers for how many milliseconds this account and the whole sandbox are left alone. */
  fault(account: Account, now: number): { readonly own: number; readonly all: number } {
    this.isClean = false;
    if (this.#latest.push(now) > FAULTS_OF_MANY) this.#latest.shift();
    const all = this.#ofAll.fault(now);
    if (account.use === 0) {
      const own = this.#ofNobody.fault(now);
      return { own, all: Math.max(own, all) };
    }
    return { own: this.#breakerOf(account).fault(now, this.#areMany(now)), all };
  }

  /**
   * The setup of a use has failed that went well before: it is left alone at once, and that is nobody else's fault. Answers for how
   * many milliseconds.
   */
  rest(use: number, now: number): number {
    this.isClean = false;
    return this.#breakerOf({ use, part: 0 }).fault(now, true);
  }

  #breakerOf(account: Account): Breaker {
    const key = keyOf(account);
    let breaker = this.#byKey.get(key);
    if (breaker === undefined) {
      breaker = new Breaker({ trialMs: this.#trialMs });
      if (this.#byKey.size >= ACCOUNTS_MAX)
        for (const oldest of this.#byKey.keys()) {
          this.#byKey.delete(oldest);
          break;
        }
      this.#byKey.set(key, breaker);
    }
    return breaker;
  }

  /** Places fail one after the other: each further fault costs the good ones a new isolate, so there is no time for three. */
  #areMany(now: number): boolean {
    return this.#latest.length === FAULTS_OF_MANY && now - this.#latest[0]! < WINDOW_MS;
  }

  /** Whether anything is suspect, so that records of different accounts must not be mixed. */
  anySuspect(now: number): boolean {
    if (this.isClean) return false;
    if (this.#isSuspect(now)) return true;
    for (const breaker of this.#byKey.values()) if (breaker.isSuspect(now)) return true;
    return false;
  }

  #isSuspect(now: number): boolean {
    return this.#ofNobody.isSuspect(now) || this.#ofAll.state(now) !== "closed";
  }

  /** Whether this account must run alone, on another thread. While there are suspects, those whom nobody knows are. */
  isSuspect(account: Account, now: number): boolean {
    if (account.use === 0 || this.#isSuspect(now)) return true;
    return this.#byKey.get(keyOf(account))?.isSuspect(now) === true;
  }

  /** Whether a new stream of that account may run. */
  lets(account: Account, now: number, token: number, isLive: (token: number) => boolean): boolean {
    if (this.isClean) return true;
    if (!this.#ofNobody.lets(now, token, isLive) || !this.#ofAll.lets(now, token, isLive))
      return false;
    return this.#byKey.get(keyOf(account))?.lets(now, token, isLive) !== false;
  }

  /**
   * An entry of this account alone, or of it and others that are not suspect, has ended well. `ended`: the streams whose ends it
   * was told.
   */
  succeeded(account: Account, ended: readonly number[], now: number): void {
    this.#ofNobody.ended(ended, now);
    this.#ofAll.ended(ended, now);
    if (account.use === 0) return;
    const breaker = this.#byKey.get(keyOf(account));
    if (breaker === undefined) this.#ofAll.absolve();
    else breaker.ended(ended, now);
  }

  state(account: Account, now: number): "closed" | "open" | "half-open" {
    return this.#byKey.get(keyOf(account))?.state(now) ?? "closed";
  }

  /** The worst state of all. */
  worst(now: number): "closed" | "open" | "half-open" {
    const states = [this.#ofNobody, this.#ofAll, ...this.#byKey.values()].map((b) => b.state(now));
    return states.find((s) => s === "open") ?? states.find((s) => s === "half-open") ?? "closed";
  }

  /** Ends trials that take too long, and forgets what has been good for long. To be called from time to time. */
  forgive(now: number, isLive: (token: number) => boolean): void {
    if (this.isClean) return;
    for (const breaker of [this.#ofNobody, this.#ofAll, ...this.#byKey.values()])
      breaker.endLongTrial(now, isLive);
    for (const [key, breaker] of this.#byKey) if (breaker.isForgiven(now)) this.#byKey.delete(key);
    this.isClean =
      this.#byKey.size === 0 && this.#ofNobody.isForgiven(now) && this.#ofAll.isForgiven(now);
  }

  /** Whether this account has failed, and not been forgiven. */
  has(account: Account): boolean {
    return this.#byKey.has(keyOf(account));
  }

  /** This account's code runs elsewhere from now on: its breaker goes along. */
  moveTo(other: Accounts, account: Account): void {
    const key = keyOf(account);
    const breaker = this.#byKey.get(key);
    if (breaker === undefined) return;
    this.#byKey.delete(key);
    other.isClean = false;
    other.#byKey.set(key, breaker);
  }

  /** A use has ended. */
  forget(use: number): void {
    for (const key of this.#byKey.keys()) if (key % 2 ** 32 === use) this.#byKey.delete(key);
  }
}
