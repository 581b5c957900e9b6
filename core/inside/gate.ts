// Hot path: sandboxes that are entered within a crossing (test/bench/sandbox.ts).
import { beginRecord, type Door, type Parked, type ParkTable } from "./parked.ts";
import {
  ANSWER,
  ANSWER_HEAD,
  ANSWER_HEAD_SIZE,
  BOX,
  baseOf,
  GATE,
  RECORD,
  RECORD_FLAG,
  RECORD_WORDS,
  RECORDS_OF_LIMIT,
  STATUS,
  unbegunIn,
} from "./sandbox/layout.ts";

/**
 * With this many waiting streams, or this many bytes in the block, the gate is entered before the next event is handled, so that
 * the streams' memory is still in the CPU's caches.
 */
const CROWDED_TOKENS = 20;
const CROWDED_BYTES = (BOX.HEAP_SIZE * 3) / 4;

/** Slow `enterNow` calls may take so many milliseconds of wall-clock time in each window; beyond that, core shuts the gate. */
const PROMPT_SLOW_MS = 500;
const PROMPT_WINDOW_MS = 2000;

const NOBODY: ReadonlySet<number> = new Set();

/** What core lends to a gate. */
export interface GateParts {
  /** The sandbox's block. */
  readonly box: SharedArrayBuffer;
  /** Int32 words, indexed by GATE. */
  readonly state: SharedArrayBuffer;
  /**
   * The thread's heartbeat. While the thread is inside the sandbox, the gate sets the word `insideAt` to `mark`, the number of
   * the sandbox's box, so that the watchdog knows which sandbox hangs. The word `turnsAt` grows with each entry of some length.
   */
  readonly beats: SharedArrayBuffer;
  readonly insideAt: number;
  readonly turnsAt: number;
  readonly mark: number;
  /** Enters the sandbox: `run` of sandbox/main.ts. Throws when the sandbox was stopped. */
  readonly run: { applySync(receiver: undefined, args: readonly [number]): void };
}

