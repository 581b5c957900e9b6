// Hot path: rate limits take from these for every request.

/**
 * State in memory that all workers share and that outlives reloads. A definition declares it (`shared`), or `setup` asks for it by
 * name (`cx.cell`): the same name at the same place of the config is the same cell, in every worker and generation. Cells are
 * lock-free, so a worker that dies in the middle of an update holds nobody up.
 */
export interface CellSpec<T> {
  /** What lies in it: cells of two kinds are two cells, though they have one name. */
  readonly kind: string;
  readonly bytes: number;
  /** `words` and the views beside it lie over the same memory; `at` counts bytes and is a multiple of 8. */
  open(memory: CellMemory, at: number): T;
}

/** The memory that cells lie in: one buffer, seen as words, floats and longs. */
export interface CellMemory {
  readonly words: Int32Array;
  readonly floats: Float64Array;
  readonly longs: BigInt64Array;
  /** Milliseconds on a clock that all workers share. */
  now(): number;
  /** Two secret numbers that keys are hashed with, so that a client who picks keys cannot make them collide. */
  readonly seeds: readonly [number, number];
  /** Who opens cells through this object. Absent: the only one there is. */
  readonly holder?: CellHolder;
}

/** Who opens a cell: what is taken for a holder that is lost can be given back. */
export interface CellHolder {
  /** From 0. */
  readonly worker: number;
  /** A number that no other isolate of the process has had; those of one thread have the upper half in common. */
  readonly isolate: number;
}

/** What `cx.shared` gives for a definition's `shared`. */
export type SharedCells = Readonly<Record<string, CellSpec<unknown>>>;
/** The cells themselves, under the names of their specs. */
export type OpenCells<C extends SharedCells> = {
  readonly [K in keyof C]: C[K] extends CellSpec<infer T> ? T : never;
};

// Core takes `Atomics` out of sandboxes after this module has been loaded.
const { add, load, store, compareExchange } = Atomics;
const scratchFloat = new Float64Array(1);
const scratchLong = new BigInt64Array(scratchFloat.buffer);

/** A whole number of 32 bits. */
export interface SharedCounter {
  readonly value: number;
  /** Answers the new value. */
  add(n: number): number;
  set(value: number): void;
  /** Adds one unless that would pass `max`. */
  acquire(max: number): boolean;
  release(): void;
}

/** A cell that is one SharedCounter. */
export function counter(): CellSpec<SharedCounter> {
  return {
    kind: "counter",
    bytes: 8,
    open({ words }, at) {
      const i = at >> 2;
      return {
        get value() {
          return load(words, i);
        },
        add: (n) => (add(words, i, n) + n) | 0,
        set: (value) => void store(words, i, value),
        acquire(max) {
          for (;;) {
            const now = load(words, i);
            if (now >= max) return false;
            if (compareExchange(words, i, now, now + 1) === now) return true;
          }
        },
        release: () => void add(words, i, -1),
      };
    },
  };
}

/** Counts what is held at the moment. */
export interface SharedHolds {
  /** How many all workers hold together. */
  readonly value: number;
  /** Takes one unless that would pass `max`. */
  acquire(max: number): boolean;
  release(): void;
}

/** Workers past this many share the last one's place in the ledger, and give nothing back when one of them dies. */
const HOLDERS_MAX = 64;

/**
 * A count of what is held now: active requests, open connections. Beside the total stands how much of it each worker holds, so that
 * what an isolate held when it died is given back by the isolate that takes its place. (Not exact in sandboxes: the old one and the new
 * one may hold at the same time.)
 */
