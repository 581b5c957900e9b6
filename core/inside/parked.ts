// Hot path: every record to a sandbox and every verdict from one (test/bench/sandbox.ts).
//
// A chain holds a stub (Parked) for each filter that lives in a sandbox. When the chain calls a hook of the stub:
// 1. The stub gets a token from the ParkTable and writes a record through a Door: the gate if open, else core.
// 2. The hook returns a promise, so the stream is parked: nothing moves in this direction until the verdict comes.
// 3. The verdict arrives by token, from the gate or as an event from core. The stub checks it, applies it, settles the promise.
// 4. A stub that finds no room for a record is put on the table's waiting list and retries in a later crossing.
// 5. When the stream ends, its token is released; a late verdict for the old token is ignored.
// The records and verdicts themselves are described in sandbox/layout.ts.
import type { Wide } from "@tsproxy/sdk";
import type { Gate } from "./gate.ts";
import type { HeadGuard } from "./head-guard.ts";
import type { Parts } from "./parts.ts";
import {
  GENERATION_MAX,
  type HookMask,
  makeToken,
  RECORD,
  RECORD_BLOCK_MAX,
  SLOT_MAX,
  slotOf,
} from "./sandbox/layout.ts";

/** Rounds of entering all gates in one crossing, each of which moves a stream on by a sandboxed filter or more. */
const ROUNDS = 16;

/** The part of the ring (and of core) that parked streams use. */
export interface ParkPorts {
  /** The worker's shared memory, which lent chunks and heads lie in. */
  readonly memory: Uint8Array;
  readonly words: Int32Array;
  /** Reserves memory until core has run this crossing's commands. The offset, a multiple of 8; -1: no room now. */
  reserve(size: number): number;
  /** Commands core to take the record in [at, at + size) to the sandbox. */
  park(box: number, token: number, at: number, size: number): void;
  /** Commands core to end the stream of this token (lane bit 0). */
  forget(box: number, token: number): void;
  /** Asks for another crossing, in which `ParkTable.turn` is called. */
  again(): void;
  /** Reports an answer that a sandbox must not give; the stream has been failed. */
  malformed(box: number, reason: string): void;
  /** Reports a promise rejection that no code in that sandbox has handled. */
  uncaught(box: number, error: unknown): void;
  /** Reports what the chain threw when it was handed an answer. */
  thrown(error: unknown): void;
  /** A sandbox that was entered has returned, or was stopped: the watchdog begins to count this isolate's time anew. */
  returned(): void;
  /** Whether a crossing is under way. Within it, bytes lent with its events are valid. */
  readonly inCrossing: boolean;
  /** The ring has room for all commands and bytes that one answer can cause. */
  readonly hasRoom: boolean;
  /** Monotonic milliseconds. */
  readonly now: number;
}

/** Takes records into one sandbox: through core, or by the gate. */
export interface Door extends Wide {
  /** Ranges within this memory need not be copied; all others are copied behind the record. */
  readonly lends: Uint8Array | undefined;
  /**
   * Begins a record of `size` bytes in all (a multiple of 8). Answers the index of its first word; -1: no room. The record must
   * be completed and sent before another one begins.
   */
  begin(size: number, kind: number, flags: number, token: number, use: number): number;
  send(token: number, size: number): void;
}

/** The memory that an answer lies in: the worker's, or a gate's block. */
export type AnswerSource = Pick<Door, "words" | "memory">;

/** One place in the config that uses a sandboxed package. */
export interface ParkedUse {
  readonly box: number;
  readonly use: number;
  /** Hooks that its filters may have, and parts of streams that they may read. */
  hooks: HookMask;
  /** All that the package's source mentions: for streams whose route overrides the config. */
  readonly named?: HookMask;
  /** Limits which headers the package may see and change. Absent: no limit. */
  readonly guard?: HeadGuard | undefined;
  /** The package may neither replace bodies nor write bytes of its own to a connection. */
  readonly keepsBodies?: boolean;
  /** When a hook throws, the stream goes on without the filter (failure policy "open"). */
  readonly failsOpen?: boolean;
  /** Name of the flag in per-route configs that disables the filter for a stream. */
  readonly disabledBy?: string | undefined;
  /** Its filters keep nothing from one hook to the next: a stream whose filter was lost goes on with a new one. */
  stateless?: boolean;
  /** The parts (flags of records) whose new streams keep away from the gate. */
  readonly confined?: Set<number>;
  /** Absent: all of its streams are charged to the use itself. */
  readonly parts?: Parts;
}

