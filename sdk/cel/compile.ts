import { latin1Encode } from "../bytes.ts";
import type { Regex } from "../extension.ts";
import { type CelSource, rootOf } from "./attributes.ts";
import { FUNCTIONS, TYPES } from "./functions.ts";
import { BINARY, indexed, UNARY } from "./operators.ts";
import { type Call, type Constant, type Expr, parseCel, type Select } from "./parse.ts";
import {
  CelError,
  CelMap,
  CelType,
  type CelValue,
  LiteralMap,
  NO_OVERLOAD,
  Uint,
  wireOf,
} from "./values.ts";

/** A compiled expression: evaluates it for one request. It never throws; its work is bounded by the expression's length. */
export type CelProgram = (source: CelSource) => CelValue;

/** Compiles a regular expression in RE2's syntax; throws if it is invalid. */
export type MakeRegex = (pattern: string) => Regex;

/** Compiles an expression, given as text or parsed (`v1alpha1.Expr`). Throws an Error that says what is wrong with it. */
export function compileCel(expression: unknown, regex: MakeRegex | undefined): CelProgram {
  const expr = typeof expression === "string" ? parseCel(expression) : expression;
  if (expr instanceof CelError) throw new TypeError(expr.message);
  return new Compiler(regex).step(expr as Expr, 0);
}

const UNKNOWN = new CelError("no such attribute");
const TYPE_NAMES: ReadonlySet<string> = new Set(TYPES);
const MAX_DEPTH = 1000;
const MAX_PATTERN = 1000;

class Compiler {
  readonly #regex: MakeRegex | undefined;

  constructor(regex: MakeRegex | undefined) {
    this.#regex = regex;
  }

  /** Compiles one node. It is not checked yet: a config may have anything in its place. */
  step(given: Expr, depth: number): CelProgram {
    const expr = spelled(given);
    if (depth > MAX_DEPTH)
      throw new TypeError(`the expression is nested more than ${MAX_DEPTH} deep`);
    if (expr === undefined)
      throw new TypeError(
        "an expression has one of const_expr, ident_expr, select_expr, call_expr, list_expr and struct_expr",
      );
    const inner = (one: unknown) => this.step(one as Expr, depth + 1);
    if ("const_expr" in expr) {
      const value = constant(expr.const_expr);
      return () => value;
    }
    if ("ident_expr" in expr) return ident(expr.ident_expr.name);
    if ("select_expr" in expr) return select(expr.select_expr, inner);
    if ("call_expr" in expr) return this.#call(expr.call_expr, inner);
    if ("list_expr" in expr) {
      const items = (expr.list_expr.elements ?? []).map(inner);
      return (source) =>
        firstError(
          items.map((item) => item(source)),
          (values) => values,
        );
    }
    const entries = (expr.struct_expr.entries ?? []).map(
      (entry) => [inner(entry.map_key), inner(entry.value)] as const,
    );
    return (source) =>
      firstError(
        entries.flatMap(([key, value]) => [key(source), value(source)]),
        (flat) => {
          const pairs = entries.map((_, k) => [flat[k * 2]!, flat[k * 2 + 1]!] as const);
          return new LiteralMap(pairs);
        },
      );
  }

  #call(call: Call, inner: (expr: unknown) => CelProgram): CelProgram {
    const args = [...(call.target === undefined ? [] : [call.target]), ...(call.args ?? [])];
    const name = call.function;
    const steps = args.map(inner);
    const [a, b, c] = steps;
    if (name === "_&&_" && b !== undefined) return decisive(a!, b, false);
    if (name === "_||_" && b !== undefined) return decisive(a!, b, true);
    if (name === "_?_:_" && c !== undefined) return conditional(a!, b!, c);
    if (name === "matches" && steps.length === 2) return this.#matches(a!, b!, args[1]!);
    if (Object.hasOwn(BINARY, name) && steps.length === 2) {
      const operate = BINARY[name]!;
      return (source) => {
        const left = a!(source);
        if (left instanceof CelError) return left;
        const right = b!(source);
        return right instanceof CelError ? right : operate(left, right);
      };
    }
    const apply =
      Object.hasOwn(UNARY, name) && steps.length === 1
        ? UNARY[name]!
        : functionOf(call, steps.length);
    return (source) =>
      firstError(
        steps.map((step) => step(source)),
        (values) => apply(values[0]!, values[1] as CelValue),
      );
  }

  /** `matches()`, true if any part of the text matches. A literal pattern is compiled now, a computed one whenever it changes. */
  #matches(text: CelProgram, pattern: CelProgram, written: Expr): CelProgram {
    const fixed = "const_expr" in written ? constant(written.const_expr) : undefined;
    let last = "";
    let regex: Regex | undefined;
    const compile = (wanted: string) => {
      if (this.#regex === undefined) throw new TypeError("matches() is not to be had here");
      if (wanted.length > MAX_PATTERN)
        throw new TypeError(`a pattern is longer than ${MAX_PATTERN} characters`);
      last = wanted;
      regex = undefined;
      // Compiled alone first: a pattern that is invalid alone, such as `a)(b`, may be valid within brackets.
      this.#regex(wanted);
      regex = this.#regex(`[\\s\\S]*(?:${wanted})[\\s\\S]*`);
    };
    if (typeof fixed === "string") compile(fixed);
    return (source) => {
      const [value, wanted] = [text(source), pattern(source)];
      if (value instanceof CelError) return value;
      if (wanted instanceof CelError) return wanted;
      if (typeof value !== "string" || typeof wanted !== "string") return NO_OVERLOAD;
      if (wanted !== last || regex === undefined) {
        try {
          compile(wanted);
        } catch {
          return new CelError("bad pattern");
        }
      }
      return regex!.matches(value);
    };
  }
}

