// Hot path: every record and every answer is looked up here (test/bench/sandbox.ts).
import { baseOf, SLOT_MAX, slotOf } from "../inside/sandbox/layout.ts";
import type { Account } from "./accounts.ts";

/**
 * The streams that a sandbox knows, by token, and those of their lanes (request, response) that wait for an answer of it: an answer
 * is delivered only for a token that waits. Arrays by slot, so that a look-up is two loads.
 */
export class Tokens {
  #live = new Int32Array(1024);
  /** By slot. Bit 0: the request lane waits; bit 1: the response lane. */
  #waiting = new Uint8Array(1024);
  /** Their accounts. */
  #uses = new Int32Array(1024);
  #parts = new Uint16Array(1024);
  /** Deadline of a lane that was left pending, by slot * 2 + lane. */
  #lateAt = new Float64Array(2048);
  #pending: number[] = [];
  #pendingHead = 0;
  #count = 0;

  /** Number of streams that the sandbox holds state for. */
  get count(): number {
    return this.#count;
  }

  /** Adds a stream, which is charged to this account. */
  add(token: number, use: number, part: number): void {
    const slot = slotOf(token);
    if (slot >= this.#live.length) this.#grow(slot);
    if (this.#live[slot] === 0) this.#count++;
    this.#live[slot] = baseOf(token);
    this.#waiting[slot] = 0;
    this.#uses[slot] = use;
    this.#parts[slot] = part;
  }

  accountOf(token: number): Account {
    const slot = slotOf(token);
    return { use: this.#uses[slot]!, part: this.#parts[slot]! };
  }

  #grow(slot: number): void {
    let size = this.#live.length;
    while (size <= slot) size *= 2;
    size = Math.min(size, SLOT_MAX);
    const live = new Int32Array(size);
    live.set(this.#live);
    this.#live = live;
    const waiting = new Uint8Array(size);
    waiting.set(this.#waiting);
    this.#waiting = waiting;
    const uses = new Int32Array(size);
    uses.set(this.#uses);
    this.#uses = uses;
    const parts = new Uint16Array(size);
    parts.set(this.#parts);
    this.#parts = parts;
    const lateAt = new Float64Array(size * 2);
    lateAt.set(this.#lateAt);
    this.#lateAt = lateAt;
  }

  isLive(token: number): boolean {
    const slot = slotOf(token);
    return slot < this.#live.length && token !== 0 && this.#live[slot] === baseOf(token);
  }

  remove(token: number): void {
    const slot = slotOf(token);
    this.#live[slot] = 0;
    this.#waiting[slot] = 0;
    this.#count--;
  }

  /** The lane of this token waits for an answer from now on. */
  wait(token: number): void {
    this.#waiting[slotOf(token)]! |= 1 << (token & 1);
  }

  isWaiting(token: number): boolean {
    return this.isLive(token) && (this.#waiting[slotOf(token)]! & (1 << (token & 1))) !== 0;
  }

  /** The lane of this token has its answer. */
  answered(token: number): void {
    this.#waiting[slotOf(token)]! &= ~(1 << (token & 1));
  }

  /** An entry has ended without the answer (a promise is pending): it must come before `deadline`. */
  leftPending(token: number, deadline: number): void {
    this.#lateAt[slotOf(token) * 2 + (token & 1)] = deadline;
    this.#pending.push(token, deadline);
  }

  /** Every answer may come so much later. */
  postpone(ms: number): void {
    const pending = this.#pending;
    for (let k = this.#pendingHead; k < pending.length; k += 2) {
      const token = pending[k]!;
      const deadline = pending[k + 1]!;
      const index = slotOf(token) * 2 + (token & 1);
      if (this.#lateAt[index] === deadline) this.#lateAt[index] = deadline + ms;
      pending[k + 1] = deadline + ms;
    }
  }

  /** Takes the tokens whose deadline has passed. They were added in the order of their deadlines. */
  takeLate(now: number): number[] {
    const late: number[] = [];
    const pending = this.#pending;
    while (this.#pendingHead < pending.length && pending[this.#pendingHead + 1]! <= now) {
      const token = pending[this.#pendingHead]!;
      const deadline = pending[this.#pendingHead + 1]!;
      this.#pendingHead += 2;
      if (!this.isWaiting(token) || this.#lateAt[slotOf(token) * 2 + (token & 1)] !== deadline)
        continue;
      this.answered(token);
      late.push(token);
    }
    if (this.#pendingHead > 1024) {
      this.#pending = pending.slice(this.#pendingHead);
      this.#pendingHead = 0;
    }
    return late;
  }

  /** Removes all streams but those of `kept` (tokens of lane 0). Answers the tokens that waited. */
  clear(kept: ReadonlySet<number>): number[] {
    const waited: number[] = [];
    for (let slot = 0; slot < this.#live.length; slot++) {
      const token = this.#live[slot]!;
      if (token === 0 || kept.has(token)) continue;
      if ((this.#waiting[slot]! & 1) !== 0) waited.push(token);
      if ((this.#waiting[slot]! & 2) !== 0) waited.push(token | 1);
      this.#live[slot] = this.#waiting[slot] = 0;
    }
    this.#pending = [];
    this.#pendingHead = 0;
    this.#count = kept.size;
    return waited;
  }
}