export function held(): CellSpec<SharedHolds> {
  return {
    kind: "held",
    bytes: 8 + HOLDERS_MAX * 8,
    open({ words, holder = { worker: 0, isolate: 1 } }, at) {
      const total = at >> 2;
      const isKept = holder.worker < HOLDERS_MAX - 1;
      const own = total + 2 + Math.min(holder.worker, HOLDERS_MAX - 1) * 2;
      const count = own + 1;
      // Further uses and generations in the same isolate go on counting where they are.
      if (isKept && load(words, own) !== holder.isolate) {
        add(words, total, -load(words, count));
        store(words, count, 0);
        store(words, own, holder.isolate);
      }
      return {
        get value() {
          return load(words, total);
        },
        acquire(max) {
          for (;;) {
            const now = load(words, total);
            if (now >= max) return false;
            if (compareExchange(words, total, now, now + 1) !== now) continue;
            add(words, count, 1);
            return true;
          }
        },
        release() {
          add(words, count, -1);
          add(words, total, -1);
        },
      };
    },
  };
}

/** How fast tokens come: `tokensPerFill` each `fillIntervalMs`, at most `maxTokens`. They trickle in evenly, as in Envoy. */
export interface BucketRate {
  readonly maxTokens: number;
  readonly tokensPerFill: number;
  readonly fillIntervalMs: number;
}

/** Tokens that all workers take from. */
export interface TokenBucket {
  /** Takes so many (1 if absent), or none. False: there were not enough. */
  take(tokens?: number): boolean;
  /** Whole tokens that are there. */
  readonly remaining: number;
  /** Milliseconds until there is one; 0 if there is. */
  readonly waitMs: number;
}

/** One bucket, full when it is new. */
export function tokenBucket(rate: BucketRate): CellSpec<TokenBucket> {
  const pace = paceOf(rate);
  return {
    kind: "bucket",
    bytes: 8,
    open: (memory, at) => ({
      take: (tokens = 1) => take(memory, at >> 3, pace, tokens),
      get remaining() {
        return tokensAt(memory, at >> 3, pace);
      },
      get waitMs() {
        return waitAt(memory, at >> 3, pace);
      },
    }),
  };
}

/** Milliseconds that a token takes, and that a full bucket takes. */
interface Pace {
  readonly token: number;
  readonly full: number;
  readonly max: number;
}

function paceOf({ maxTokens, tokensPerFill, fillIntervalMs }: BucketRate): Pace {
  const token = fillIntervalMs / tokensPerFill;
  return { token, full: token * maxTokens, max: maxTokens };
}

/** A moment that lies further ahead than this means that the clock was set back; less is another thread's reading of it. */
const CLOCK_JUMP_MS = 1000;
/** Tolerance: sums of fractions of a millisecond do not come out even. */
const ROUNDING_MS = 1e-3;

/**
 * A bucket is stored as one number: the moment at which it would have been empty, had it been filled evenly ever since (GCRA's
 * theoretical arrival time, less the burst).
 */
function emptyAt(floats: Float64Array, i: number, pace: Pace, now: number): number {
  const at = floats[i]!;
  if (at > now + CLOCK_JUMP_MS) return now;
  return Math.max(at, now - pace.full);
}

function take(memory: CellMemory, i: number, pace: Pace, tokens: number): boolean {
  const { floats } = memory;
  for (;;) {
    const seen = floats[i]!;
    const now = memory.now();
    const next = emptyAt(floats, i, pace, now) + tokens * pace.token;
    if (next > now + ROUNDING_MS) return false;
    if (replace(memory.longs, i, seen, next)) return true;
  }
}

function tokensAt({ floats, now }: CellMemory, i: number, pace: Pace): number {
  const at = now();
  const tokens = (at - emptyAt(floats, i, pace, at) + ROUNDING_MS) / pace.token;
  return Math.max(0, Math.min(pace.max, Math.floor(tokens)));
}

function waitAt({ floats, now }: CellMemory, i: number, pace: Pace): number {
  const at = now();
  return Math.max(0, emptyAt(floats, i, pace, at) + pace.token - at - ROUNDING_MS);
}

/** Compare-and-set of a float, by its bits. */
function replace(longs: BigInt64Array, i: number, seen: number, next: number): boolean {
  scratchFloat[0] = seen;
  const before = scratchLong[0]!;
  scratchFloat[0] = next;
  return compareExchange(longs, i, before, scratchLong[0]!) === before;
}

/** Buckets by key. A bucket that is full again is as good as none: when the table is full, such places are taken first. */
export interface TokenBuckets {
  take(key: string, tokens?: number): boolean;
  remaining(key: string): number;
  waitMs(key: string): number;
}

