import { latin1Encode, utf8Decode } from "../bytes.ts";
import type { Log } from "../extension.ts";
import { type Args, hostMethod, textArgument } from "./arguments.ts";
import { argumentError, LuaError, libraryError } from "./error.ts";
import { type LuaFunction, NONE, typeOf, Userdata } from "./runtime.ts";
import { LuaTable } from "./table.ts";

/** Makes an error like those of Envoy's own code: its message does not begin with a place in the program. */
export function refused(message: string): LuaError {
  return new LuaError(message);
}

/** Most bytes of a script's text that are logged, since decoding takes time from other streams. */
const LOGGED_MAX = 4096;

/** Cuts a script's text to LOGGED_MAX bytes for the log; bytes that are not UTF-8 become U+FFFD. */
export function loggedText(text: string): string {
  const bytes = latin1Encode(text.slice(0, LOGGED_MAX));
  return utf8Decode(bytes, 0, bytes.length);
}

/** Writes a script's text to the log. */
export function writeLog(log: Log, level: "debug" | "info" | "warn" | "error", text: string): void {
  log[level](`script log: ${loggedText(text)}`);
}

const LOG_LEVELS = {
  logTrace: "debug",
  logDebug: "debug",
  logInfo: "info",
  logWarn: "warn",
  logErr: "error",
  logCritical: "error",
} as const;

export type Method<T> = (self: T, args: Args) => unknown;
/** A method for hot paths: gets its first two arguments and how many there are, rather than a list, whose making takes 60 ns. */
export type HotMethod<T> = (self: T, first: unknown, second: unknown, count: number) => unknown;

/**
 * Makes the metatable of one kind of userdata, as Envoy does: its methods, the log functions, and itself as `__index`. The `args`
 * of a method do not include the userdata. Calls on a userdata are refused once its scope is over. `typeName`: that of Envoy's
 * class, below its namespace `Envoy.Extensions`, for messages.
 */
export function kind<T extends Userdata>(
  log: Log,
  typeName: string,
  _type: { prototype: T },
  methods: Readonly<Record<string, Method<T>>>,
  hot: Readonly<Record<string, HotMethod<T>>> = {},
): LuaTable {
  const table = new LuaTable();
  const type = mangled(typeName);
  // Programs cannot set a userdata's metatable; `newproxy(like)` copies one, but to an object without fields.
  const isOne = (self: unknown): self is T =>
    self instanceof Userdata && self.metatable === table && self.scope?.isOver !== true;
  for (const [name, method] of Object.entries(hot)) {
    const called = function (self: unknown, first: unknown, second: unknown): unknown {
      // biome-ignore lint/complexity/noArguments: a rest parameter would make the list that hot methods do without.
      if (isOne(self)) return method(self, first, second, arguments.length - 1);
      throw unusable(self, name, type, first === undefined ? 0 : 1);
    };
    table.set(name, hostMethod(name, called as LuaFunction));
  }
  for (const [name, method] of Object.entries(methods)) {
    const called: LuaFunction = (self, ...args) => {
      if (isOne(self)) return method(self, args);
      throw unusable(self, name, type, args.length);
    };
    table.set(name, hostMethod(name, called));
  }
  for (const [name, level] of Object.entries(LOG_LEVELS)) {
    const write: LuaFunction = (self, ...args) => {
      if (!(self instanceof Userdata) || self.scope?.isOver === true)
        throw unusable(self, name, type, args.length);
      writeLog(log, level, textArgument(args, 1, name));
      return NONE;
    };
    table.set(name, hostMethod(name, write));
  }
  table.set("__index", table);
  return table;
}

/** The error of a method called on something else, or on a userdata whose scope is over. `count`: number of its other arguments. */
function unusable(self: unknown, name: string, type: string, count: number): LuaError {
  if (self instanceof Userdata && self.scope?.isOver === true)
    return libraryError("object used outside of proper scope");
  const got = self === undefined && count === 0 ? "no value" : typeOf(self);
  return argumentError(0, name, `${type} expected, got ${got}`);
}

/** Envoy's messages contain the mangled C++ names of its classes: `N5Envoy10Extensions…E`. */
function mangled(typeName: string): string {
  const parts = ["Envoy", "Extensions", ...typeName.split(".")];
  return `N${parts.map((part) => `${part.length}${part}`).join("")}E`;
}
