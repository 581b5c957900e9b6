// Hot path: a request arms and cancels two timers.
import type { Timer } from "@tsproxy/sdk";

/** Retry back-offs last a few ticks; coarser ticks would lengthen each of them. */
const TICK_MS = 4;
const SLOTS = 2048;

/**
 * A timing wheel: arming and cancelling cost a few pointer writes, and one native timer serves a whole isolate. A timer lies in
 * the slot of its tick modulo SLOTS; one that is further away than a turn of the wheel stays in its slot until its time has come.
 */
export class TimerWheel {
  readonly #slots: (WheelTimer | undefined)[] = new Array(SLOTS).fill(undefined);
  #tick = 0;
  #armed = 0;
  /** No slot before this tick holds a timer; -1: unknown, `wakeIn` must search. */
  #nextTick = -1;
  readonly #due: WheelTimer[] = [];
  /** Monotonic milliseconds, set once a crossing. */
  now = 0;
  readonly #onError: (error: unknown) => void;
  readonly #onArmed: () => void;

  /** `onArmed` is called after each arming, since the timer may be the next to fire. */
  constructor(onError: (error: unknown) => void, onArmed: () => void) {
    this.#onError = onError;
    this.#onArmed = onArmed;
  }

  timer(onFired: () => void): WheelTimer {
    return new WheelTimer(this, onFired);
  }

  link(timer: WheelTimer): void {
    const tick = Math.max(this.#tick + 1, Math.ceil(timer.at / TICK_MS));
    const slot = tick % SLOTS;
    const first = this.#slots[slot];
    timer.slot = slot;
    timer.previous = undefined;
    timer.next = first;
    if (first !== undefined) first.previous = timer;
    this.#slots[slot] = timer;
    this.#armed++;
    const turn = this.#tick + ((slot - (this.#tick % SLOTS) + SLOTS) % SLOTS);
    if (turn < this.#nextTick) this.#nextTick = turn;
    this.#onArmed();
  }

  unlink(timer: WheelTimer): void {
    if (timer.previous === undefined) this.#slots[timer.slot] = timer.next;
    else timer.previous.next = timer.next;
    if (timer.next !== undefined) timer.next.previous = timer.previous;
    timer.previous = timer.next = undefined;
    timer.slot = -1;
    this.#armed--;
  }

  /** It is `now`: timers that are armed until `advance` count from then. */
  begin(now: number): void {
    this.now = now;
    if (this.#armed === 0) this.#tick = Math.max(this.#tick, Math.floor(now / TICK_MS));
  }

  /** Fires what is due at `now`. */
  advance(now: number): void {
    this.begin(now);
    if (this.#armed === 0) return;
    const until = Math.floor(now / TICK_MS);
    if (until >= this.#nextTick) this.#nextTick = -1;
    // After a long pause one turn of the wheel is enough to pass every slot.
    if (until - this.#tick > SLOTS) this.#tick = until - SLOTS;
    while (this.#tick < until) {
      this.#tick++;
      // Collected first: callbacks may change the list.
      const due = this.#due;
      for (let t = this.#slots[this.#tick % SLOTS]; t !== undefined; t = t.next)
        if (t.at <= now) due.push(t);
      for (const timer of due) {
        if (!timer.armed || timer.at > now) continue;
        this.unlink(timer);
        try {
          timer.onFired();
        } catch (error) {
          this.#onError(error);
        }
      }
      due.length = 0;
    }
  }

  /** Milliseconds until the next slot that holds a timer, -1 if none does. May be too early, never too late. */
  wakeIn(): number {
    if (this.#armed === 0) return -1;
    if (this.#nextTick < 0) {
      this.#nextTick = this.#tick + SLOTS;
      for (let k = 1; k < SLOTS; k++) {
        if (this.#slots[(this.#tick + k) % SLOTS] !== undefined) {
          this.#nextTick = this.#tick + k;
          break;
        }
      }
    }
    return Math.max(1, Math.ceil(this.#nextTick * TICK_MS - this.now));
  }
}

/** A timer of the wheel, and its links to its neighbours in the slot. */
export class WheelTimer implements Timer {
  at = 0;
  slot = -1;
  previous: WheelTimer | undefined = undefined;
  next: WheelTimer | undefined = undefined;
  readonly onFired: () => void;
  readonly #wheel: TimerWheel;

  constructor(wheel: TimerWheel, onFired: () => void) {
    this.#wheel = wheel;
    this.onFired = onFired;
  }

  get armed(): boolean {
    return this.slot >= 0;
  }

  arm(ms: number): void {
    const wheel = this.#wheel;
    const at = wheel.now + ms;
    if (this.slot >= 0) {
      wheel.unlink(this);
    }
    this.at = at;
    wheel.link(this);
  }

  cancel(): void {
    if (this.slot >= 0) this.#wheel.unlink(this);
  }
}
