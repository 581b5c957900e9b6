// Hot path: sandboxes that are entered within a crossing (test/bench/sandbox.ts).
import { beginRecord, type Door, type Parked, type ParkTable } from "./parked.ts";
import {
  ANSWER,
  ANSWER_HEAD,
  ANSWER_HEAD_SIZE,
  BOX,
  GATE,
  RECORD,
  RECORD_FLAG,
  RECORD_WORDS,
  RECORDS_OF_LIMIT,
  STATUS,
} from "./sandbox/layout.ts";

/** So many that wait, or bytes of the block, and it is entered before the next event: what they touch should still be in the caches. */
const CROWD = 20;
const CROWDED_BYTES = (BOX.HEAP_SIZE * 3) / 4;

/** For one who cannot wait there is no other way in: its slow entries may take so much of that long. Both by the clock. */
const PROMPT_SLOW_MS = 500;
const PROMPT_WINDOW_MS = 2000;

/** What core lends for a gate. */
export interface GateParts {
  /** The sandbox's block. */
  readonly box: SharedArrayBuffer;
  /** Words by GATE. */
  readonly state: SharedArrayBuffer;
  /** The thread's beat: at `insideAt` stands the box that it is inside. */
  readonly beats: SharedArrayBuffer;
  readonly insideAt: number;
  readonly mark: number;
  /** Enters: `run` of sandbox/main.ts. Throws when the sandbox was stopped. */
  readonly run: { applySync(receiver: undefined, args: readonly [number]): void };
}

/**
 * The chain's own way into a sandbox. Records are written straight into its block; once all events of the crossing have been
 * handled it is entered, and what it answers moves its streams on while the bytes that they were lent still stand. What it cannot
 * do waits for core: answers that are not for a stream of this gate, promises that are not settled, faults.
 */
export class Gate implements Door {
  readonly words: Int32Array;
  readonly memory: Uint8Array;
  readonly longs: BigInt64Array;
  readonly lends = undefined;
  readonly #times: Float64Array;
  readonly #state: Int32Array;
  readonly #beats: Int32Array;
  readonly #parts: GateParts;
  readonly #table: ParkTable;
  readonly #args: [number] = [0];
  #asked: number[] = [];
  #entered: number[] = [];
  /** The number of the entry to come: what is asked now is asked in that one. */
  next = 1;
  #at = 0;
  #wantsAnswer = false;
  /** The last entry has left answers that are core's to take: until then there is no other. */
  #left = false;
  /** What slow entries of those who cannot wait have taken since then. */
  #slowFrom = 0;
  #slowMs = 0;

  constructor(parts: GateParts, table: ParkTable) {
    this.#parts = parts;
    this.#table = table;
    this.words = new Int32Array(parts.box);
    this.memory = new Uint8Array(parts.box);
    this.longs = new BigInt64Array(parts.box);
    this.#times = new Float64Array(parts.box);
    this.#state = new Int32Array(parts.state);
    this.#beats = new Int32Array(parts.beats);
  }

  /** Its isolate is no more. */
  get isGone(): boolean {
    return this.#state[GATE.OPEN] === -1;
  }

