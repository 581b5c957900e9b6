// Hot path: every record is copied here (test/bench/sandbox.ts).
import {
  BOX,
  baseOf,
  GATE,
  isConnection,
  KIND,
  partOf,
  RECORD,
  RECORD_FLAG,
  RECORD_WORDS,
  unbegunIn,
} from "../inside/sandbox/layout.ts";
import { type Account, NOBODY } from "./accounts.ts";
import type { SandboxIsolate } from "./isolate.ts";
import type { Renewals } from "./renewals.ts";
import type { Tokens } from "./tokens.ts";

/** Most bytes of records that may wait for a later crossing; beyond that, streams are answered with an overload. */
const BACKLOG_BYTES_MAX = 16 * 1024 * 1024;
/** Most records that may wait: ten thousand calls of a sandbox may be answered at once, with three records each. */
const BACKLOG_MAX = 65_536;

/** What an isolate has left alone, by tokens of lane 0: streams none of whose records it has begun with, and those that go on in the next one. */
interface Detached {
  readonly unbegun: ReadonlySet<number>;
  readonly kept: ReadonlySet<number>;
}

/** A record, or the end of a stream, that waits for an isolate. */
export interface Waiting {
  readonly token: number;
  /** Undefined: the end of a stream. */
  readonly block: Buffer | undefined;
  readonly rangeAt: number;
  readonly rangeSize: number;
  /** Of the end of a stream. */
  readonly account: Account;
}

/**
 * Records on their way into one sandbox: copied into the block of its isolate, or kept in a backlog while that is full, in use, or not
 * there.
 */
export class Inbox {
  /** Undefined: the isolate is being built. */
  #isolate: SandboxIsolate | undefined = undefined;
  #backlog: Waiting[] = [];
  #backlogBytes = 0;
  /** The sandbox is running on another thread and owns the block. */
  locked = false;

  /** The records that wait go into this isolate. */
  attach(isolate: SandboxIsolate): void {
    this.#isolate = isolate;
    this.locked = false;
  }

