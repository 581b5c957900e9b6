// Hot path: every record of a sandboxed network filter (test/bench/sandbox.ts).
import { baseOf, KIND, RECORD_FLAG } from "../inside/sandbox/layout.ts";
import { NOBODY } from "./accounts.ts";
import type { Waiting } from "./inbox.ts";
import type { Tokens } from "./tokens.ts";

/** What the filter of one connection is made of. */
export interface Renewal {
  readonly record: Buffer;
  readonly isDue: boolean;
}

/**
 * Connections whose filters keep nothing from one hook to the next (`stateless` of NetworkFilterFactory): when the isolate is lost, the
 * next one makes their filters anew from what they were made of, and they go on. Only hooks that had begun are lost.
 *
 *   made ──the isolate is lost──▶ due ──its next record, which what it is made of goes before──▶ made
 */
export class Renewals {
  /** The CONNECTION records, by token. */
  readonly #records = new Map<number, Buffer>();
  /** Those whose filter the isolate has not made. */
  readonly #due = new Set<number>();
  /** Lanes whose latest chunk came in parts; true: all of it has come. */
  readonly #inParts = new Map<number, boolean>();

  /** This filter is about to be made. `record`: its CONNECTION record, which is copied. */
  add(token: number, record: Uint8Array): void {
    this.#records.set(token, Buffer.from(record));
  }

  /** A record of that kind has come. Answers what has to go before it. */
  before(token: number, kind: number): Buffer | undefined {
    if (this.#records.size === 0) return undefined;
    const base = baseOf(token);
    if (!this.#records.has(base)) return undefined;
    if (kind === KIND.PART) this.#inParts.set(token, false);
    else if (this.#inParts.get(token) === false && kind !== KIND.NOTICE)
      this.#inParts.set(token, true);
    else if (kind !== KIND.NOTICE) this.#inParts.delete(token);
    return this.#due.delete(base) ? this.#records.get(base) : undefined;
  }

  /** The stream has ended. True: no isolate knows of it. */
  end(token: number): boolean {
    if (!this.#records.delete(token)) return false;
    this.#inParts.delete(token);
    this.#inParts.delete(token | 1);
    return this.#due.delete(token);
  }

  /** The isolate is lost. `left`: the records that it has left alone. Answers the connections that may go on. */
  renewable(left: readonly Waiting[], tokens: Tokens): number[] {
    if (this.#records.size === 0) return [];
    const asks = new Set<number>();
    for (const { token, block } of left)
      if (block !== undefined && ((block.readInt32LE(0) >> 8) & RECORD_FLAG.ANSWER) !== 0)
        asks.add(token);
    const isWhole = (lane: number) =>
      tokens.isWaiting(lane)
        ? asks.has(lane) && !this.#inParts.has(lane)
        : this.#inParts.get(lane) !== false;
    return [...this.#records.keys()].filter(
      (token) => tokens.isLive(token) && isWhole(token) && isWhole(token | 1),
    );
  }

  /**
   * Forgets the connections that are not `kept`. Answers what waits for the next isolate, with what filters are made of before the first
   * record of each that has some.
   */
  renew(kept: ReadonlySet<number>, left: readonly Waiting[]): readonly Waiting[] {
    for (const token of this.#records.keys())
      if (kept.has(token)) this.#due.add(token);
      else this.end(token);
    if (this.#due.size === 0) return left;
    return left.flatMap((waiting) => {
      const { token, block } = waiting;
      if (block === undefined) return [waiting];
      const kind = block.readInt32LE(0) & 0xff;
      if (kind === KIND.CONNECTION) this.#due.delete(token);
      const record = this.before(token, kind);
      return record === undefined ? [waiting] : [alone(baseOf(token), record), waiting];
    });
  }

  /** This connection goes on elsewhere. Undefined: it is none of those here. */
  takeOut(token: number): Renewal | undefined {
    const record = this.#records.get(token);
    return record && { record, isDue: this.end(token) };
  }

  /** A connection from elsewhere goes on here. */
  takeIn(token: number, { record, isDue }: Renewal): void {
    this.#records.set(token, record);
    if (isDue) this.#due.add(token);
  }
}

const alone = (token: number, block: Buffer): Waiting => ({
  token,
  block,
  rangeAt: 0,
  rangeSize: 0,
  account: NOBODY,
});
