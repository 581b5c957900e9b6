// Hot path: one object a request, reused with its RoutedRequest.

import type { SetupContext } from "@tsproxy/sdk";
import { Attempt, type AttemptOwner } from "./attempt.ts";

const NONE: readonly Attempt[] = [];

/** The attempts of one request. Several are in progress only with hedging: a slow one goes on beside those begun after it. */
export class Attempts {
  /** The attempt begun last, or the one whose response is passed on. */
  current: Attempt;
  /** Attempts begun before `current` that have not answered yet. */
  #earlier: readonly Attempt[] = NONE;
  readonly #owner: AttemptOwner;
  readonly #cx: SetupContext;

  constructor(owner: AttemptOwner, cx: SetupContext) {
    this.#owner = owner;
    this.#cx = cx;
    this.current = new Attempt(owner, cx);
  }

  /** Makes `current` an attempt that can begin. One that is in progress goes on as an earlier one. */
  next(): void {
    if (this.current.over) return;
    this.#earlier = [...this.#earlier, this.current];
    this.current = new Attempt(this.#owner, this.#cx);
  }

  inProgress(): readonly Attempt[] {
    return [this.current, ...this.#earlier].filter((attempt) => !attempt.over);
  }

  /** Whether an attempt other than this one is in progress. */
  othersThan(attempt: Attempt): boolean {
    if (this.current !== attempt && !this.current.over) return true;
    return this.#earlier.some((other) => other !== attempt && !other.over);
  }

  /** Removes an attempt that is over from the earlier ones, while others go on. */
  forget(attempt: Attempt): void {
    if (this.#earlier === NONE || this.current === attempt) return;
    this.#earlier = this.#earlier.filter((other) => other !== attempt);
  }

  /** Gives all attempts up but the winner, which becomes `current`. */
  keepOnly(winner: Attempt): void {
    if (this.current === winner && this.#earlier === NONE) return;
    for (const other of this.#earlier) if (other !== winner) other.giveUp();
    if (this.current !== winner) this.current.giveUp();
    this.current = winner;
    this.#earlier = NONE;
  }

  giveUp(): void {
    for (const attempt of this.#earlier) attempt.giveUp();
    this.#earlier = NONE;
    this.current.giveUp();
  }
}