  /**
   * The isolate has ended. `begun`: number of records in the block that it has begun with. `keeps` is asked for each new connection that
   * it has left alone (a filter that has seen nothing of its connection has lost nothing) and for those that can be renewed: these wait
   * for the next isolate, and all else is dropped. Tokens are those of lane 0.
   */
  detach(
    begun: number,
    renewals: Renewals,
    tokens: Tokens,
    keeps: (token: number) => boolean,
  ): Detached {
    const isolate = this.#isolate;
    const unbegun =
      isolate === undefined ? new Set<number>() : unbegunIn(isolate.words, begun, this.count);
    for (const { token, block } of this.#backlog)
      if (block !== undefined && token !== 0) unbegun.add(baseOf(token));
    const waiting = [...this.#leftAlone(begun), ...this.#backlog];
    const kept = new Set(renewals.renewable(waiting, tokens).filter(keeps));
    for (const { token, block } of waiting) {
      const isNew = block !== undefined && (block.readInt32LE(0) & 0xff) === KIND.CONNECTION;
      if (isNew && !kept.has(token) && unbegun.has(token) && keeps(token)) kept.add(token);
    }
    const left = waiting.filter(
      ({ token, block }) => block !== undefined && kept.has(baseOf(token)),
    );
    this.#backlog = [...renewals.renew(kept, left)];
    this.#backlogBytes = bytesOf(this.#backlog);
    this.#isolate = undefined;
    return { unbegun, kept };
  }

  /** Takes out what waits for that stream. `token`: of lane 0. */
  takeOut(token: number): readonly Waiting[] {
    const isIts = (waiting: Waiting): boolean => baseOf(waiting.token) === token;
    const taken = this.#backlog.filter(isIts);
    if (taken.length > 0) this.#backlog = this.#backlog.filter((waiting) => !isIts(waiting));
    this.#backlogBytes -= bytesOf(taken);
    return taken;
  }

  /** Takes what has waited elsewhere. */
  takeIn(waiting: readonly Waiting[]): void {
    this.#backlog.push(...waiting);
    this.#backlogBytes += bytesOf(waiting);
  }

  /** Copies of the block's records from `begun` on, and of those that have made a filter and called no hook. The isolate could write there, so what makes no sense is left out. */
  *#leftAlone(begun: number): Iterable<Waiting> {
    if (this.#isolate === undefined) return;
    const { words, bytes } = this.#isolate;
    for (let k = 0; k < this.count; k++) {
      const i = (BOX.RECORDS >> 2) + k * RECORD_WORDS;
      if (words[i] === -1 || (k < begun && !isConnection(words, i))) continue;
      const at = words[i]!;
      const size = words[i + 1]!;
      const rangeSize = words[i + 3]!;
      const isBehind = words[i + 2] === at + size;
      const whole = size + (isBehind ? rangeSize : 0);
      const fits = at >= BOX.HEAP && (at & 7) === 0 && at + whole <= BOX.HEAP + BOX.HEAP_SIZE;
      if (!fits || size < RECORD_SIZE_MIN || rangeSize < 0 || rangeSize > whole) continue;
      yield {
        token: words[(at >> 2) + RECORD.TOKEN]!,
        block: Buffer.from(bytes.subarray(at, at + whole)),
        rangeAt: isBehind ? size : 0,
        rangeSize,
        account: NOBODY,
      };
    }
  }

  /** Number of records in the block. */
  get count(): number {
    return this.#isolate === undefined ? 0 : this.#isolate.gate[GATE.COUNT]!;
  }
  /** Bytes of records in the block. */
  get used(): number {
    return this.#isolate === undefined
      ? 0
      : this.#isolate.gate[GATE.USED]! + this.count * RECORD_WORDS * 4;
  }
  get backlog(): number {
    return this.#backlog.length;
  }

  /** Adds a small record that must not get lost: if need be it waits in the backlog, whatever its limit. */
  mustAdd(block: Buffer): void {
    if (!this.add(0, block, 0, block.length, 0, 0))
      this.#backlog.push({ token: 0, block, rangeAt: 0, rangeSize: 0, account: NOBODY });
  }

  /**
   * Adds a record of `size` bytes at `at`. Its range (of bytes) lies elsewhere in the same memory, or at the record's tail if its offset
   * is 0. False: block and backlog are full.
   */
  add(
    token: number,
    memory: Buffer,
    at: number,
    size: number,
    rangeAt: number,
    rangeSize: number,
  ): boolean {
    if (this.#isOpen && this.#copy(memory, at, size, rangeAt, rangeSize)) return true;
    const block = Buffer.from(memory.subarray(at, at + size));
    const whole =
      rangeAt === 0 ? block : Buffer.concat([block, memory.subarray(rangeAt, rangeAt + rangeSize)]);
    return this.#keep({
      token,
      block: whole,
      rangeAt: rangeAt === 0 ? 0 : size,
      rangeSize,
      account: NOBODY,
    });
  }

  end(token: number, account: Account): boolean {
    if (this.#isOpen && this.count < BOX.RECORD_COUNT) {
      this.#putEnd(token, account);
      return true;
    }
    return this.#keep({ token, block: undefined, rangeAt: 0, rangeSize: 0, account });
  }

  /** Records may be written into the block, since none has to go first. */
  get #isOpen(): boolean {
    return !this.locked && this.#isolate !== undefined && this.#backlog.length === 0;
  }

  #keep(waiting: Waiting): boolean {
    const size = waiting.block?.length ?? 0;
    // The end of a stream must not get lost, so it has no limit.
    if (
      size > 0 &&
      (this.#backlog.length >= BACKLOG_MAX || this.#backlogBytes + size > BACKLOG_BYTES_MAX)
    )
      return false;
    this.#backlog.push(waiting);
    this.#backlogBytes += size;
    return true;
  }

