/** So much may be used ahead after a rest, in milliseconds of CPU. */
const BURST_MS = 50;

/** How much of a CPU a sandbox may use: entries wait until what they took is paid for. The clock counts, not the kernel's CPU time. */
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

  /** Milliseconds until it may be entered; 0: now. */
  waitMs(now: number): number {
    this.#credit = Math.min(BURST_MS, this.#credit + (now - this.#at) * this.#share);
    this.#at = now;
    return this.#credit > 0 ? 0 : Math.ceil(-this.#credit / this.#share) + 1;
  }

  spent(ms: number): void {
    this.#credit -= ms;
  }
}
