// Hot path: every frame asks it for its stream (test/bench/cpu.ts h2).
import type { Stream } from "./stream.ts";

/** log2 of the number of places in a new table. */
const SMALLEST = 3;
/** Odd, and unknown to peers: they could choose ids that all want the same place otherwise. */
const MULTIPLIER = (Math.random() * 2 ** 32) | 1;

/**
 * The open streams of a connection, by id. A stream lies at the place that its id wants, or at the next free one. A Map would keep
 * what closed streams have allocated until a full collection (why: `Roster` of the SDK), of which there were two a second.
 */
export class StreamTable {
  #places: (Stream | undefined)[] = empty(SMALLEST);
  #shift = 32 - SMALLEST;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): Stream | undefined {
    return this.#places[this.#find(id)];
  }

  /** The place of this id's stream, else the free one where it would lie. */
  #find(id: number): number {
    const places = this.#places;
    const mask = places.length - 1;
    let at = Math.imul(id, MULTIPLIER) >>> this.#shift;
    for (let stream = places[at]; stream !== undefined && stream.id !== id; stream = places[at])
      at = (at + 1) & mask;
    return at;
  }

  /** Adds a stream whose id is not in the table. */
  add(stream: Stream): void {
    if (this.#size * 2 >= this.#places.length) this.#grow();
    this.#size++;
    this.#places[this.#find(stream.id)] = stream;
  }

  #grow(): void {
    const before = this.#places;
    this.#shift--;
    this.#places = empty(32 - this.#shift);
    for (const stream of before)
      if (stream !== undefined) this.#places[this.#find(stream.id)] = stream;
  }

  delete(id: number): void {
    const places = this.#places;
    const mask = places.length - 1;
    let gap = this.#find(id);
    if (places[gap] === undefined) return;
    this.#size--;
    // Streams behind the gap move into it, as long as that is not before the place that they want.
    for (let at = (gap + 1) & mask; places[at] !== undefined; at = (at + 1) & mask) {
      const wanted = Math.imul(places[at]!.id, MULTIPLIER) >>> this.#shift;
      if (((at - wanted) & mask) < ((at - gap) & mask)) continue;
      places[gap] = places[at];
      gap = at;
    }
    places[gap] = undefined;
  }

  /** All streams, the oldest first. */
  all(): Stream[] {
    const streams: Stream[] = [];
    for (const stream of this.#places) if (stream !== undefined) streams.push(stream);
    return streams.sort((a, b) => a.id - b.id);
  }

  clear(): void {
    this.#places = empty(SMALLEST);
    this.#shift = 32 - SMALLEST;
    this.#size = 0;
  }
}

function empty(log2: number): undefined[] {
  return new Array<undefined>(2 ** log2).fill(undefined);
}