/** The rate is that of each key. */
export interface TokenBucketsOptions extends BucketRate {
  /** Where more keys than this are in use, the bucket that has been left alone longest is forgotten for a new one. */
  readonly maxKeys: number;
}

/** A cell with a bucket for each key, full when the key is new. */
export function tokenBuckets(options: TokenBucketsOptions): CellSpec<TokenBuckets> {
  const pace = paceOf(options);
  const table = new TableShape(options.maxKeys);
  return {
    kind: "buckets",
    bytes: table.bytes,
    open(memory, at) {
      const keys = new Table(memory, at, table);
      const place = (key: string): number => keys.place(key, memory.now() - pace.full);
      return {
        take: (key, tokens = 1) => take(memory, place(key), pace, tokens),
        remaining: (key) => tokensAt(memory, place(key), pace),
        waitMs: (key) => waitAt(memory, place(key), pace),
      };
    },
  };
}

/** Numbers by key, each forgotten `ttlMs` after it was made. */
export interface TtlMap {
  get(key: string): number | undefined;
  /** Starts its time anew. */
  set(key: string, value: number): void;
  /** Answers the new value; a key that is not there begins with 0, and its time with this call. */
  add(key: string, n: number): number;
  delete(key: string): void;
}

/** Where more keys than `maxKeys` are in use, the one that would end first is forgotten for a new one. */
export interface TtlMapOptions {
  readonly maxKeys: number;
  readonly ttlMs: number;
}

/** A cell with a number for each key. */
export function ttlMap({ maxKeys, ttlMs }: TtlMapOptions): CellSpec<TtlMap> {
  const table = new TableShape(maxKeys, 2);
  return {
    kind: "map",
    bytes: table.bytes,
    open(memory, at) {
      const keys = new Table(memory, at, table);
      const { floats, longs } = memory;
      const place = (key: string): number => keys.place(key, memory.now());
      // The first float of an entry is when it ends, which is also what eviction goes by.
      const begin = (i: number, value: number): void => {
        floats[i + 1] = value;
        floats[i] = memory.now() + ttlMs;
      };
      return {
        get(key) {
          const i = keys.find(key);
          return i < 0 || floats[i]! <= memory.now() ? undefined : floats[i + 1]!;
        },
        set: (key, value) => begin(place(key), value),
        add(key, n) {
          const i = place(key);
          for (let spins = 0; ; ) {
            const end = floats[i]!;
            const now = memory.now();
            if (end <= now) {
              // One thread wins and empties the entry. The others wait for it, but not for ever: it may have died.
              if (end === EMPTYING && spins++ < SPINS_MAX) continue;
              if (!replace(longs, i, end, EMPTYING)) continue;
              store(longs, i + 1, 0n);
              replace(longs, i, EMPTYING, now + ttlMs);
              continue;
            }
            const seen = floats[i + 1]!;
            if (replace(longs, i + 1, seen, seen + n)) return seen + n;
          }
        },
        delete(key) {
          const i = keys.find(key);
          if (i >= 0) floats[i] = 0;
        },
      };
    },
  };
}

/** Texts of which the first few are in, and the others are not. */
export interface FirstTexts {
  /** Whether the text is one of them; it becomes one if there is room. */
  admits(text: string): boolean;
}

/**
 * A cell that admits the first `max` texts that any worker brings, for as long as it lives. (Of two texts whose hashes are alike, one
 * in four thousand million, the second comes in with the first.)
 */
export function firstTexts(max: number): CellSpec<FirstTexts> {
  // Half of the places stay empty, so that a search ends soon.
  const places = 2 * max + 1;
  return {
    kind: `first ${max}`,
    bytes: 8 + 8 * (max + 1),
    open({ words, seeds }, at) {
      const count = at >> 2;
      const first = count + 2;
      const acquire = (): boolean => {
        for (;;) {
          const now = load(words, count);
          if (now >= max) return false;
          if (compareExchange(words, count, now, now + 1) === now) return true;
        }
      };
      return {
        admits(text) {
          const wanted = hash(text, seeds[0]) || 1;
          for (let k = (wanted >>> 0) % places; ; k = (k + 1) % places) {
            const found = load(words, first + k);
            if (found === wanted) return true;
            if (found !== 0) continue;
            if (!acquire()) return false;
            const before = compareExchange(words, first + k, 0, wanted);
            if (before === 0) return true;
            // Another worker has taken the place.
            add(words, count, -1);
            if (before === wanted) return true;
          }
        },
      };
    },
  };
}

