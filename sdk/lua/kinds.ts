import { latin1Encode, utf8Decode } from "../bytes.ts";
import type { Log } from "../extension.ts";
import { type Args, argumentError, hostFunction, textArgument } from "./arguments.ts";
import { LuaError, libraryError } from "./error.ts";
import { type LuaFunction, NONE, Userdata } from "./runtime.ts";
import { LuaTable } from "./table.ts";

/** A failure that Envoy's own code finds: its message has no place before it. */
export function refused(message: string): LuaError {
  return new LuaError(message);
}

/** What scripts write to the log. Bytes that are no UTF-8 become U+FFFD. */
export function writeLog(log: Log, level: "debug" | "info" | "warn" | "error", text: string): void {
  const bytes = latin1Encode(text);
  log[level](`script log: ${utf8Decode(bytes, 0, bytes.length)}`);
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
/** One that every request may call: its first two arguments as such, and how many there are. Makes no list of them (60 ns). */
export type HotMethod<T> = (self: T, first: unknown, second: unknown, count: number) => unknown;

/**
 * The metatable of one kind of userdata, as Envoy makes them: methods, `__index` on itself, and the log functions on everything.
 * `args` are what stands behind the userdata in the call. What belongs to a run is refused when that waits or has ended.
 */
export function kind<T extends Userdata>(
  log: Log,
  _type: { prototype: T },
  methods: Readonly<Record<string, Method<T>>>,
  hot: Readonly<Record<string, HotMethod<T>>> = {},
): LuaTable {
  const table = new LuaTable();
  // Programs cannot make userdata of their own, nor give one another metatable.
  const isOne = (self: unknown): self is T =>
    self instanceof Userdata && self.metatable === table && self.scope?.isOver !== true;
  for (const [name, method] of Object.entries(hot)) {
    const called = function (self: unknown, first: unknown, second: unknown): unknown {
      // biome-ignore lint/complexity/noArguments: a rest parameter would make the list that this form is to spare.
      if (isOne(self)) return method(self, first, second, arguments.length - 1);
      throw unusable(self, name);
    };
    table.set(name, hostFunction(name, called as LuaFunction));
  }
  for (const [name, method] of Object.entries(methods)) {
    const called: LuaFunction = (self, ...args) => {
      if (isOne(self)) return method(self, args);
      throw unusable(self, name);
    };
    table.set(name, hostFunction(name, called));
  }
  for (const [name, level] of Object.entries(LOG_LEVELS)) {
    const write: LuaFunction = (self, ...args) => {
      if (!(self instanceof Userdata) || self.scope?.isOver === true) throw unusable(self, name);
      writeLog(log, level, textArgument(args, 1, name));
      return NONE;
    };
    table.set(name, hostFunction(name, write));
  }
  table.set("__index", table);
  return table;
}

function unusable(self: unknown, name: string): LuaError {
  if (self instanceof Userdata && self.scope?.isOver === true)
    return libraryError("object used outside of proper scope");
  return argumentError(1, name, "userdata of another kind, or none: call it with a colon");
}