  #putEnd(token: number, { use, part }: Account): void {
    const { words, gate } = this.#isolate!;
    const i = (BOX.RECORDS >> 2) + gate[GATE.COUNT]!++ * RECORD_WORDS;
    words[i] = -1;
    words[i + 1] = token;
    words[i + 2] = use;
    words[i + 3] = part;
  }

  #copy(memory: Buffer, at: number, size: number, rangeAt: number, rangeSize: number): boolean {
    const inPlace = rangeAt !== 0;
    const whole = size + (inPlace ? (rangeSize + 7) & ~7 : 0);
    const { words, bytes, gate } = this.#isolate!;
    const used = gate[GATE.USED]!;
    if (gate[GATE.COUNT] === BOX.RECORD_COUNT || used + whole > BOX.HEAP_SIZE) return false;
    const to = BOX.HEAP + used;
    const i = (BOX.RECORDS >> 2) + gate[GATE.COUNT]!++ * RECORD_WORDS;
    memory.copy(bytes, to, at, at + size);
    words[i] = to;
    words[i + 1] = size;
    words[i + 3] = rangeSize;
    if (inPlace) {
      words[i + 2] = to + size;
      if (rangeSize > 0) memory.copy(bytes, to + size, rangeAt, rangeAt + rangeSize);
    } else words[i + 2] = to + size - ((rangeSize + 7) & ~7);
    gate[GATE.USED] = used + whole;
    return true;
  }

  /** Moves records from the backlog into the block while there is room. */
  fill(): void {
    let taken = 0;
    for (const { token, block, rangeAt, rangeSize, account } of this.#backlog) {
      if (block === undefined) {
        if (this.count === BOX.RECORD_COUNT) break;
        this.#putEnd(token, account);
      } else {
        const size = rangeAt === 0 ? block.length : rangeAt;
        if (!this.#copy(block, 0, size, rangeAt, rangeSize)) break;
        this.#backlogBytes -= block.length;
      }
      taken++;
    }
    if (taken > 0) this.#backlog.splice(0, taken);
  }

  /** The account that record `k` of the block is charged to. */
  accountAt(k: number): Account {
    const { words } = this.#isolate!;
    const i = (BOX.RECORDS >> 2) + k * RECORD_WORDS;
    if (words[i] === -1) return { use: words[i + 2]!, part: words[i + 3]! };
    const w = words[i]! >> 2;
    return { use: words[w + RECORD.USE]!, part: partOf(words[w]!) };
  }

  /**
   * How many records of the block from the first on, which is `account`'s, may go in together: those of this account alone, or, if
   * somebody tells who is suspect, those of any who are not.
   */
  alike({ use, part }: Account, isSuspect?: (account: Account) => boolean): number {
    for (let k = 1; k < this.count; k++) {
      if (this.#followsAt(k)) continue;
      const next = this.accountAt(k);
      const isSame = next.use === use && next.part === part && use !== 0;
      if (isSuspect === undefined ? !isSame : isSuspect(next)) return k;
    }
    return this.count;
  }

  /** The streams whose ends are among the first `count` records, without those that are charged to nobody. */
  endsIn(count: number): number[] {
    const { words } = this.#isolate!;
    const ends: number[] = [];
    for (let k = 0, i = BOX.RECORDS >> 2; k < count; k++, i += RECORD_WORDS)
      if (words[i] === -1 && words[i + 2] !== 0) ends.push(words[i + 1]!);
    return ends;
  }

  /** Whether record `k` of the block must go along with the one before it. */
  #followsAt(k: number): boolean {
    const { words } = this.#isolate!;
    const i = (BOX.RECORDS >> 2) + k * RECORD_WORDS;
    return words[i] !== -1 && ((words[words[i]! >> 2]! >> 8) & RECORD_FLAG.FOLLOWS) !== 0;
  }

  /** The sandbox has read the first `count` records of the block. */
  taken(count: number): void {
    const { words, gate } = this.#isolate!;
    const left = gate[GATE.COUNT]! - count;
    if (left > 0) {
      const from = (BOX.RECORDS >> 2) + count * RECORD_WORDS;
      words.copyWithin(BOX.RECORDS >> 2, from, from + left * RECORD_WORDS);
    } else gate[GATE.USED] = 0;
    gate[GATE.COUNT] = left;
    words[BOX.BEGUN] = 0;
  }
}

const bytesOf = (waiting: readonly Waiting[]): number =>
  waiting.reduce((sum, { block }) => sum + (block?.length ?? 0), 0);

/** Smallest size of a record. */
export const RECORD_SIZE_MIN = RECORD.PAYLOAD * 4;
