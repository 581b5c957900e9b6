import { Enum, type Static, Type, UInt32 } from "./schema.ts";

/** Envoy's FractionalPercent, with its denominator as a number. */
export interface Fraction {
  readonly numerator: number;
  readonly denominator: number;
}
/** What a key of the runtime may have for a value. */
export type RuntimeValue = number | boolean | string | Fraction;

/**
 * Envoy's runtime: keys of the bootstrap's `layered_runtime`, which operators change while the proxy runs. Values that every request
 * needs are best compiled once (`RuntimeFraction` and the like below): they are looked up again only when something has changed.
 */
export class Runtime {
  /** Another number once any value has changed. */
  version = 1;
  #values: ReadonlyMap<string, RuntimeValue> = new Map();

  /** Core calls this with the values of all layers, in which later layers have replaced those of earlier ones. */
  replace(values: Iterable<readonly [key: string, value: RuntimeValue]>): void {
    this.#values = new Map(values);
    this.version++;
  }

  /** Undefined: no layer has the key. */
  get(key: string): RuntimeValue | undefined {
    return this.#values.get(key);
  }

  /** Whether any key begins with `prefix`. Walks over all keys: keep the answer until `version` changes. */
  hasUnder(prefix: string): boolean {
    for (const key of this.#values.keys()) if (key.startsWith(prefix)) return true;
    return false;
  }

  /** As Envoy's `getInteger`: a number from 0 up without what stands behind its point; any other value counts as none. */
  integer(key: string, fallback: number): number {
    const value = this.#values.get(key);
    const counts = typeof value === "number" && value >= 0 && value < 2 ** 64;
    return counts ? Math.floor(value) : fallback;
  }

  double(key: string, fallback: number): number {
    const value = this.#values.get(key);
    return typeof value === "number" ? value : fallback;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.#values.get(key);
    return typeof value === "boolean" ? value : fallback;
  }

  /** As Envoy reads a FractionalPercent: a fraction as it is, a number as whole percent, and anything else not at all. */
  fraction(key: string, fallback: Fraction): Fraction {
    const value = this.#values.get(key);
    if (typeof value === "object") return value;
    const percent = this.integer(key, -1);
    return percent < 0 ? fallback : { numerator: percent, denominator: 100 };
  }

  /** `percent`: the share if there is no such key. `random`: any whole number; the same one for all questions about one stream. */
  featureEnabled(key: string, percent: number, random: number = randomWhole()): boolean {
    return random % 100 < this.integer(key, percent);
  }
}

function randomWhole(): number {
  return Math.floor(Math.random() * 0x1_0000_0000_0000);
}

/** envoy.type.v3.FractionalPercent */
export const FractionalPercent = Type.Object({
  numerator: UInt32({ default: 0 }),
  denominator: Enum(["HUNDRED", "TEN_THOUSAND", "MILLION"], { default: "HUNDRED" }),
});
export type FractionalPercent = Static<typeof FractionalPercent>;

const DENOMINATORS = { HUNDRED: 100, TEN_THOUSAND: 10_000, MILLION: 1_000_000 } as const;

/** The fraction that a percent of the config is. */
export function fractionOf(percent: FractionalPercent): Fraction {
  return { numerator: percent.numerator, denominator: DENOMINATORS[percent.denominator] };
}

/** envoy.config.core.v3.RuntimeFractionalPercent */
export const RuntimeFractionalPercent = Type.Object({
  default_value: FractionalPercent,
  runtime_key: Type.String({ default: "" }),
});
export type RuntimeFractionalPercent = Static<typeof RuntimeFractionalPercent>;

/** envoy.config.core.v3.RuntimeUInt32 */
export const RuntimeUInt32 = Type.Object({
  default_value: UInt32({ default: 0 }),
  runtime_key: Type.String({ default: "" }),
});
export type RuntimeUInt32 = Static<typeof RuntimeUInt32>;

/** envoy.config.core.v3.RuntimeDouble; RuntimePercent has the same shape but for `default_value: { value }`. */
export const RuntimeDouble = Type.Object({
  default_value: Type.Number({ default: 0 }),
  runtime_key: Type.String({ default: "" }),
});
export type RuntimeDouble = Static<typeof RuntimeDouble>;

/** envoy.config.core.v3.RuntimePercent */
export const RuntimePercent = Type.Object({
  default_value: Type.Optional(
    Type.Object({ value: Type.Number({ default: 0, minimum: 0, maximum: 100 }) }),
  ),
  runtime_key: Type.String({ default: "" }),
});
export type RuntimePercent = Static<typeof RuntimePercent>;

/** envoy.config.core.v3.RuntimeFeatureFlag */
export const RuntimeFeatureFlag = Type.Object({
  default_value: Type.Boolean({ default: false }),
  runtime_key: Type.String({ default: "" }),
});
export type RuntimeFeatureFlag = Static<typeof RuntimeFeatureFlag>;

/** A value that is looked up again only when the runtime has changed. */
class Cached<T> {
  readonly #runtime: Runtime;
  readonly #read: (runtime: Runtime) => T;
  #version = 0;
  #value: T;

