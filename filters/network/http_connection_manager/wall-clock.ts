// Hot path: the time of day for every stream, read from the system once a second.
import { HeaderLine, type SetupContext } from "@tsproxy/sdk";

/** The time of day and the `date` line, both looked up at most once a second. */
export class WallClock {
  readonly #cx: Pick<SetupContext, "now">;
  #offset = 0;
  #until = Number.NEGATIVE_INFINITY;
  #line: HeaderLine | undefined = undefined;

  constructor(cx: Pick<SetupContext, "now">) {
    this.#cx = cx;
  }

  /** Epoch milliseconds. */
  now(): number {
    const now = this.#cx.now();
    if (now >= this.#until) this.#look(now);
    return Math.floor(now + this.#offset);
  }

  /** `date` as RFC 9110 §5.6.7 writes it. */
  get dateLine(): HeaderLine {
    const now = this.#cx.now();
    if (now >= this.#until || this.#line === undefined) this.#look(now);
    return this.#line!;
  }

  #look(now: number): void {
    const wall = Date.now();
    this.#offset = wall - now;
    this.#until = now + 1000 - (wall % 1000);
    this.#line = new HeaderLine("date", new Date(wall).toUTCString());
  }
}
