// Hot path: `choose` runs for every request.
import {
  type Balancer,
  type BalancerContext,
  type Host,
  type HostSet,
  hashKeyOf,
  hashOf,
  xxHash64,
} from "@tsproxy/sdk";

const U64 = 0xffff_ffff_ffff_ffffn;
const EMPTY = 0xffff_ffff;

/** A host while the table is filled. */
interface Entry {
  readonly host: Host;
  readonly share: number;
  readonly key: string;
  /** Its order of preference: offset, offset + skip, offset + 2 × skip, … */
  readonly offset: number;
  readonly skip: number;
  next: number;
  target: number;
  count: number;
}

/** Google's Maglev as Envoy has it: hosts in turn take the places that they prefer in a table; a hash is a place in it. */
export class MaglevTable implements Balancer {
  readonly minPerHost: number;
  readonly maxPerHost: number;
  readonly #hosts: readonly Host[];
  /** The host at each place, by number. */
  readonly #places: Uint16Array | Uint32Array;
  readonly #size: bigint;

  constructor({ hosts, shares }: HostSet, tableSize: number, useHostname: boolean) {
    // One host takes every place, and Envoy makes one place of them all.
    const size = hosts.length === 1 ? 1 : tableSize;
    this.#size = BigInt(size);
    const entries = hosts
      .map((host, k) => entryOf(host, shares[k]!, size, useHostname))
      .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
    this.#hosts = entries.map((entry) => entry.host);
    this.#places = fill(entries, size);
    this.minPerHost = Math.min(size, ...entries.map((entry) => entry.count));
    this.maxPerHost = Math.max(0, ...entries.map((entry) => entry.count));
  }

  choose(context: BalancerContext, attempt = 0): Host | undefined {
    let hash = hashOf(context);
    // For another attempt most bits are inverted, so that the requests of one place do not all end at the same other place.
    if (attempt > 0) hash ^= U64 - BigInt(attempt) + 1n;
    return this.#hosts[this.#places[Number(hash % this.#size)]!];
  }
}

function entryOf(host: Host, share: number, size: number, useHostname: boolean): Entry {
  const key = hashKeyOf(host, useHostname);
  const offset = Number(xxHash64(key) % BigInt(size));
  const skip = size === 1 ? 1 : Number(xxHash64(key, 1n) % BigInt(size - 1)) + 1;
  return { host, share, key, offset, skip, next: 0, target: 0, count: 0 };
}

function fill(entries: readonly Entry[], size: number): Uint16Array | Uint32Array {
  if (entries.length === 0) return new Uint16Array(0);
  const places = new Uint32Array(size).fill(EMPTY);
  const most = Math.max(...entries.map((entry) => entry.share));
  let filled = 0;
  for (let round = 1; filled < size; round++) {
    for (let k = 0; k < entries.length && filled < size; k++) {
      const entry = entries[k]!;
      // The host with the largest share takes a place every round, others as often as their shares say.
      if (round * entry.share < entry.target) continue;
      entry.target += most;
      let place = placeOf(entry, size);
      while (places[place] !== EMPTY) {
        entry.next++;
        place = placeOf(entry, size);
      }
      places[place] = k;
      entry.next++;
      entry.count++;
      filled++;
    }
  }
  return entries.length < 0xffff ? Uint16Array.from(places) : places;
}

/** The product is exact: sizes are at most 5 million. */
function placeOf(entry: Entry, size: number): number {
  return (entry.offset + entry.skip * entry.next) % size;
}