  constructor(runtime: Runtime, key: string, fallback: T, read: (runtime: Runtime) => T) {
    this.#runtime = runtime;
    this.#read = key === "" ? () => fallback : read;
    this.#value = fallback;
  }

  get value(): T {
    if (this.#version !== this.#runtime.version) {
      this.#version = this.#runtime.version;
      this.#value = this.#read(this.#runtime);
    }
    return this.#value;
  }
}

const ALL: RuntimeFractionalPercent = {
  default_value: { numerator: 100, denominator: "HUNDRED" },
  runtime_key: "",
};

/** A share of streams. Without a config it is all of them, as for most of Envoy's `filter_enabled` fields. */
export class RuntimeFraction {
  readonly #share: Cached<Fraction>;

  constructor(config: RuntimeFractionalPercent = ALL, runtime: Runtime) {
    const { runtime_key: key, default_value } = config;
    const fallback = fractionOf(default_value);
    this.#share = new Cached(runtime, key, fallback, (r) => r.fraction(key, fallback));
  }

  /** `random`: any whole number, the same for all questions about one stream that should agree. */
  enabled(random?: number): boolean {
    const { numerator, denominator } = this.#share.value;
    if (numerator >= denominator) return true;
    return numerator > 0 && (random ?? randomWhole()) % denominator < numerator;
  }

  /** The share is 0 at the moment. */
  get isNever(): boolean {
    return this.#share.value.numerator === 0;
  }
}

/** The whole number of a key, or the config's own. */
export class RuntimeInteger {
  readonly #cached: Cached<number>;

  constructor(config: RuntimeUInt32, runtime: Runtime) {
    const { runtime_key: key, default_value } = config;
    this.#cached = new Cached(runtime, key, default_value, (r) => r.integer(key, default_value));
  }
  get value(): number {
    return this.#cached.value;
  }
}

/** Of a RuntimeDouble, or of a RuntimePercent with its default (0-100). */
export class RuntimeNumber {
  readonly #cached: Cached<number>;

  constructor(config: RuntimeDouble | RuntimePercent, runtime: Runtime) {
    const { runtime_key: key, default_value: given = 0 } = config;
    const fallback = typeof given === "number" ? given : given.value;
    this.#cached = new Cached(runtime, key, fallback, (r) => r.double(key, fallback));
  }
  get value(): number {
    return this.#cached.value;
  }
}

/** Whether a key says true, or the config. */
export class RuntimeFlag {
  readonly #cached: Cached<boolean>;

  constructor(config: RuntimeFeatureFlag, runtime: Runtime) {
    const { runtime_key: key, default_value } = config;
    this.#cached = new Cached(runtime, key, default_value, (r) => r.boolean(key, default_value));
  }
  get value(): boolean {
    return this.#cached.value;
  }
}