const EMPTYING = -1;
const SPINS_MAX = 1_000_000;
const PROBES = 16;
/** A table of this many keys or fewer has a place for each, and forgets none before its turn. */
const EXACT_MAX = 64;

/** Entries of a table: the key's hash (8 bytes), then `values` floats, of which the first tells how old the entry is. */
class TableShape {
  readonly slots: number;
  readonly probes: number;
  /** In units of 8 bytes. */
  readonly stride: number;
  readonly bytes: number;

  constructor(maxKeys: number, values = 1) {
    let slots = PROBES;
    // A table three quarters full finds a place for nearly every key within its probes.
    while (slots * 0.75 < maxKeys) slots *= 2;
    const exact = maxKeys <= EXACT_MAX;
    this.slots = exact ? maxKeys : slots;
    this.probes = exact ? maxKeys : PROBES;
    this.stride = 1 + values;
    this.bytes = this.slots * this.stride * 8;
  }
}

class Table {
  readonly #memory: CellMemory;
  readonly #at: number;
  readonly #shape: TableShape;

  constructor(memory: CellMemory, at: number, shape: TableShape) {
    this.#memory = memory;
    this.#at = at >> 3;
    this.#shape = shape;
  }

  /** Index of the key's first float, or -1. */
  find(key: string): number {
    const { words, seeds } = this.#memory;
    const a = hash(key, seeds[0]) || 1;
    const b = hash(key, seeds[1]);
    for (let k = 0; k < this.#shape.probes; k++) {
      const i = this.#slot(a, k);
      const first = words[i * 2]!;
      if (first === a && words[i * 2 + 1] === b) return i + 1;
      if (first === 0) return -1;
    }
    return -1;
  }

  /** The same; a key that is not there takes a free place, or that of the entry that is oldest by its first float. */
  place(key: string, stale: number): number {
    const { words, floats, longs, seeds } = this.#memory;
    const a = hash(key, seeds[0]) || 1;
    const b = hash(key, seeds[1]);
    for (;;) {
      let oldest = -1;
      let oldestAt = Number.POSITIVE_INFINITY;
      for (let k = 0; k < this.#shape.probes; k++) {
        const i = this.#slot(a, k);
        const first = words[i * 2]!;
        if (first === a && words[i * 2 + 1] === b) return i + 1;
        const at = first === 0 ? Number.NEGATIVE_INFINITY : floats[i + 1]!;
        if (at < oldestAt) {
          oldest = i;
          oldestAt = at;
        }
        if (first === 0) break;
      }
      const before = load(longs, oldest);
      if (compareExchange(longs, oldest, before, BigInt.asIntN(64, pair(a, b))) !== before)
        continue;
      if (oldestAt > stale)
        for (let k = 1; k < this.#shape.stride; k++) store(longs, oldest + k, 0n);
      return oldest + 1;
    }
  }

  #slot(a: number, probe: number): number {
    const { slots, stride, probes } = this.#shape;
    const slot = slots === probes ? probe : ((a >>> 4) + probe) & (slots - 1);
    return this.#at + slot * stride;
  }
}

const isLittle = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
function pair(a: number, b: number): bigint {
  const [low, high] = isLittle ? [a, b] : [b, a];
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

/** Murmur-like, seeded. */
export function hash(text: string, seed: number): number {
  let h = seed ^ Math.imul(text.length, 0x9e3779b1);
  for (let k = 0; k < text.length; k++) {
    h = Math.imul(h ^ text.charCodeAt(k), 0x5bd1e995);
    h ^= h >>> 15;
  }
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) | 0;
}

