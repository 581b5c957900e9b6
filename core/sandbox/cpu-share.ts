/** Milliseconds of CPU that a sandbox may use in one go after a rest. */
const BURST_MS = 50;

/** Limits a sandbox to a share of one CPU: after an entry it waits until its share has paid for it. */
export class CpuShare {
  readonly #share: number;
  #credit = BURST_MS;
  #at: number;

  /** `share`: of one CPU; 1 is no limit. */
  constructor(share: number, now: number) {
    this.#share = share;
    this.#at = now;
  }

  get limited(): boolean {
    return this.#share < 1;
  }

  /** Milliseconds until the sandbox may be entered; 0: now. */
  waitMs(now: number): number {
    this.#credit = Math.min(BURST_MS, this.#credit + (now - this.#at) * this.#share);
    this.#at = now;
    return this.#credit > 0 ? 0 : Math.ceil(-this.#credit / this.#share) + 1;
  }

  /** An entry has had so much CPU time. */
  spent(ms: number): void {
    this.#credit -= ms;
  }
}
