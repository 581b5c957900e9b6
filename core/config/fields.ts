import type { Place } from "./diagnostic.ts";
import type { Node } from "./document.ts";

/** A key and its value in a map. */
export class Entry {
  key: string;
  /** The place of the key. */
  readonly place: Place;
  value: Node;
  next: Entry | undefined = undefined;

  constructor(key: string, place: Place, value: Node) {
    this.key = key;
    this.place = place;
    this.value = value;
  }
}

/** Maps with more entries than this are searched by an index. */
const SHORT = 8;

/**
 * The entries of a map, in the file's order, as a linked list: most maps of a config have two or three entries, for which a Map
 * takes three times the memory, and a large config has a million of them.
 */
export class Fields {
  #first: Entry | undefined = undefined;
  #last: Entry | undefined = undefined;
  #size = 0;
  #index: Map<string, Entry> | undefined = undefined;

  static of(entries: Iterable<readonly [string, Pick<Entry, "place" | "value">]>): Fields {
    const fields = new Fields();
    for (const [key, entry] of entries) fields.set(key, entry);
    return fields;
  }

  get size(): number {
    return this.#size;
  }
  /** The first entry; `next` leads to the others. */
  get first(): Entry | undefined {
    return this.#first;
  }

  get(key: string): Entry | undefined {
    if (this.#index !== undefined) return this.#index.get(key);
    for (let entry = this.#first; entry !== undefined; entry = entry.next)
      if (entry.key === key) return entry;
    return undefined;
  }
  has(key: string): boolean {
    return this.get(key) !== undefined;
  }

  /** Replaces the entry of that name where it stands, or adds one at the end. */
  set(key: string, { place, value }: Pick<Entry, "place" | "value">): void {
    const known = this.get(key);
    const entry = new Entry(key, place, value);
    if (known === undefined) {
      this.add(entry);
      return;
    }
    const before = this.#before(known);
    entry.next = known.next;
    if (before === undefined) this.#first = entry;
    else before.next = entry;
    if (known === this.#last) this.#last = entry;
    this.#index?.set(key, entry);
  }

  /** Adds an entry at the end. The caller knows that there is none of that name. */
  add(entry: Entry): void {
    entry.next = undefined;
    if (this.#last === undefined) this.#first = entry;
    else this.#last.next = entry;
    this.#last = entry;
    this.#size++;
    if (this.#index !== undefined) this.#index.set(entry.key, entry);
    else if (this.#size > SHORT) this.#index = new Map(this);
  }

  delete(key: string): void {
    const entry = this.get(key);
    if (entry === undefined) return;
    const before = this.#before(entry);
    if (before === undefined) this.#first = entry.next;
    else before.next = entry.next;
    if (entry === this.#last) this.#last = before;
    this.#index?.delete(key);
    this.#size--;
  }

  clear(): void {
    this.#first = this.#last = this.#index = undefined;
    this.#size = 0;
  }

  *[Symbol.iterator](): Generator<[string, Entry]> {
    for (let entry = this.#first; entry !== undefined; entry = entry.next) yield [entry.key, entry];
  }
  *keys(): Generator<string> {
    for (const [key] of this) yield key;
  }
  *values(): Generator<Entry> {
    for (const [, entry] of this) yield entry;
  }

  #before(entry: Entry): Entry | undefined {
    if (entry === this.#first) return undefined;
    let before = this.#first;
    while (before !== undefined && before.next !== entry) before = before.next;
    return before;
  }
}
