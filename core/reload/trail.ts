/** What brings a thread down within this time after it was put into service is taken back. */
export const BLAME_MS = 60_000;
/** What was replaced sooner than this after what it had replaced itself has no entry of its own, so that saves cannot heap up. */
const APART_MS = BLAME_MS / 8;

interface Left<T> {
  readonly what: T;
  readonly since: number;
  until: number;
}

/** What served before what serves now, for as long as that may be to blame. */
export class Trail<T> {
  #left: Left<T>[] = [];

  /** Something else serves from `now` on. */
  left(what: T, now: number): void {
    this.#left = this.#left.filter(({ until }) => isRecent(until, now));
    const last = this.#left.at(-1);
    if (last !== undefined && now - last.since < APART_MS) last.until = now;
    else this.#left.push({ what, since: now, until: now });
  }

  /** What served BLAME_MS ago, or first if all is younger. Undefined: what serves now. */
  proven(now: number): T | undefined {
    return this.#left.find(({ until }) => isRecent(until, now))?.what;
  }

  /** What serves now is what is gone back to. */
  clear(): void {
    this.#left = [];
  }
}

function isRecent(until: number, now: number): boolean {
  return now - until < BLAME_MS;
}
