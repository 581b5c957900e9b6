import {
  type BucketRate,
  bucketRate,
  CellHeap,
  type CellSpec,
  type Descriptor,
  hash,
  type TokenBucket,
  type TokenBucketConfig,
  tokenBucket,
  tokenBuckets,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";

/** Opens a cell by name: shared by all workers, or private to a connection. */
type OpenCell = <T>(name: string, spec: CellSpec<T>) => T;

/** A bucket as one request sees it. */
export interface Limit {
  readonly maxTokens: number;
  readonly bucket: TokenBucket;
}

export interface Answer {
  readonly allowed: boolean;
  /** Whose figures `x-ratelimit-*` tell; undefined: no limit was asked. */
  readonly limit: Limit | undefined;
}

const UNLIMITED: Answer = { allowed: true, limit: undefined };

/** A descriptor of the request, and how many requests it counts as: one unless told. */
export interface Asked {
  readonly entries: Descriptor;
  readonly hits?: number | undefined;
}

/** The buckets of one config: the default one, and those of descriptors. */
export class Limiter {
  readonly #default: Limit | undefined;
  /** The two answers of the default bucket. */
  readonly #granted: Answer;
  readonly #refused: Answer;
  readonly #alwaysDefault: boolean;
  readonly #descriptors: readonly DescriptorLimit[];

  constructor(config: Config, open: OpenCell) {
    const bucket = config.token_bucket;
    this.#default = bucket === undefined ? undefined : openLimit(bucket, "token_bucket", open);
    this.#granted = { allowed: true, limit: this.#default };
    this.#refused = { allowed: false, limit: this.#default };
    this.#alwaysDefault = config.always_consume_default_token_bucket;
    this.#descriptors = config.descriptors.map(
      (descriptor, k) =>
        new DescriptorLimit(descriptor, `descriptors[${k}]`, config.max_dynamic_descriptors, open),
    );
  }

  /** Takes tokens from every bucket that the request belongs to, the slowest first, until one has not enough. */
  ask(descriptors: readonly Asked[]): Answer {
    // Most requests belong to the default one alone.
    if (descriptors.length === 0) return this.#askDefault();
    const found: (Limit & { readonly perMs: number; readonly hits: number })[] = [];
    for (const { entries, hits = 1 } of descriptors) {
      for (const candidate of this.#descriptors) {
        const limit = candidate.of(entries);
        if (limit === undefined) continue;
        found.push({ ...limit, perMs: candidate.perMs, hits });
        break;
      }
    }
    found.sort((a, b) => a.perMs - b.perMs);
    for (const limit of found) {
      // As in Envoy, a request that counts as 0 hits is refused.
      if (limit.hits === 0 || !limit.bucket.take(limit.hits)) return { allowed: false, limit };
    }
    const first = found[0];
    if (first !== undefined && !this.#alwaysDefault) return { allowed: true, limit: first };
    const answer = this.#askDefault();
    return first === undefined || !answer.allowed ? answer : { allowed: true, limit: first };
  }

  #askDefault(): Answer {
    const limit = this.#default;
    if (limit === undefined) return UNLIMITED;
    return limit.bucket.take() ? this.#granted : this.#refused;
  }
}

/** The bucket of one descriptor; where values are left open (""), one for each combination of values that requests have. */
class DescriptorLimit {
  /** Tokens a millisecond. */
  readonly perMs: number;
  readonly #entries: Descriptor;
  readonly #of: (descriptor: Descriptor) => Limit;

  constructor(
    { entries, token_bucket }: Config["descriptors"][number],
    path: string,
    maxDynamic: number,
    open: OpenCell,
  ) {
    const rate = bucketRate(token_bucket, `${path}.token_bucket`);
    this.#entries = entries;
    this.perMs = rate.tokensPerFill / rate.fillIntervalMs;
    const { maxTokens } = rate;
    if (entries.every((entry) => entry.value !== "")) {
      const limit = { maxTokens, bucket: open(nameOf(path, rate, entries), tokenBucket(rate)) };
      this.#of = () => limit;
      return;
    }
    const spec = tokenBuckets({ ...rate, maxKeys: maxDynamic });
    const buckets = open(nameOf(path, rate, entries), spec);
    this.#of = (descriptor) => {
      const key = descriptor.map((entry) => entry.value).join("\u0000");
      const bucket: TokenBucket = {
        take: (tokens) => buckets.take(key, tokens),
        get remaining() {
          return buckets.remaining(key);
        },
        get waitMs() {
          return buckets.waitMs(key);
        },
      };
      return { maxTokens, bucket };
    };
  }

  /** Undefined: the descriptor is another one. */
  of(descriptor: Descriptor): Limit | undefined {
    const entries = this.#entries;
    if (descriptor.length !== entries.length) return undefined;
    for (let k = 0; k < entries.length; k++) {
      const { key, value } = entries[k]!;
      const given = descriptor[k]!;
      if (given.key !== key || (value !== "" && given.value !== value)) return undefined;
    }
    return this.#of(descriptor);
  }
}

function openLimit(bucket: TokenBucketConfig, path: string, open: OpenCell): Limit {
  const rate = bucketRate(bucket, path);
  return { maxTokens: rate.maxTokens, bucket: open(nameOf(path, rate, []), tokenBucket(rate)) };
}

/** The rate is part of the name: a bucket whose rate has changed is another one and starts full, as after a reload of Envoy. */
function nameOf(path: string, rate: BucketRate, entries: Descriptor): string {
  return `${path} ${hash(JSON.stringify([rate, entries]), 0).toString(36)}`;
}

/** Cells in memory of their own, for the buckets of one connection. */
export function privateCells(now: () => number): OpenCell {
  // The clock of a setup starts near 0, where a new bucket could not be told from an empty one.
  const later = () => 1e9 + now();
  return (_name, spec) => {
    const heap = new CellHeap(new ArrayBuffer(spec.bytes + 256), 0, later);
    return spec.open(heap, heap.acquire("", spec.bytes)!);
  };
}
