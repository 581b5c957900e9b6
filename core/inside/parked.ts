// Hot path: every record to a sandbox and every verdict from one (test/bench/sandbox.ts).
import type { Wide } from "@tsproxy/sdk";
import type { Gate } from "./gate.ts";
import type { HeadGuard } from "./head-guard.ts";
import {
  GENERATION_MAX,
  type HookMask,
  makeToken,
  RECORD,
  RECORD_BLOCK_MAX,
  SLOT_MAX,
  slotOf,
} from "./sandbox/layout.ts";

/** Entries of one gate in a crossing: as many filters of one package may stand in a chain and pass streams on within it. */
const ROUNDS = 16;

/** What the ring lends to parked streams. */
export interface ParkPorts {
  /** The worker's memory: the same object that lent chunks and heads lie in. */
  readonly memory: Uint8Array;
  readonly words: Int32Array;
  /** Offset of room (a multiple of 8) that stays as it is until core has run this crossing's commands; -1: none for now. */
  reserve(size: number): number;
  /** A record lies at [at, at + size). */
  park(box: number, token: number, at: number, size: number): void;
  /** The stream behind this token (of lane 0) is over. */
  forget(box: number, token: number): void;
  /** `ParkTable.turn` is to be called in another crossing: there was no room. */
  again(): void;
  /** A sandbox answered what it must not: its stream has been failed. */
  malformed(box: number, reason: string): void;
  /** The chain threw when it was handed an answer. */
  thrown(error: unknown): void;
  /** Gates may be entered before the bytes of the present event go away. */
  readonly inCrossing: boolean;
  /** True while what a stream does on an answer surely fits. */
  readonly hasRoom: boolean;
  /** Monotonic milliseconds. */
  readonly now: number;
}

/** A way for records into one sandbox. */
export interface Door extends Wide {
  /** Ranges may stay where they lie in this memory; elsewhere they are copied behind the record. */
  readonly lends: Uint8Array | undefined;
  /** Begins a record of `size` bytes in all (a multiple of 8); the word it begins at, or -1. Nothing else before `send`. */
  begin(size: number, kind: number, flags: number, token: number, use: number): number;
  send(token: number, size: number): void;
}

/** Where answers lie. */
export type AnswerSource = Pick<Door, "words" | "memory">;

/** A use of a sandboxed package. */
export interface ParkedUse {
  readonly box: number;
  readonly use: number;
  /** What its filters may have and read. */
  hooks: HookMask;
  /** What the package's source names: for streams whose route has a config of its own. */
  readonly named?: HookMask;
  /** What of heads may be seen and changed. Absent: all. */
  readonly guard?: HeadGuard | undefined;
  /** It may not replace bodies, nor write bytes of its own to a connection. */
  readonly keepsBodies?: boolean;
  /** Where a hook of it throws, the stream goes on without it. */
  readonly failsOpen?: boolean;
  /** A flag of per-route configs that takes the filter out of a stream. */
  readonly disabledBy?: string | undefined;
}

/** A filter whose other half lives in a sandbox. */
export interface Parked {
  /** `at`: the answer in `source`. `status`: 0, or core's own answer (STATUS). */
  onVerdict(lane: number, at: number, size: number, status: number, source: AnswerSource): void;
  /** There may be room now. False: still none. */
  retry(): boolean;
  /** The gate that this lane waits for. */
  gateOf?(lane: number): Gate | undefined;
  /** The number of the entry that it waits for there. */
  entryOf?(lane: number): number;
  /** It was entered, and the answer will come by way of core. */
  onLate?(lane: number): void;
}

/** The ways into one sandbox: through core, which copies records over; and straight, while it has one. */
export class Doors {
  readonly core: Door;
  gate: Gate | undefined = undefined;

  constructor(table: ParkTable, box: number) {
    this.core = new CoreDoor(table, box);
  }