  get isOpen(): boolean {
    return (
      this.#state[GATE.OPEN] === 1 &&
      this.#table.ports.inCrossing &&
      (!this.#left || this.words[BOX.OUT_USED] === 0) &&
      this.#state[GATE.PENDING_COUNT]! + this.#asked.length < GATE.PENDING_MAX
    );
  }

  /** One who cannot wait may enter it now, whether or not this is a crossing. */
  get isOpenNow(): boolean {
    const state = this.#state;
    const hasRoom = this.words[BOX.OUT_USED]! <= BOX.OUT_SIZE / 2;
    return state[GATE.OPEN] === 1 && hasRoom && state[GATE.PENDING_COUNT]! < GATE.PENDING_MAX;
  }

  /** Enters at once. What core has still to take of entries before goes behind what this one answers. */
  enterNow(): void {
    const { words, memory } = this;
    const state = this.#state;
    const used = words[BOX.OUT_USED]!;
    const left = used > 0 ? memory.slice(BOX.OUT, BOX.OUT + used) : undefined;
    const began = Date.now();
    this.enter(this.#table.ports.now);
    if (state[GATE.SLOW] === 1 && this.#mayBeSlow(began)) state[GATE.SLOW] = 0;
    if (left === undefined) return;
    const at = words[BOX.OUT_USED]!;
    // Of more than half a block of new notes the older ones stay.
    const to = at >= 0 && at + used <= BOX.OUT_SIZE ? at : 0;
    memory.set(left, BOX.OUT + to);
    words[BOX.OUT_USED] = to + used;
    this.#left = true;
  }

  /** A busy machine makes a few entries long; that is no reason to do without what they answer. */
  #mayBeSlow(began: number): boolean {
    if (began - this.#slowFrom > PROMPT_WINDOW_MS) {
      this.#slowFrom = began;
      this.#slowMs = 0;
    }
    this.#slowMs += Date.now() - began;
    return this.#slowMs <= PROMPT_SLOW_MS;
  }

  /** Somebody waits for an answer. */
  get isAsked(): boolean {
    return this.#asked.length > 0;
  }

  get isCrowded(): boolean {
    return this.#asked.length >= CROWD || this.#state[GATE.USED]! > CROWDED_BYTES;
  }

  begin(size: number, kind: number, flags: number, token: number, use: number): number {
    const state = this.#state;
    const used = state[GATE.USED]!;
    if (state[GATE.COUNT] === BOX.RECORD_COUNT || used + size > BOX.HEAP_SIZE) return -1;
    this.#at = BOX.HEAP + used;
    this.#wantsAnswer = (flags & RECORD_FLAG.ANSWER) !== 0;
    return beginRecord(this.words, this.#at >> 2, kind, flags, token, use);
  }

  send(token: number, size: number): void {
    const { words } = this;
    const state = this.#state;
    const at = this.#at;
    const range = words[(at >> 2) + RECORD.RANGE_SIZE]!;
    const i = (BOX.RECORDS >> 2) + state[GATE.COUNT]!++ * RECORD_WORDS;
    words[i] = at;
    words[i + 1] = size;
    words[i + 2] = at + size - ((range + 7) & ~7);
    words[i + 3] = range;
    state[GATE.USED] = state[GATE.USED]! + size;
    if (this.#wantsAnswer) this.#asked.push(token);
  }

  /** An answer tells that this one was asked as well, in the entry that has just ended. */
  alsoAsked(token: number): void {
    this.#entered.push(token);
  }

  /** A stream is over; the sandbox hears of it with the next entry, whoever makes it. False: there is no place. */
  end(token: number): boolean {
    const state = this.#state;
    if (state[GATE.OPEN] !== 1 || state[GATE.COUNT] === BOX.RECORD_COUNT) return false;
    const i = (BOX.RECORDS >> 2) + state[GATE.COUNT]!++ * RECORD_WORDS;
    this.words[i] = -1;
    this.words[i + 1] = token;
    return true;
  }

  /** Enters with all records that have gathered, and hands their answers out. */
  enter(now: number): void {
    const state = this.#state;
    const count = state[GATE.COUNT]!;
    const asked = this.#asked;
    const entry = this.next++;
    this.#asked = this.#entered;
    this.#entered = asked;
    this.#times[BOX.NOW / 2] = now;
    state[GATE.ENTRIES]!++;
    state[GATE.RECORDS] = state[GATE.RECORDS]! + count;
    state[GATE.BYTES] = state[GATE.BYTES]! + state[GATE.USED]! + count * RECORD_WORDS * 4;
    state[GATE.COUNT] = state[GATE.USED] = 0;
    const began = Date.now();
    const stopped = !this.#run(count);
    const ms = Date.now() - began;
    // Worth core's attention: it can ask for the thread's CPU time.
    if (ms > state[GATE.LIMIT_MS]! * Math.max(1, count / RECORDS_OF_LIMIT)) state[GATE.SLOW] = 1;
    if (stopped) {
      state[GATE.FAULT] = 1;
      state[GATE.OPEN] = -1;
    }
    this.#take();
    for (let k = 0; k < asked.length; k++) {
      const token = asked[k]!;
      const parked = this.#table.find(token);
      // Some have been answered and ask again already.
      if (parked?.gateOf?.(token & 1) !== this || parked.entryOf?.(token & 1) !== entry) continue;
      if (stopped) parked.onVerdict(token & 1, 0, 0, STATUS.GONE, this);
      else this.#handOver(parked, token);
    }
    while (asked.length > 0) asked.pop();
  }

  #run(count: number): boolean {
    const { insideAt, mark, run } = this.#parts;
    const state = this.#state;
    this.#args[0] = count;
    state[GATE.BEAT]!++;
    this.#beats[insideAt] = mark;
    try {
      run.applySync(undefined, this.#args);
      return true;
    } catch {
      return false;
    } finally {
      this.#beats[insideAt] = 0;
      state[GATE.BEAT]!++;
    }
  }

  /** The crossing ends and there was no way in: whoever waits now waits for core's entry. */
  leave(): void {
    const asked = this.#asked;
    for (let k = 0; k < asked.length; k++) {
      const parked = this.#table.find(asked[k]!);
      if (parked?.gateOf?.(asked[k]! & 1) === this) this.#handOver(parked, asked[k]!);
    }
    while (asked.length > 0) asked.pop();
  }

  #handOver(parked: Parked, token: number): void {
    const state = this.#state;
    state[GATE.PENDING + state[GATE.PENDING_COUNT]!++] = token;
    parked.onLate?.(token & 1);
  }

  /** Nothing of an answer is believed: sizes must fit, and only who waits at this gate gets one. */
  #take(): void {
    const { words } = this;
    const used = words[BOX.OUT_USED]!;
    this.#left = words[BOX.MORE] === 1;
    if (used <= 0 || used > BOX.OUT_SIZE || (used & 7) !== 0) {
      words[BOX.OUT_USED] = 0;
      return;
    }
    let left = false;
    for (let at = BOX.OUT, end = at + used; at + ANSWER_HEAD_SIZE <= end; ) {
      const w = at >> 2;
      const kind = words[w + ANSWER_HEAD.KIND]!;
      const token = words[w + ANSWER_HEAD.TOKEN]!;
      const size = words[w + ANSWER_HEAD.SIZE]!;
      if (size < 0 || size > end - at - ANSWER_HEAD_SIZE) break;
      const whole = ANSWER_HEAD_SIZE + size;
      const parked =
        kind === ANSWER.VERDICT || kind === ANSWER.PART ? this.#table.find(token) : undefined;
      if (parked?.gateOf?.(token & 1) === this) {
        this.#table.deliver(parked, token, at, whole, this);
        words[w + ANSWER_HEAD.KIND] = ANSWER.TAKEN;
      } else left = true;
      at += (whole + 7) & ~7;
    }
    if (left) this.#left = true;
    else {
      words[BOX.OUT_USED] = 0;
      this.#state[GATE.BYTES_OUT] = this.#state[GATE.BYTES_OUT]! + used;
    }
  }
}
