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
import { murmurHash2 } from "./murmur-hash2.ts";

interface RingOptions {
  /** Points that the ring has at least and at most. */
  readonly least: number;
  readonly most: number;
  readonly hashFunction: "XX_HASH" | "MURMUR_HASH_2";
  readonly useHostname: boolean;
}

interface RingFigures {
  readonly size: number;
  readonly minPerHost: number;
  readonly maxPerHost: number;
}

/** Ketama as Envoy has it: every host stands at many points of a ring, and a request goes to the first point not before its hash. */
export class Ring implements Balancer {
  readonly figures: RingFigures;
  readonly #points: BigUint64Array;
  /** The host at each point, by number. */
  readonly #owners: Uint32Array;
  readonly #hosts: readonly Host[];

  constructor({ hosts, shares }: HostSet, options: RingOptions) {
    this.#hosts = hosts;
    const least = Math.min(1, ...shares);
    // The host with the smallest share gets a whole number of points, unless the ring would become too large.
    const scale =
      hosts.length === 0 ? 0 : Math.min(Math.ceil(least * options.least) / least, options.most);
    const size = Math.ceil(scale);
    const points: bigint[] = [];
    const owners: number[] = [];
    let minPerHost = size;
    let maxPerHost = 0;
    let target = 0;
    for (const [k, host] of hosts.entries()) {
      const key = hashKeyOf(host, options.useHostname);
      target += scale * shares[k]!;
      let n = 0;
      for (; points.length < target; n++) {
        const name = `${key}_${n}`;
        points.push(options.hashFunction === "XX_HASH" ? xxHash64(name) : murmurHash2(name));
        owners.push(k);
      }
      minPerHost = Math.min(minPerHost, n);
      maxPerHost = Math.max(maxPerHost, n);
    }
    this.figures = { size, minPerHost, maxPerHost };
    const order = Array.from(points.keys()).sort((a, b) =>
      points[a]! < points[b]! ? -1 : points[a]! > points[b]! ? 1 : 0,
    );
    this.#points = BigUint64Array.from(order, (at) => points[at]!);
    this.#owners = Uint32Array.from(order, (at) => owners[at]!);
  }

  choose(context: BalancerContext, attempt = 0): Host | undefined {
    const points = this.#points;
    const { length } = points;
    if (length === 0) return undefined;
    const hash = hashOf(context);
    let low = 0;
    let high = length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (points[middle]! < hash) low = middle + 1;
      else high = middle;
    }
    // Behind the last point the ring begins again; another attempt takes the next point.
    return this.#hosts[this.#owners[((low === length ? 0 : low) + attempt) % length]!];
  }
}
