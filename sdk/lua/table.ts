// Hot path: every table of a Lua program.

import { meter } from "./meter.ts";

/** With more keys than this a Map finds them; with fewer, comparing one after another is quicker. */
const SCAN_MAX = 8;

/**
 * A Lua table: values 1…n in an array, all others by key. Keys keep their places, so that a traversal may clear what it has
 * visited; a cleared place is used again when its key comes back.
 */
export class LuaTable {
  /** Values of 1 to n. Holes are undefined; the last value is never a hole. */
  array: unknown[] = [];
  keys: unknown[] = [];
  values: unknown[] = [];
  metatable: LuaTable | undefined = undefined;
  #places: Map<unknown, number> | undefined = undefined;
  #cleared = 0;

  /** The place of a key in `keys`, or -1. */
  #find(key: unknown): number {
    const places = this.#places;
    if (places !== undefined) return places.get(key) ?? -1;
    const keys = this.keys;
    for (let k = 0; k < keys.length; k++) if (keys[k] === key) return k;
    return -1;
  }

  get(key: unknown): unknown {
    if (typeof key === "number") {
      const array = this.array;
      if (key > 0 && key <= array.length && Number.isInteger(key)) return array[key - 1];
    }
    const at = this.#find(key);
    return at < 0 ? undefined : this.values[at];
  }

  /** `get` for a key that is a string. */
  getText(key: string): unknown {
    const at = this.#find(key);
    return at < 0 ? undefined : this.values[at];
  }

  /** The same for a place in a program with a constant key: `hints[at]` is where it found that last. Saves 10 ns over a Map. */
  getHinted(key: string, hints: number[], at: number): unknown {
    const keys = this.keys;
    const hint = hints[at]!;
    if (hint < keys.length && keys[hint] === key) return this.values[hint];
    const found = this.#find(key);
    if (found < 0) return undefined;
    hints[at] = found;
    return this.values[found];
  }

  /** Sets without metamethods; `value` undefined clears. `key` is neither undefined nor NaN. */
  set(key: unknown, value: unknown): void {
    if (typeof key === "number") {
      const array = this.array;
      const size = array.length;
      if (key > 0 && key <= size && Number.isInteger(key)) {
        array[key - 1] = value;
        if (value === undefined && key === size) this.#shrink();
        return;
      }
      if (key === size + 1) {
        if (value === undefined) {
          this.#put(key, undefined);
          return;
        }
        array.push(value);
        meter.space += 16;
        if (this.keys.length > 0) this.#migrate(key);
        return;
      }
    }
    this.#put(key, value);
  }

  #put(key: unknown, value: unknown): void {
    const at = this.#find(key);
    if (at >= 0) {
      const before = this.values[at];
      this.values[at] = value;
      if (value === undefined && before !== undefined) this.#cleared++;
      else if (value !== undefined && before === undefined) this.#cleared--;
      return;
    }
    if (value === undefined) return;
    if (this.#cleared > SCAN_MAX && this.#cleared > this.keys.length >> 1) this.#compact();
    const place = this.keys.length;
    meter.space += 48;
    // -0 and 0 are one key.
    this.keys.push(key === 0 ? 0 : key);
    this.values.push(value);
    if (this.#places !== undefined) this.#places.set(key, place);
    else if (place >= SCAN_MAX) this.#index();
  }

  #index(): void {
    const places = new Map<unknown, number>();
    for (let k = 0; k < this.keys.length; k++) places.set(this.keys[k], k);
    this.#places = places;
  }

  /** Drops cleared places. Called only when a key is added, which Lua does not allow during a traversal. */
  #compact(): void {
    let to = 0;
    for (let k = 0; k < this.keys.length; k++) {
      if (this.values[k] === undefined) continue;
      this.keys[to] = this.keys[k];
      this.values[to++] = this.values[k];
    }
    this.keys.length = this.values.length = to;
    this.#cleared = 0;
    this.#places = undefined;
    if (to > SCAN_MAX) this.#index();
  }

  /** Called when `array` has grown to index `from`: moves the values of the indexes after it from the keys to the array. */
  #migrate(from: number): void {
    // `from` itself may have a place among the keys, which is now out of date.
    this.#clear(from);
    for (let next = from + 1; ; next++) {
      const at = this.#find(next);
      if (at < 0 || this.values[at] === undefined) return;
      this.array.push(this.values[at]);
      this.#clear(next);
    }
  }

  #clear(key: number): void {
    const at = this.#find(key);
    if (at < 0 || this.values[at] === undefined) return;
    this.values[at] = undefined;
    this.#cleared++;
  }

  #shrink(): void {
    const array = this.array;
    while (array.length > 0 && array[array.length - 1] === undefined) array.pop();
  }

  /** `#t`, a border of the table. */
  get length(): number {
    return this.array.length;
  }

  /**
   * The index of the first entry at or after `from`, counting the array first; -1: there is none. `keyAt` and `valueAt` read it.
   */
  entryFrom(from: number): number {
    const array = this.array;
    const size = array.length;
    let k = from;
    for (; k < size; k++) if (array[k] !== undefined) return k;
    const values = this.values;
    for (; k - size < values.length; k++) if (values[k - size] !== undefined) return k;
    return -1;
  }
  keyAt(entry: number): unknown {
    return entry < this.array.length ? entry + 1 : this.keys[entry - this.array.length];
  }
  valueAt(entry: number): unknown {
    return entry < this.array.length ? this.array[entry] : this.values[entry - this.array.length];
  }

  /** Where a traversal goes on after `key`; -1: there is no such key. */
  entryAfter(key: unknown): number {
    if (key === undefined) return 0;
    const size = this.array.length;
    if (typeof key === "number" && key > 0 && key <= size && Number.isInteger(key)) return key;
    const at = this.#find(key);
    if (at >= 0) return size + at + 1;
    // The array's end was cleared during the traversal.
    return typeof key === "number" && key > 0 && Number.isInteger(key) ? size : -1;
  }
}