/**
 * The chain's direct way into one sandbox, past core. Its life within one crossing:
 * 1. `begin` and `send` write records straight into the sandbox's block; the gate notes which tokens want an answer.
 * 2. After all events, or earlier if the gate is crowded, `enter` runs the sandbox with all gathered records.
 * 3. `#take` hands each verdict to its stream, which goes on while the bytes lent to it are still valid. Streams may send again.
 * 4. A token without an answer (its hook returned a promise) goes to GATE.PENDING: core delivers that answer later.
 * 5. At the end of the crossing `leave` does the same with tokens that were not entered at all.
 * Answers that are not for a stream of this gate (logs, stats, fetches) stay in the block for core. Core and the chain never
 * enter at the same time; core opens and shuts the gate by GATE.OPEN, and shuts it after slow entries and faults.
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
  /** Number of the next entry, the one that records sent now belong to. */
  next = 1;
  #at = 0;
  #wantsAnswer = false;
  /** The last entry left answers in the block that core must take before the next entry. */
  #leftForCore = false;
  /** Start of the window of PROMPT_WINDOW_MS, and the milliseconds that slow `enterNow` calls have taken in it. */
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

  /** The sandbox's isolate has ended. */
  get isGone(): boolean {
    return this.#state[GATE.OPEN] === -1;
  }

  /** A stream may send a record here, and the sandbox will be entered in this crossing. */
  get isOpen(): boolean {
    return (
      this.#state[GATE.OPEN] === 1 &&
      this.#table.ports.inCrossing &&
      (!this.#leftForCore || this.words[BOX.OUT_USED] === 0) &&
      this.#state[GATE.PENDING_COUNT]! + this.#asked.length < GATE.PENDING_MAX
    );
  }

  /** A caller that cannot wait (a balancer) may call `enterNow`, even outside a crossing. */
  get isOpenNow(): boolean {
    const state = this.#state;
    const hasRoom = this.words[BOX.OUT_USED]! <= BOX.OUT_SIZE / 2;
    return state[GATE.OPEN] === 1 && hasRoom && state[GATE.PENDING_COUNT]! < GATE.PENDING_MAX;
  }

  /** Enters at once. Answers of earlier entries that core has yet to take are kept, behind the new ones. */
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
    // If both do not fit, the older answers stay and the new ones, which the gate has already looked through, are dropped.
    const to = at >= 0 && at + used <= BOX.OUT_SIZE ? at : 0;
    memory.set(left, BOX.OUT + to);
    words[BOX.OUT_USED] = to + used;
    this.#leftForCore = true;
  }

  /** A few slow entries are normal on a busy machine and do not shut the gate. */
  #mayBeSlow(began: number): boolean {
    if (began - this.#slowFrom > PROMPT_WINDOW_MS) {
      this.#slowFrom = began;
      this.#slowMs = 0;
    }
    this.#slowMs += Date.now() - began;
    return this.#slowMs <= PROMPT_SLOW_MS;
  }

  /** A record that wants an answer has been sent since the last entry. */
  get isAsked(): boolean {
    return this.#asked.length > 0;
  }

  get isCrowded(): boolean {
    return this.#asked.length >= CROWDED_TOKENS || this.#state[GATE.USED]! > CROWDED_BYTES;
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

  /** Called while answers are handed out: the follower behind `token` was called in the entry that has just ended, too. */
  alsoAsked(token: number): void {
    this.#entered.push(token);
  }

  /** Records a stream's end for the next entry, the chain's or core's. False: no room, or the gate is shut. */
  end(token: number): boolean {
    const state = this.#state;
    if (state[GATE.OPEN] !== 1 || state[GATE.COUNT] === BOX.RECORD_COUNT) return false;
    const i = (BOX.RECORDS >> 2) + state[GATE.COUNT]!++ * RECORD_WORDS;
    this.words[i] = -1;
    this.words[i + 1] = token;
    // Core looks for the account here.
    this.words[i + 2] = this.words[i + 3] = 0;
    return true;
  }

  /** Enters the sandbox with all gathered records, and hands out the answers. */
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
    const unbegun = stopped ? this.#unbegun(count) : NOBODY;
    const ms = Date.now() - began;
    if (ms > 0) this.#beat();
    // Tells core, which alone can compare this with the thread's CPU time.
    if (ms > state[GATE.LIMIT_MS]! * Math.max(1, count / RECORDS_OF_LIMIT)) state[GATE.SLOW] = 1;
    if (stopped) {
      state[GATE.FAULT] = 1;
      state[GATE.OPEN] = -1;
    }
    this.#take();
    for (let k = 0; k < asked.length; k++) {
      const token = asked[k]!;
      const parked = this.#table.find(token);
      // Streams that were answered may already have sent a record for the next entry; those are skipped.
      if (parked?.gateOf?.(token & 1) !== this || parked.entryOf?.(token & 1) !== entry) continue;
      if (!stopped) this.#handOver(parked, token);
      else
        parked.onVerdict(
          token & 1,
          0,
          0,
          unbegun.has(baseOf(token)) ? STATUS.AGAIN : STATUS.GONE,
          this,
        );
    }
    while (asked.length > 0) asked.pop();
  }

  /** Enters the sandbox with `count` records. False: it was stopped. An unhandled promise rejection is only reported. */
  #run(count: number): boolean {
    const { insideAt, mark, run } = this.#parts;
    const state = this.#state;
    this.#args[0] = count;
    state[GATE.BEAT]!++;
    this.#beats[insideAt] = mark;
    this.words[BOX.RAN] = 0;
    try {
      run.applySync(undefined, this.#args);
      return true;
    } catch (error) {
      if (this.words[BOX.RAN] !== 1) return false;
      this.#table.ports.uncaught(mark, error);
      return true;
    } finally {
      this.#beats[insideAt] = 0;
      state[GATE.BEAT]!++;
    }
  }

  /** Each entry is bounded by its own time box: many in one crossing are no hang of the chain's isolate, or of the thread. */
  #beat(): void {
    this.#table.ports.returned();
    this.#beats[this.#parts.turnsAt]!++;
  }

  /** Streams of which this entry has left all records alone when it was stopped. */
  #unbegun(count: number): ReadonlySet<number> {
    return this.words[BOX.RAN] === 1
      ? NOBODY
      : unbegunIn(this.words, this.words[BOX.BEGUN]!, count);
  }

  /** The crossing ends without an entry for the latest records: core will enter the sandbox and answer them. */
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

  /** Hands verdicts to their streams. Answers are untrusted: sizes are checked, and the stream must wait at this gate. */
  #take(): void {
    const { words } = this;
    const used = words[BOX.OUT_USED]!;
    this.#leftForCore = words[BOX.MORE] === 1;
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
    if (left) this.#leftForCore = true;
    else {
      words[BOX.OUT_USED] = 0;
      this.#state[GATE.BYTES_OUT] = this.#state[GATE.BYTES_OUT]! + used;
    }
  }
}