/** The chain's half of a filter (or balancer, logger) that lives in a sandbox. */
export interface Parked {
  /** An answer of `size` bytes lies at `at` in `source`; or `status` is not 0, and core itself answers (STATUS). */
  onVerdict(lane: number, at: number, size: number, status: number, source: AnswerSource): void;
  /** Called when there may be room again. False: there is still none. */
  retry(): boolean;
  /** The gate that this lane waits at. Undefined: it waits for core, or not at all. */
  gateOf?(lane: number): Gate | undefined;
  /** The number of the gate's entry that will answer this lane. */
  entryOf?(lane: number): number;
  /** The gate has no answer; it will come through core. */
  onLate?(lane: number): void;
}

/** The ways into one sandbox: through core, which copies records over, and by the gate, if there is one. */
export class Doors {
  readonly core: Door;
  gate: Gate | undefined = undefined;

  constructor(table: ParkTable, box: number) {
    this.core = new CoreDoor(table, box);
  }

  /** The gate, if a new stream may use it now. */
  get open(): Gate | undefined {
    return this.gate?.isOpen === true ? this.gate : undefined;
  }
}

/** The door through core: records are written into the worker's memory and named by PARK commands. */
class CoreDoor implements Door {
  readonly memory: Uint8Array;
  readonly words: Int32Array;
  readonly longs: BigInt64Array;
  readonly lends: Uint8Array;
  readonly #table: ParkTable;
  readonly #box: number;

  constructor(table: ParkTable, box: number) {
    this.#table = table;
    this.#box = box;
    const { memory, words } = table.ports;
    this.memory = this.lends = memory;
    this.words = words;
    this.longs = new BigInt64Array(memory.buffer);
  }

  begin(size: number, kind: number, flags: number, token: number, use: number): number {
    return this.#table.begin(size, kind, flags, token, use);
  }

  send(token: number, size: number): void {
    this.#table.send(this.#box, token, size);
  }
}

/** The parked streams of a worker by their tokens, and the doors into its sandboxes. */
export class ParkTable {
  readonly ports: ParkPorts;
  readonly #parked: (Parked | undefined)[] = [];
  readonly #generations: number[] = [];
  readonly #free: number[] = [];
  /** Slots whose FORGET command core has yet to run. A new stream there would reach the sandbox before it knows the old one's end. */
  #left: number[] = [];
  /** Such slots of the crossing before; they are free when the next one ends. */
  #leftBefore: number[] = [];
  #waiting: Parked[] = [];
  readonly #doors = new Map<number, Doors>();
  #gates: Gate[] = [];
  #at = 0;

  constructor(ports: ParkPorts) {
    this.ports = ports;
  }

  /** The doors of that sandbox. */
  doorsOf(box: number): Doors {
    let doors = this.#doors.get(box);
    if (doors === undefined) {
      doors = new Doors(this, box);
      this.#doors.set(box, doors);
    }
    return doors;
  }

  /** Core has opened a gate to that sandbox, or (undefined) the sandbox has ended. */
  setGate(box: number, gate: Gate | undefined): void {
    if (gate === undefined) this.#doors.delete(box);
    else this.doorsOf(box).gate = gate;
    this.#gates = [...this.#doors.values()].flatMap((doors) => (doors.gate ? [doors.gate] : []));
  }

