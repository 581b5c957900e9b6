/** The libraries `math` and LuaJIT's `bit`. */
import { library, numberArgument, optionalInteger } from "./arguments.ts";
import type { LuaFunction } from "./runtime.ts";
import type { LuaTable } from "./table.ts";

const unary =
  (name: string, compute: (value: number) => number): LuaFunction =>
  (...args) =>
    compute(numberArgument(args, 1, name));

export function mathLibrary(): LuaTable {
  const random = new Random();
  const functions: Record<string, LuaFunction> = {
    atan2: (...args) =>
      Math.atan2(numberArgument(args, 1, "atan2"), numberArgument(args, 2, "atan2")),
    fmod: (...args) => numberArgument(args, 1, "fmod") % numberArgument(args, 2, "fmod"),
    frexp: (...args) => frexp(numberArgument(args, 1, "frexp")),
    ldexp: (...args) => numberArgument(args, 1, "ldexp") * 2 ** numberArgument(args, 2, "ldexp"),
    log: (...args) => {
      const value = Math.log(numberArgument(args, 1, "log"));
      if (args[1] === undefined) return value;
      const base = numberArgument(args, 2, "log");
      if (base === 2) return Math.log2(args[0] as number);
      return base === 10 ? Math.log10(args[0] as number) : value / Math.log(base);
    },
    max: (...args) => extreme(args, "max", (a, b) => a > b),
    min: (...args) => extreme(args, "min", (a, b) => a < b),
    modf: (...args) => {
      const value = numberArgument(args, 1, "modf");
      const whole = Math.trunc(value);
      return [whole, Number.isFinite(value) ? value - whole : Number.isNaN(value) ? value : 0];
    },
    pow: (...args) => numberArgument(args, 1, "pow") ** numberArgument(args, 2, "pow"),
    random: (...args) => {
      const value = random.next();
      if (args.length === 0) return value;
      const low = args.length === 1 ? 1 : Math.floor(numberArgument(args, 1, "random"));
      const high = Math.floor(numberArgument(args, args.length === 1 ? 1 : 2, "random"));
      // As LuaJIT, accepts an empty interval.
      return Math.floor(value * (high - low + 1)) + low;
    },
    randomseed: (...args) => {
      random.seed(numberArgument(args, 1, "randomseed"));
      return [];
    },
    deg: unary("deg", (value) => value * (180 / Math.PI)),
    rad: unary("rad", (value) => value * (Math.PI / 180)),
  };
  const plain = "abs acos asin atan ceil cos cosh exp floor log10 sin sinh sqrt tan tanh" as const;
  for (const name of plain.split(" ") as ("abs" | "sin")[])
    functions[name] = unary(name, Math[name]);
  const table = library(functions);
  table.set("pi", Math.PI);
  table.set("huge", Number.POSITIVE_INFINITY);
  return table;
}

function extreme(
  args: readonly unknown[],
  name: string,
  wins: (a: number, b: number) => boolean,
): number {
  let best = numberArgument(args, 1, name);
  for (let k = 2; k <= args.length; k++) {
    const value = numberArgument(args, k, name);
    if (wins(value, best)) best = value;
  }
  return best;
}

function frexp(value: number): [mantissa: number, exponent: number] {
  if (value === 0 || !Number.isFinite(value)) return [value, 0];
  let exponent = Math.max(-1023, Math.floor(Math.log2(Math.abs(value))) + 1);
  let mantissa = value * 2 ** -exponent;
  while (Math.abs(mantissa) < 0.5) {
    mantissa *= 2;
    exponent--;
  }
  while (Math.abs(mantissa) >= 1) {
    mantissa /= 2;
    exponent++;
  }
  return [mantissa, exponent];
}

/** xorshift128+: the same seed gives the same numbers. Not for secrets. */
class Random {
  #a = 0x9e3779b97f4a7c15n;
  #b = 0xbf58476d1ce4e5b9n;

  constructor() {
    this.seed(Math.random() * 2 ** 52);
  }

  seed(value: number): void {
    const bits = new DataView(new ArrayBuffer(8));
    bits.setFloat64(0, value);
    this.#a = bits.getBigUint64(0) ^ 0x9e3779b97f4a7c15n;
    this.#b = 0xbf58476d1ce4e5b9n;
    for (let k = 0; k < 10; k++) this.next();
  }

  /** The next number from 0 to 1, without 1. */
  next(): number {
    let x = this.#a;
    const y = this.#b;
    this.#a = y;
    x ^= BigInt.asUintN(64, x << 23n);
    this.#b = x ^ y ^ (x >> 17n) ^ (y >> 26n);
    return Number(BigInt.asUintN(64, this.#b + y) >> 11n) / 2 ** 53;
  }
}

/** The low 32 bits of a number, as LuaJIT's `bit` takes them. */
const toBits = (value: number): number => {
  if (!Number.isFinite(value)) return 0;
  return Number(BigInt.asIntN(32, BigInt(Math.round(value))));
};

export function bitLibrary(): LuaTable {
  const bits = (args: readonly unknown[], k: number, name: string): number => {
    const value = numberArgument(args, k, name);
    return (value | 0) === value ? value : toBits(value);
  };
  const fold =
    (name: string, combine: (a: number, b: number) => number): LuaFunction =>
    (...args) => {
      let value = bits(args, 1, name);
      for (let k = 2; k <= args.length; k++) value = combine(value, bits(args, k, name));
      return value;
    };
  const shift =
    (name: string, move: (value: number, by: number) => number): LuaFunction =>
    (...args) =>
      move(bits(args, 1, name), bits(args, 2, name) & 31) | 0;
  return library({
    tobit: (...args) => bits(args, 1, "tobit"),
    bnot: (...args) => ~bits(args, 1, "bnot"),
    band: fold("band", (a, b) => a & b),
    bor: fold("bor", (a, b) => a | b),
    bxor: fold("bxor", (a, b) => a ^ b),
    lshift: shift("lshift", (a, b) => a << b),
    rshift: shift("rshift", (a, b) => a >>> b),
    arshift: shift("arshift", (a, b) => a >> b),
    rol: shift("rol", (a, b) => (a << b) | (a >>> (32 - b))),
    ror: shift("ror", (a, b) => (a >>> b) | (a << (32 - b))),
    bswap: (...args) => {
      const a = bits(args, 1, "bswap");
      return (a >>> 24) | ((a >>> 8) & 0xff00) | ((a << 8) & 0xff0000) | (a << 24) | 0;
    },
    tohex: (...args) => {
      const value = bits(args, 1, "tohex") >>> 0;
      let size = optionalInteger(args, 2, "tohex", 8);
      const isUpper = size < 0;
      size = Math.min(8, Math.abs(size));
      const text = value
        .toString(16)
        .padStart(8, "0")
        .slice(8 - size);
      return isUpper ? text.toUpperCase() : text;
    },
  });
}
