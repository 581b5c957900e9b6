import { Refused } from "./answer.ts";
import type { Distribution } from "./core-data.ts";
import type { Query } from "./query.ts";

/** In percent, as Envoy prints them. */
export const QUANTILES = [0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100];
export type Bounds = readonly number[];

/** Envoy's default bounds, for buckets in text, JSON and Prometheus. */
export const BOUNDS: Bounds = [
  0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000,
  1_800_000, 3_600_000,
] as const;

const MODES = ["cumulative", "disjoint", "detailed", "summary", "prometheusnative"];

/** Returns the mode in `histogram_buckets`, or `unset` if it is absent. "none" is Envoy's undocumented word for "summary". */
export function histogramMode(query: Query, unset: string): string {
  const mode = query.get("histogram_buckets") || unset;
  if (mode === "none") return "summary";
  if (!MODES.includes(mode))
    throw new Refused(400, `usage: /stats?histogram_buckets=(${MODES.join("|")})\n`);
  return mode;
}

/**
 * Estimates the value at each of QUANTILES. Samples are taken as spread evenly over their bucket, so that a single one lies in
 * its middle: 1.05 for a sample of 1 (buckets have two significant digits). Undefined: no samples.
 */
export function quantiles(distribution: Distribution | null): readonly number[] | undefined {
  if (distribution === null || distribution.count <= 0) return undefined;
  const { buckets, count } = distribution;
  let at = 0;
  let before = 0;
  return QUANTILES.map((percent) => {
    const rank = Math.min(count, Math.max(1, Math.ceil((percent / 100) * count)));
    while (at < buckets.length - 1 && before + buckets[at]![1] < rank) before += buckets[at++]![1];
    const bucket = buckets[at];
    if (bucket === undefined) return 0;
    const { lower, width } = bucketRange(bucket[0]);
    return lower + width * ((rank - before) / (bucket[1] + 1));
  });
}

/** The sum of all samples as Envoy computes it, each as the harmonic mean of its bucket's ends: 1.0476… for a sample of 1. */
export function sumOfBuckets(distribution: Distribution | null): number {
  let sum = 0;
  for (const [upper, count] of distribution?.buckets ?? []) {
    const { lower, width } = bucketRange(upper);
    // In this order of operations, so that the last of the digits that Prometheus shows are Envoy's as well.
    const mean = lower === 0 ? 0 : lower + width * (lower / (2 * lower + width));
    sum += mean * count;
  }
  return sum;
}

/** How many samples lie in buckets that begin at or below each bound. */
export function countsUpTo(
  distribution: Distribution | null,
  bounds: Bounds = BOUNDS,
): readonly number[] {
  const buckets = distribution?.buckets ?? [];
  let at = 0;
  let sum = 0;
  return bounds.map((bound) => {
    while (at < buckets.length && bucketRange(buckets[at]![0]).lower <= bound)
      sum += buckets[at++]![1];
    return sum;
  });
}

/** Where the bucket that ends at `upper` begins, and its width: ten to ninety-nine times a power of ten, then the next power. */
export function bucketRange(upper: number): { readonly lower: number; readonly width: number } {
  // The first bucket holds what is below 1; values are whole numbers, so that is 0.
  if (upper <= 1) return { lower: 0, width: 0 };
  // An end at a power of ten belongs to the narrower bucket before it.
  const exponent = Math.ceil(Math.log10(upper) - 1e-9) - 2;
  const width = 10 ** exponent;
  const digits = Math.round(upper / width) - 1;
  return { lower: exponent < 0 ? digits / 10 ** -exponent : digits * width, width };
}
