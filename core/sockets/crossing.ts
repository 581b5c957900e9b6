// Hot path: all that passes between a worker's sockets and its isolate (test/bench).
import { WORD } from "../inside/ring.ts";
import { Segments, Slots } from "./segments.ts";

/** This many waiting events are handled at once; fewer wait for the end of the poll phase. */
const BATCH = 64;
/** Rounds of entering the sandboxes in one flush; what they have left to do waits for the next flush. */
const ROUNDS = 16;

/** What a flush enters beside the builtin isolate: a sandbox. */
export interface Visited {
  /** True if it has records to handle. Called after each crossing into the builtin isolate. */
  wantsEntry(): boolean;
  /** Handles all its records in one crossing; the answers come back as events (EVENT.VERDICT). */
  enter(): void;
}

/**
 * The ring of a worker, seen from core. Events gather until the poll phase ends; a flush hands them to the isolate, in as many
 * crossings as the ring has places for, and passes on the commands that each crossing leaves.
 */
export class Crossing {
  readonly ring: SharedArrayBuffer;
  readonly control: Int32Array;
  readonly memory: Buffer;
  readonly segments: Segments;
  readonly slots: Slots;
  readonly counts = { crossings: 0, events: 0 };
  /** Obeys this many commands. */
  onCommands: (count: number) => void = () => {};
  /** A flush has ended: no event waits. */
  onFlushed: () => void = () => {};
  /** The isolate has thrown and is lost; nothing is flushed any more. */
  onLost: (error: unknown) => void = () => {};
  readonly #run: (events: number) => number;
  readonly #clock: Float64Array;
  readonly #events: number;
  readonly #eventCount: number;
  readonly #visited: Visited[] = [];
  /** Slots whose bytes are named by events of this flush. */
  readonly #busySlots: number[] = [];
  #queue = new Int32Array(4096);
  #queued = 0;
  #scheduled = false;
  #running = false;
  #again = false;
  #dead = false;
  #wakeTimer: NodeJS.Timeout | undefined = undefined;
  #wakeAt = Number.POSITIVE_INFINITY;

  /** `run` enters the isolate with a number of events and answers the number of commands. */
  constructor(ring: SharedArrayBuffer, run: (events: number) => number) {
    this.#run = run;
    this.ring = ring;
    const control = new Int32Array(ring);
    this.control = control;
    this.memory = Buffer.from(ring);
    this.#clock = new Float64Array(ring, WORD.NOW * 4, 1);
    const word = (index: number): number => control[index]!;
    this.#events = word(WORD.EVENTS) >> 2;
    this.#eventCount = word(WORD.EVENT_COUNT);
    const segments = Math.floor((word(WORD.SLOTS) - word(WORD.SEGMENTS)) / word(WORD.SEGMENT_SIZE));
    this.segments = new Segments(word(WORD.SEGMENTS), word(WORD.SEGMENT_SIZE), segments);
    const slots = Math.floor((word(WORD.TOTAL) - word(WORD.SLOTS)) / word(WORD.SLOT_SIZE));
    this.slots = new Slots(word(WORD.SLOTS), word(WORD.SLOT_SIZE), slots);
    this.#tick();
  }

  /** True within a flush. */
  get running(): boolean {
    return this.#running;
  }
  /** True after `end`: nobody will take an event. */
  get ended(): boolean {
    return this.#dead;
  }

  visit(visited: Visited): void {
    this.#visited.push(visited);
  }
  leave(visited: Visited): void {
    const at = this.#visited.indexOf(visited);
    if (at >= 0) this.#visited.splice(at, 1);
  }

  // ---- events: they wait in a queue, and each crossing takes as many as the ring has places