  /** For whoever begins now. */
  get open(): Gate | undefined {
    return this.gate?.isOpen === true ? this.gate : undefined;
  }
}

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

/** The parked streams of a worker by their tokens. */
export class ParkTable {
  readonly ports: ParkPorts;
  readonly #parked: (Parked | undefined)[] = [];
  readonly #generations: number[] = [];
  readonly #free: number[] = [];
  #waiting: Parked[] = [];
  readonly #doors = new Map<number, Doors>();
  #gates: Gate[] = [];
  #at = 0;

  constructor(ports: ParkPorts) {
    this.ports = ports;
  }

  /** The ways into that box. */
  doorsOf(box: number): Doors {
    let doors = this.#doors.get(box);
    if (doors === undefined) {
      doors = new Doors(this, box);
      this.#doors.set(box, doors);
    }
    return doors;
  }

  /** From here on the chain may enter that box by itself, as far as the gate says; undefined: the box is no more. */
  setGate(box: number, gate: Gate | undefined): void {
    if (gate === undefined) this.#doors.delete(box);
    else this.doorsOf(box).gate = gate;
    this.#gates = [...this.#doors.values()].flatMap((doors) => (doors.gate ? [doors.gate] : []));
  }

  /** Enters gates before the next event, if the block of one is nearly full. */
  relieveGates(): void {
    for (let k = 0; k < this.#gates.length; k++) if (this.#gates[k]!.isCrowded) this.enterGates();
  }

  /** Enters gates until nobody waits for one. */
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

  /** The crossing ends: who still waits for a gate waits for core. */
  leaveGates(): void {
    for (let k = 0; k < this.#gates.length; k++) {
      if (this.#gates[k]!.isAsked) this.#gates[k]!.leave();
    }
  }

  /** A token for a filter that is about to send its first record; 0: there are too many. */
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

  /** `gate`: the one that the stream has never left. */
  release(box: number, token: number, gate: Gate | undefined): void {
    const slot = slotOf(token);
    this.#parked[slot] = undefined;
    this.#free.push(slot);
    if (gate === undefined || (!gate.end(token) && !gate.isGone)) this.ports.forget(box, token);
  }

  /** Whose token it is now. */
  find(token: number): Parked | undefined {
    const slot = slotOf(token);
    return makeToken(slot, this.#generations[slot] ?? 0) === (token & ~1)
      ? this.#parked[slot]
      : undefined;
  }

  /** Called by the event loop. A negative size is a status of core's own. */
  onVerdict(token: number, at: number, size: number): void {
    const parked = this.find(token);
    if (parked === undefined || parked.gateOf?.(token & 1) !== undefined) return;
    if (size < 0) parked.onVerdict(token & 1, 0, 0, -size, this.ports);
    else parked.onVerdict(token & 1, at, size, 0, this.ports);
  }

  /** An answer that lies at a gate. */
  deliver(parked: Parked, token: number, at: number, size: number, gate: AnswerSource): void {
    try {
      parked.onVerdict(token & 1, at, size, 0, gate);
    } catch (error) {
      this.ports.thrown(error);
    }
  }

  /** Someone found no room: it is asked again in a later crossing. */
  wait(parked: Parked): void {
    if (this.#waiting.length === 0) this.ports.again();
    this.#waiting.push(parked);
  }

  get wantsTurn(): boolean {
    return this.#waiting.length > 0;
  }

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

  /** Begins a record of `size` bytes in all (a multiple of 8); the word it begins at, or -1. Nothing else before `send`. */
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

/** Bytes of a record with `payload` bytes behind its head and a tail of `range` bytes. */
export const recordSize = (payload: number, range: number): number =>
  ((RECORD.PAYLOAD * 4 + payload + 7) & ~7) + ((range + 7) & ~7);

/**
 * By the hooks that a package has: `Base` with their methods. One class for all that have the same: objects of many classes are
 * slow to look into.
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