const HEADER = { LOCK: 0, USED: 1, SEED_A: 2, SEED_B: 3, ENTRIES: 4, FREE: 5, SIZE: 8 } as const;
/** Of a block, in words. FIRST: where the entry of its first user lies; 0: it has none. */
const BLOCK = { SIZE: 0, FIRST: 1, HASH_A: 2, HASH_B: 3, HEADER: 4 } as const;
/** Of an entry: an isolate, how many of its uses are open, and where the next entry lies (0: nowhere). */
const ENTRY = { ISOLATE: 0, TIMES: 1, NEXT: 2, SIZE: 3 } as const;
const LOCK_SPINS_MAX = 50_000_000;
/** About a millisecond. */
const PATIENCE_SPINS = 50_000;

/**
 * Memory that cells are cut from, by name. Who uses a block is written down; one that nobody uses keeps its content until its memory
 * is needed, so that a filter that goes and comes back finds it. Only setup and disposal come here.
 *
 *   | header | block | block | … blocks grow this way ▶      ◀ entries grow that way … | entry | entry |
 */
export class CellHeap implements CellMemory {
  readonly words: Int32Array;
  readonly floats: Float64Array;
  readonly longs: BigInt64Array;
  readonly now: () => number;
  readonly seeds: readonly [number, number];
  readonly holder: CellHolder;

  /** `from` is a multiple of 8. The first to come makes a heap of memory that is zero. */
  constructor(
    memory: ArrayBufferLike,
    from = 0,
    now: () => number = Date.now,
    holder: CellHolder = { worker: 0, isolate: 1 },
  ) {
    this.holder = holder;
    const size = memory.byteLength - from;
    this.words = new Int32Array(memory, from, size >> 2);
    this.floats = new Float64Array(memory, from, size >> 3);
    this.longs = new BigInt64Array(memory, from, size >> 3);
    this.now = now;
    const { words } = this;
    for (const at of [HEADER.SEED_A, HEADER.SEED_B])
      compareExchange(words, at, 0, (Math.random() * 0xffff_fffe + 1) | 0 || 1);
    this.seeds = [load(words, HEADER.SEED_A), load(words, HEADER.SEED_B)];
  }

