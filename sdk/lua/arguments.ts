/** What a function of the library was called with, checked. Messages as LuaJIT's. */
import { type LuaError, libraryError } from "./error.ts";
import { numberText } from "./number.ts";
import { type LuaFunction, toNumber, typeOf } from "./runtime.ts";
import { LuaTable } from "./table.ts";

export type Args = readonly unknown[];

export function argumentError(k: number, of: string, message: string): LuaError {
  return libraryError(`bad argument #${k} to '${of}' (${message})`);
}

export function typeError(args: Args, k: number, of: string, expected: string): LuaError {
  const got = k > args.length ? "no value" : typeOf(args[k - 1]);
  return argumentError(k, of, `${expected} expected, got ${got}`);
}

/** Arguments count from 1, as in messages. */
export function textArgument(args: Args, k: number, of: string): string {
  const value = args[k - 1];
  if (typeof value === "string") return value;
  if (typeof value === "number") return numberText(value);
  throw typeError(args, k, of, "string");
}

/** The same of an argument in hand; `count`: how many were given. */
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

/** Cut towards zero. */
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

/** A table of functions. In stacks they are called `lua_` and their name, which tells them from the host's own. */
export function library(functions: Readonly<Record<string, LuaFunction>>): LuaTable {
  const table = new LuaTable();
  for (const [name, made] of Object.entries(functions)) table.set(name, hostFunction(name, made));
  return table;
}

/** Lets a function of the host count as a level of the program's stack. */
export function hostFunction(name: string, made: LuaFunction): LuaFunction {
  return Object.defineProperty(made, "name", { value: `lua_${name}` });
}