  /** Called between events: enters the gates if one of them is crowded. */
  relieveGates(): void {
    for (let k = 0; k < this.#gates.length; k++) if (this.#gates[k]!.isCrowded) this.enterGates();
  }

  /** Enters gates until nobody waits at one, at most ROUNDS times. */
  enterGates(): void {
    const gates = this.#gates;
    for (let round = 0, entered = true; entered && round < ROUNDS; round++) {
      entered = false;
      for (let k = 0; k < gates.length; k++) {
        const gate = gates[k]!;
        if (!gate.isAsked || !gate.isOpen || !this.ports.hasRoom) continue;
        gate.enter(this.ports.now);
        entered = true;
      }
    }
  }

  /** Called at the end of a crossing: streams that still wait at a gate are left to core. */
  leaveGates(): void {
    for (let k = 0; k < this.#gates.length; k++) {
      if (this.#gates[k]!.isAsked) this.#gates[k]!.leave();
    }
    if (this.#left.length > 0 || this.#leftBefore.length > 0) this.#freeSlots();
  }

  /** Commands given outside a crossing run after the next one, so slots are free a crossing later. */
  #freeSlots(): void {
    const before = this.#leftBefore;
    for (let k = 0; k < before.length; k++) this.#free.push(before[k]!);
    before.length = 0;
    this.#leftBefore = this.#left;
    this.#left = before;
  }

  /** A token for a filter that is about to send its first record; 0: too many streams. */
  acquire(parked: Parked): number {
    let slot = this.#free.pop();
    if (slot === undefined) {
      slot = this.#parked.length;
      if (slot === SLOT_MAX) return 0;
      this.#generations[slot] = 0;
    }
    // Generation 0 is left out, so that no token is 0.
    const generation = (this.#generations[slot]! % (GENERATION_MAX - 1)) + 1;
    this.#generations[slot] = generation;
    this.#parked[slot] = parked;
    return makeToken(slot, generation);
  }

  /** Ends a stream. `gate`: set if all of its records went by that gate, so that core does not know the token. */
  release(box: number, token: number, gate: Gate | undefined): void {
    const slot = slotOf(token);
    this.#parked[slot] = undefined;
    if (gate !== undefined && (gate.end(token) || gate.isGone)) {
      this.#free.push(slot);
      return;
    }
    this.#left.push(slot);
    this.ports.forget(box, token);
  }

  /** The filter that the token (with any lane bit) belongs to now. */
  find(token: number): Parked | undefined {
    const slot = slotOf(token);
    return makeToken(slot, this.#generations[slot] ?? 0) === (token & ~1)
      ? this.#parked[slot]
      : undefined;
  }

  /** Called by the engine for each verdict event. A negative size is core's own answer (STATUS). */
  onVerdict(token: number, at: number, size: number): void {
    const parked = this.find(token);
    if (parked === undefined || parked.gateOf?.(token & 1) !== undefined) return;
    if (size < 0) parked.onVerdict(token & 1, 0, 0, -size, this.ports);
    else parked.onVerdict(token & 1, at, size, 0, this.ports);
  }

  /** Called by a gate with an answer that lies in its block. */
  deliver(parked: Parked, token: number, at: number, size: number, gate: AnswerSource): void {
    try {
      parked.onVerdict(token & 1, at, size, 0, gate);
    } catch (error) {
      this.ports.thrown(error);
    }
  }

  /** `parked` found no room for a record: its `retry` is called in a later crossing. */
  wait(parked: Parked): void {
    if (this.#waiting.length === 0) this.ports.again();
    this.#waiting.push(parked);
  }

  get wantsTurn(): boolean {
    return this.#waiting.length > 0;
  }

  /** Lets the filters on the waiting list retry, in order, until one finds no room. */
  turn(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0) return;
    this.#waiting = [];
    for (let k = 0; k < waiting.length; k++) {
      if (!waiting[k]!.retry()) {
        this.#waiting.push(...waiting.slice(k));
        this.ports.again();
        return;
      }
    }
  }

  /** `Door.begin`, through core. */
  begin(size: number, kind: number, flags: number, token: number, use: number): number {
    if (size > RECORD_BLOCK_MAX) return -1;
    const at = this.ports.reserve(size);
    if (at < 0) return -1;
    this.#at = at;
    return beginRecord(this.ports.words, at >> 2, kind, flags, token, use);
  }

  send(box: number, token: number, size: number): void {
    this.ports.park(box, token, this.#at, size);
  }
}

/** Writes the head of a record without a range at word `w`; answers `w`. */
export function beginRecord(
  words: Int32Array,
  w: number,
  kind: number,
  flags: number,
  token: number,
  use: number,
): number {
  words[w] = kind | (flags << 8);
  words[w + RECORD.TOKEN] = token;
  words[w + RECORD.USE] = use;
  words[w + RECORD.RANGE_AT] = 0;
  words[w + RECORD.RANGE_SIZE] = 0;
  words[w + RECORD.ARGUMENT] = 0;
  return w;
}

/** Size in bytes of a record with `payload` bytes behind its head and a tail of `range` bytes. */
export const recordSize = (payload: number, range: number): number =>
  ((RECORD.PAYLOAD * 4 + payload + 7) & ~7) + ((range + 7) & ~7);

/**
 * Answers a function from a hook mask to a subclass of `base` that has only the methods of those hooks. Equal masks share one
 * class, since property access slows down with every further class that a call site sees.
 */
export function stubClasses<Base extends new (...args: never[]) => object>(
  base: Base,
  methods: readonly (readonly [bit: HookMask, name: string, method: unknown])[],
): (hooks: HookMask) => Base {
  const known = new Map<HookMask, Base>();
  return (hooks) => {
    let stub = known.get(hooks);
    if (stub === undefined) {
      const Constructor = base as unknown as new (...args: unknown[]) => object;
      stub = class Stub extends Constructor {} as unknown as Base;
      const prototype = stub.prototype as Record<string, unknown>;
      for (const [bit, name, method] of methods) if ((hooks & bit) !== 0) prototype[name] = method;
      known.set(hooks, stub);
    }
    return stub;
  };
}