  push(kind: number, id: number, offset: number, length: number): void {
    if (this.#queued * 4 === this.#queue.length) {
      const bigger = new Int32Array(this.#queue.length * 2);
      bigger.set(this.#queue);
      this.#queue = bigger;
    }
    const queue = this.#queue;
    const i = this.#queued++ * 4;
    queue[i] = kind;
    queue[i + 1] = id;
    queue[i + 2] = offset;
    queue[i + 3] = length;
    this.counts.events++;
  }

  /** Sees to it that queued events reach the isolate: at the end of the poll phase, or now if there are many. */
  schedule(): void {
    if (this.#running) return;
    if (this.#queued >= BATCH) this.flush();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#onImmediate);
    }
  }

  readonly #onImmediate = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  #tick(): void {
    this.#clock[0] = performance.now();
  }

  /** Enters the isolate without an event: a timer is due, or it was entered outside a flush and has commands. */
  poke(): void {
    this.#again = true;
    this.flush();
  }

  /** As `poke`, at the end of the poll phase. */
  pokeSoon(): void {
    this.#again = true;
    this.schedule();
  }

  flush(): void {
    if (this.#running || this.#dead) return;
    this.#running = true;
    this.#tick();
    const control = this.control;
    let head = 0;
    try {
      for (let round = 0; ; round++) {
        while (head < this.#queued || this.#again) {
          const n = Math.min(this.#eventCount, this.#queued - head);
          const queue = this.#queue;
          for (let k = 0, i = this.#events, j = head * 4; k < n * 4; k++)
            control[i + k] = queue[j + k]!;
          control[WORD.OUT_START] = this.segments.outputStart;
          control[WORD.OUT_END] = this.segments.outputEnd;
          this.counts.crossings++;
          control[WORD.BEAT]!++;
          const commands = this.#run(n);
          control[WORD.BEAT]!++;
          head += Math.min(n, control[WORD.CONSUMED]!);
          this.#again = control[WORD.AGAIN] !== 0;
          this.onCommands(commands);
        }
        head = 0;
        this.#queued = 0;
        // Only here, where no event waits: the memory that events name is used again after the flush.
        if (round === ROUNDS) break;
        const entered = this.#enterVisited();
        if (!entered && this.#queued === 0) break;
      }
    } catch (error) {
      if ((control[WORD.BEAT]! & 1) === 1) control[WORD.BEAT]!++;
      this.#running = false;
      this.end();
      this.onLost(error);
      return;
    }
    this.onFlushed();
    for (let k = 0; k < this.#busySlots.length; k++) this.slots.drop(this.#busySlots[k]!);
    this.#busySlots.length = 0;
    this.segments.resetInput();
    this.#running = false;
    this.#armWake();
    for (const visited of this.#visited) if (visited.wantsEntry()) this.schedule();
  }

  #enterVisited(): boolean {
    let entered = false;
    for (const visited of this.#visited) {
      if (visited.wantsEntry()) {
        entered = true;
        visited.enter();
      }
    }
    return entered;
  }

  #armWake(): void {
    const wakeIn = this.control[WORD.WAKE_IN]!;
    if (wakeIn < 0) return;
    const at = this.#clock[0]! + wakeIn;
    if (at >= this.#wakeAt - 1) return;
    this.#wakeAt = at;
    if (this.#wakeTimer !== undefined) clearTimeout(this.#wakeTimer);
    this.#wakeTimer = setTimeout(this.#onWake, wakeIn);
  }

  /** Behind the poll phase that follows, so that timers of a late thread do not come before what sockets have for it. */
  readonly #onWake = (): void => {
    this.#wakeAt = Number.POSITIVE_INFINITY;
    this.#wakeTimer = undefined;
    this.pokeSoon();
  };

  /** Nothing is flushed from now on. */
  end(): void {
    this.#dead = true;
    if (this.#wakeTimer !== undefined) clearTimeout(this.#wakeTimer);
  }

  // ---- input: the memory that events name. It stays as it is until the flush that delivers them ends

  /** Makes room in the input segment, by a flush if need be. */
  needInput(size: number): void {
    if (!this.segments.hasInput(size)) this.flush();
  }

  /** Copies `n` bytes into input memory, for which there is room; answers their offset. */
  copy(from: Buffer, at: number, n: number): number {
    const offset = this.segments.inputAt;
    from.copy(this.memory, offset, at, at + n);
    // Aligned, so that heads that begin there can be copied eight bytes at a time.
    this.segments.inputAt = (offset + n + 7) & ~7;
    return offset;
  }

  /** Keeps a slot from being read into until this flush ends. */
  holdSlot(slot: number): void {
    this.slots.hold(slot);
    this.#busySlots.push(slot);
  }

  /** Reserves input memory, at a multiple of 8. -1: no room. */
  place(size: number): number {
    const at = (this.segments.inputAt + 7) & ~7;
    if (!this.segments.hasInput(at - this.segments.inputAt + size)) return -1;
    this.segments.inputAt = at + size;
    return at;
  }

  /** Writes a short text into input memory; answers its offset. */
  putText(text: string): number {
    this.needInput(text.length);
    const at = this.segments.inputAt;
    this.memory.write(text, at, "latin1");
    this.segments.inputAt = at + text.length;
    return at;
  }

  // ---- what commands name

  text(offset: number, length: number): string {
    return this.memory.toString("latin1", offset, offset + length);
  }

  /** True if the bytes lie where the isolate may write or was given bytes to read: nothing else is ever sent. */
  isPiece(offset: number, length: number): boolean {
    return length > 0 && (this.segments.holds(offset, length) || this.slots.holds(offset, length));
  }

  /** Keeps the memory that the write commands in [from, end) name from being reused until the returned function is called. */
  hold(from: number, end: number, mayPin: boolean): () => void {
    const slots: number[] = [];
    const segments: number[] = [];
    for (let i = from; i < end; i += 4) {
      const offset = this.control[i + 2]!;
      if (!this.isPiece(offset, this.control[i + 3]!)) continue;
      if (offset >= this.slots.base) {
        const slot = this.slots.of(offset);
        this.slots.hold(slot);
        slots.push(slot);
      } else if (mayPin) {
        const segment = this.segments.of(offset);
        if (!segments.includes(segment)) {
          this.segments.pin(segment);
          segments.push(segment);
        }
      }
    }
    return () => {
      for (const slot of slots) this.slots.drop(slot);
      for (const segment of segments) this.segments.unpin(segment);
    };
  }
}
