/** Checks the arguments of library functions, with LuaJIT's messages. `k` counts arguments from 1, `of` names the function. */
import { argumentError, type LuaError } from "./error.ts";
import { numberText } from "./number.ts";
import { type LuaFunction, toNumber, typeOf } from "./runtime.ts";
import { LuaTable } from "./table.ts";

export type Args = readonly unknown[];

export function typeError(args: Args, k: number, of: string, expected: string): LuaError {
  const got = k > args.length ? "no value" : typeOf(args[k - 1]);
  return argumentError(k, of, `${expected} expected, got ${got}`);
}

/** Argument `k` as a text, to which a number is converted. Throws LuaError for any other value. */
export function textArgument(args: Args, k: number, of: string): string {
  const value = args[k - 1];
  if (typeof value === "string") return value;
  if (typeof value === "number") return numberText(value);
  throw typeError(args, k, of, "string");
}

/** `textArgument` for callers without a list of arguments; `count`: how many there were. */
export function textOf(value: unknown, k: number, count: number, of: string): string {
  if (typeof value === "string") return value;
  if (typeof value === "number") return numberText(value);
  const got = k > count ? "no value" : typeOf(value);
  throw argumentError(k, of, `string expected, got ${got}`);
}

export function optionalText(args: Args, k: number, of: string, otherwise: string): string {
  return args[k - 1] === undefined ? otherwise : textArgument(args, k, of);
}

export function numberArgument(args: Args, k: number, of: string): number {
  const value = args[k - 1];
  if (typeof value === "number") return value;
  const number = toNumber(value);
  if (number === undefined) throw typeError(args, k, of, "number");
  return number;
}

/** Argument `k` as a number truncated towards zero; NaN becomes 0. */
export function integerArgument(args: Args, k: number, of: string): number {
  return integer(numberArgument(args, k, of));
}

export function optionalInteger(args: Args, k: number, of: string, otherwise: number): number {
  return args[k - 1] === undefined ? otherwise : integerArgument(args, k, of);
}

const integer = (value: number): number => (Number.isNaN(value) ? 0 : Math.trunc(value));

export function tableArgument(args: Args, k: number, of: string): LuaTable {
  const value = args[k - 1];
  if (value instanceof LuaTable) return value;
  throw typeError(args, k, of, "table");
}

export function functionArgument(args: Args, k: number, of: string): LuaFunction {
  const value = args[k - 1];
  if (typeof value === "function") return value as LuaFunction;
  throw typeError(args, k, of, "function");
}

export function anyArgument(args: Args, k: number, of: string): unknown {
  if (k > args.length) throw argumentError(k, of, "value expected");
  return args[k - 1];
}

/** Makes a library table. In stack traces its functions are named `lua_…`, which tells them from other host functions. */
export function library(functions: Readonly<Record<string, LuaFunction>>): LuaTable {
  const table = new LuaTable();
  for (const [name, made] of Object.entries(functions)) table.set(name, hostFunction(name, made));
  return table;
}

/** Names a host function `lua_…`, so that it counts as a level of the program's stack. */
export function hostFunction(name: string, made: LuaFunction): LuaFunction {
  return Object.defineProperty(made, "name", { value: `lua_${name}` });
}

/** The same for a method whose list of arguments leaves out its userdata. */
export function hostMethod(name: string, made: LuaFunction): LuaFunction {
  return hostFunction(`self_${name}`, made);
}