const KINDS = ["const_expr", "ident_expr", "select_expr", "call_expr", "list_expr", "struct_expr"];

/** The node with field names in snake case, as protobuf's JSON may have them in camel case; undefined: it is not a node. */
function spelled(given: unknown): Expr | undefined {
  if (typeof given !== "object" || given === null) return undefined;
  const fields = Object.entries(given).map(([key, value]) => [snake(key), value] as const);
  const [kind, body] = fields.find(([key]) => KINDS.includes(key)) ?? [];
  if (kind === undefined || typeof body !== "object" || body === null) return undefined;
  return {
    [kind]: Object.fromEntries(Object.entries(body).map(([key, value]) => [snake(key), value])),
  } as Expr;
}
const snake = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function constant(given: Constant): CelValue {
  const {
    bool_value: bool,
    int64_value: int,
    uint64_value: uint,
    double_value: double,
    string_value: text,
    bytes_value: bytes,
  } = given;
  if (bool !== undefined) return bool;
  if (int !== undefined) return whole(int, -(2n ** 63n), 2n ** 63n - 1n);
  if (uint !== undefined) return new Uint(whole(uint, 0n, 2n ** 64n - 1n));
  if (double !== undefined) return Number(double);
  if (text !== undefined) return wireOf(text);
  if (bytes !== undefined) return typeof bytes === "string" ? latin1Encode(atob(bytes)) : bytes;
  return null;
}

function whole(given: string | number, least: bigint, most: bigint): bigint {
  if (!/^-?[0-9]{1,20}$/.test(String(given)))
    throw new TypeError(`"${given}" is not a whole number`);
  const value = BigInt(given);
  if (value < least || value > most) throw new TypeError(`${given} does not fit 64 bits`);
  return value;
}

function ident(name: string): CelProgram {
  if (typeof name !== "string") throw new TypeError("ident_expr has a name");
  const root = rootOf(name);
  if (root !== undefined) return root;
  const value = TYPE_NAMES.has(name) ? new CelType(name) : UNKNOWN;
  return () => value;
}

function select(
  { operand, field, test_only: isTest }: Select,
  inner: (expr: unknown) => CelProgram,
): CelProgram {
  if (typeof field !== "string") throw new TypeError("select_expr has a field");
  const of = inner(operand);
  const key = wireOf(field);
  return (source) => {
    const value = of(source);
    if (value instanceof CelError) return value;
    if (!(value instanceof CelMap)) return NO_OVERLOAD;
    return isTest === true ? value.has(key) : indexed(value, key);
  };
}

/** `&&` and `||`: a side that evaluates to `wanted` decides alone, even if the other is an error. */
function decisive(a: CelProgram, b: CelProgram, wanted: boolean): CelProgram {
  return (source) => {
    const left = a(source);
    if (left === wanted) return wanted;
    const right = b(source);
    if (right === wanted) return wanted;
    if (left instanceof CelError) return left;
    if (right instanceof CelError) return right;
    return typeof left === "boolean" && typeof right === "boolean" ? !wanted : NO_OVERLOAD;
  };
}

function conditional(test: CelProgram, then: CelProgram, otherwise: CelProgram): CelProgram {
  return (source) => {
    const value = test(source);
    if (value instanceof CelError) return value;
    return value === true ? then(source) : value === false ? otherwise(source) : NO_OVERLOAD;
  };
}

function functionOf(call: Call, arity: number): (a: CelValue, b: CelValue) => CelValue {
  const found = Object.hasOwn(FUNCTIONS, call.function) ? FUNCTIONS[call.function]! : undefined;
  const style = call.target === undefined ? "global" : "method";
  if (
    found === undefined ||
    !found.arities.includes(arity) ||
    (found.style !== "both" && found.style !== style)
  )
    throw new TypeError(`there is no function ${call.function} of ${arity} that is written so`);
  return found.apply;
}

/** The first error among the values, or what `then` makes of them. */
function firstError(
  values: readonly CelValue[],
  then: (values: readonly CelValue[]) => CelValue,
): CelValue {
  return values.find((value) => value instanceof CelError) ?? then(values);
}