  /**
   * Byte offset of the block of that name and size, zero when it is new; undefined: no memory is left. A table of another size is
   * another block: its keys lie elsewhere, and streams of the generation before may still be at work in theirs.
   */
  acquire(name: string, bytes: number): number | undefined {
    // The names need no secret, only to be told apart, and by every thread alike.
    const a = hash(`${name} ${bytes}`, 0x51ab);
    const b = hash(`${name} ${bytes}`, 0x7e11);
    const size = ((bytes + 7) >> 3) * 2 + BLOCK.HEADER;
    return this.#locked(() => {
      const { words } = this;
      const used = words[HEADER.USED]! || HEADER.SIZE;
      let free = -1;
      for (let w: number = HEADER.SIZE; w < used; w += words[w + BLOCK.SIZE]!) {
        const fits = words[w + BLOCK.SIZE]! >= size;
        if (fits && words[w + BLOCK.HASH_A] === a && words[w + BLOCK.HASH_B] === b)
          return this.#use(w) ? (w + BLOCK.HEADER) * 4 : undefined;
        if (fits && free < 0 && words[w + BLOCK.FIRST] === 0 && words[w + BLOCK.SIZE]! < size * 2)
          free = w;
      }
      let w = free;
      if (used + size + ENTRY.SIZE <= this.#entriesFrom) {
        w = used;
        words[w + BLOCK.SIZE] = size;
        words[HEADER.USED] = used + size;
      }
      if (w < 0 || !this.#use(w)) return undefined;
      words.fill(0, w + BLOCK.HEADER, w + words[w + BLOCK.SIZE]!);
      words[w + BLOCK.HASH_A] = a;
      words[w + BLOCK.HASH_B] = b;
      return (w + BLOCK.HEADER) * 4;
    });
  }

  release(at: number): void {
    const { words, holder } = this;
    const isOver = (entry: number): boolean =>
      words[entry + ENTRY.ISOLATE] === holder.isolate && --words[entry + ENTRY.TIMES]! === 0;
    this.#locked(() => this.#giveBack(at / 4 - BLOCK.HEADER, isOver));
  }

  /**
   * Gives back what isolates use that have ended: all whose number agrees with this one in the `bits`. Core calls it. A filter may have
   * written anything into its package's cells, so this believes nothing and does not wait for a lock that one may hold for ever.
   */
  forget(isolate: number, bits = -1): void {
    const { words } = this;
    if (!this.#lock(PATIENCE_SPINS)) return;
    const used = Math.min(words[HEADER.USED]!, words.length);
    const isOver = (entry: number): boolean =>
      ((words[entry + ENTRY.ISOLATE]! ^ isolate) & bits) === 0;
    let size = 0;
    let steps = words.length;
    for (let w: number = HEADER.SIZE; w < used && steps > 0; w += size) {
      size = words[w + BLOCK.SIZE]!;
      if (size < BLOCK.HEADER) break;
      steps = this.#giveBack(w, isOver, steps);
    }
    store(words, HEADER.LOCK, 0);
  }

  /** Where the entries begin, in words. */
  get #entriesFrom(): number {
    return this.words.length - this.words[HEADER.ENTRIES]! * ENTRY.SIZE;
  }

  /** Writes down that our isolate uses this block. False: there is no room to. */
  #use(block: number): boolean {
    const { words, holder } = this;
    const first = words[block + BLOCK.FIRST]!;
    for (let entry = first; entry !== 0; entry = words[entry + ENTRY.NEXT]!)
      if (words[entry + ENTRY.ISOLATE] === holder.isolate) {
        words[entry + ENTRY.TIMES]!++;
        return true;
      }
    const entry = this.#takeEntry();
    if (entry === 0) return false;
    words[entry + ENTRY.ISOLATE] = holder.isolate;
    words[entry + ENTRY.TIMES] = 1;
    words[entry + ENTRY.NEXT] = first;
    words[block + BLOCK.FIRST] = entry;
    return true;
  }

  #takeEntry(): number {
    const { words } = this;
    const free = words[HEADER.FREE]!;
    if (free !== 0) {
      words[HEADER.FREE] = words[free + ENTRY.NEXT]!;
      return free;
    }
    const entry = this.#entriesFrom - ENTRY.SIZE;
    if (entry < (words[HEADER.USED] || HEADER.SIZE)) return 0;
    words[HEADER.ENTRIES]!++;
    return entry;
  }

  /** Takes those users off the block whom `isOver` names, in so many steps at most. Answers how many are left. */
  #giveBack(block: number, isOver: (entry: number) => boolean, steps = this.words.length): number {
    const { words } = this;
    let link = block + BLOCK.FIRST;
    for (let left = steps - 1; left > 0; left--) {
      const entry = words[link]!;
      if (entry < HEADER.SIZE || entry > words.length - ENTRY.SIZE) return left;
      if (isOver(entry)) {
        words[link] = words[entry + ENTRY.NEXT]!;
        words[entry + ENTRY.NEXT] = words[HEADER.FREE]!;
        words[HEADER.FREE] = entry;
      } else link = entry + ENTRY.NEXT;
    }
    return 0;
  }

  #locked<T>(run: () => T): T {
    // A thread that was killed inside would hold the lock for ever; after about a second it is taken from it.
    this.#lock(LOCK_SPINS_MAX);
    try {
      return run();
    } finally {
      store(this.words, HEADER.LOCK, 0);
    }
  }

  /** False: somebody else has had it all the time. */
  #lock(spins: number): boolean {
    for (let k = 0; k < spins; k++)
      if (compareExchange(this.words, HEADER.LOCK, 0, 1) === 0) return true;
    return false;
  }
}

/** A cell in memory of its own: for whoever only proves that a config is good. */
export function openPrivateCell<T>(spec: CellSpec<T>): T {
  const heap = new CellHeap(new ArrayBuffer(spec.bytes + 128));
  return spec.open(heap, heap.acquire("", spec.bytes)!);
}
