/** The basic functions, `coroutine`, and the part of `os` that a sandbox may have. */
import {
  anyArgument,
  functionArgument,
  hostFunction,
  integerArgument,
  library,
  numberArgument,
  tableArgument,
  textArgument,
  typeError,
} from "./arguments.ts";
import { dateTable, dateText, timeOf } from "./date.ts";
import { argumentError, LuaError, libraryError, where } from "./error.ts";
import { spend } from "./meter.ts";
import { numberText } from "./number.ts";
import {
  all,
  Coroutine,
  call,
  callable,
  isPending,
  type LuaFunction,
  metamethod,
  metatableOf,
  NONE,
  rawSet,
  rawText,
  thrownValue,
  toNumber,
  toText,
  truth,
  typeOf,
  Userdata,
  wait,
} from "./runtime.ts";
import { LuaTable } from "./table.ts";
import { unpack } from "./table-library.ts";

/** What a program's generator yields when the host must do something before the program goes on. */
export class HostWait {}

/** Holds the table in which a function finds its globals. */
export class Environment {
  table: LuaTable;
  /** The function whose environment this is. */
  owner: LuaFunction | undefined = undefined;

  constructor(table: LuaTable) {
    this.table = table;
  }
}

const environments = new WeakMap<object, Environment>();

/** Makes a function with an environment of its own, which `setfenv` may change. */
export function withEnv(
  table: LuaTable,
  make: (environment: Environment) => LuaFunction,
): LuaFunction {
  const environment = new Environment(table);
  const made = make(environment);
  environment.owner = made;
  environments.set(made, environment);
  return made;
}

/** Environments of the functions that run now, outermost first; kept only in programs that use `getfenv` or `setfenv`. */
export const levels: Environment[] = [];

const levelled = new WeakMap<
  object,
  (environment: Environment, args: readonly unknown[]) => unknown
>();

/** Binds `getfenv` or `setfenv` to the environment of the function that calls it; returns any other callee as it is. */
export function within(callee: unknown, environment: Environment): unknown {
  const made = typeof callee === "function" ? levelled.get(callee) : undefined;
  return made === undefined ? callee : (...args: unknown[]) => made(environment, args);
}

/** What the basic functions need of the state that they belong to. */
export interface BaseHost {
  readonly globals: LuaTable;
  print(text: string): void;
  compile(source: string, name: string, environment: LuaTable): LuaFunction;
}

export const next: LuaFunction = (...args) => {
  const table = tableArgument(args, 1, "next");
  const after = table.entryAfter(args[1]);
  if (after < 0) throw libraryError("invalid key to 'next'");
  const at = table.entryFrom(after);
  return at < 0 ? undefined : [table.keyAt(at), table.valueAt(at)];
};
hostFunction("next", next);

const nextIndexed: LuaFunction = (table, k) => {
  const at = (k as number) + 1;
  const value = table instanceof LuaTable ? table.get(at) : undefined;
  return value === undefined ? undefined : [at, value];
};
hostFunction("ipairs_next", nextIndexed);

/** `pcall` and `xpcall`: `failed` makes the result for what was thrown. */
function protectedCall(
  callee: LuaFunction,
  args: readonly unknown[],
  failed: (error: unknown) => readonly unknown[],
): unknown {
  let result: unknown;
  try {
    result = callee(...args);
  } catch (error) {
    return failed(error);
  }
  return isPending(result) ? lua_waitProtected(result, failed) : [true, ...all(result)];
}

function* lua_waitProtected(
  pending: unknown,
  failed: (error: unknown) => readonly unknown[],
): Generator<unknown, unknown, unknown> {
  try {
    return [true, ...all(yield* wait(pending))];
  } catch (error) {
    return failed(error);
  }
}

export function baseLibrary(host: BaseHost): LuaTable {
  const { globals } = host;
  /** The environment of level 0, in which chunks run that are loaded from now on. */
  let outermost = globals;
  const load = (source: string, name: string, environment: LuaTable): unknown => {
    try {
      return host.compile(source, name, environment);
    } catch (error) {
      return [undefined, thrownValue(error)];
    }
  };
  return library({
    assert: (...args) => {
      if (truth(anyArgument(args, 1, "assert"))) return args;
      const message = args.length > 1 ? args[1] : "assertion failed!";
      throw typeof message === "string" ? libraryError(message) : new LuaError(message);
    },
    collectgarbage: (...args) => {
      const option = args[0] === undefined ? "collect" : textArgument(args, 1, "collectgarbage");
      if (!COLLECTING.has(option))
        throw argumentError(1, "collectgarbage", `invalid option '${option}'`);
      return 0;
    },
    error: (...args) => {
      const [value, level] = args;
      const depth = level === undefined ? 1 : integerArgument(args, 2, "error");
      const isText = typeof value === "string" || typeof value === "number";
      throw new LuaError(isText && depth > 0 ? where(depth) + toText(value) : value);
    },
    gcinfo: () => 0,
    getfenv: inEnvironment((own, args) => {
      const [what] = args;
      if (typeof what === "function") return environments.get(what)?.table ?? globals;
      return environmentAt(what ?? 1, own)?.table ?? outermost;
    }),
    getmetatable: (...args) => {
      const table = metatableOf(anyArgument(args, 1, "getmetatable"));
      const hidden = table?.getText("__metatable");
      return hidden === undefined ? table : hidden;
    },
    ipairs: (...args) => {
      anyArgument(args, 1, "ipairs");
      const handler = metamethod(args[0], "__ipairs");
      if (handler !== undefined) return threeOf(callable(handler)(args[0]));
      return [nextIndexed, tableArgument(args, 1, "ipairs"), 0];
    },
    load: (...args) => {
      const [given, name, , environment] = args;
      const table = environment instanceof LuaTable ? environment : outermost;
      const source = typeof given === "number" ? numberText(given) : given;
      if (typeof source === "string")
        return load(source, typeof name === "string" ? name : source, table);
      const read = functionArgument(args, 1, "load");
      let text = "";
      for (;;) {
        const part = call(read);
        if (part === undefined || part === "") break;
        if (typeof part !== "string") return [undefined, "reader function must return a string"];
        text += part;
      }
      return load(text, typeof name === "string" ? name : "=(load)", table);
    },
    loadstring: (...args) => {
      const source = textArgument(args, 1, "loadstring");
      return load(source, typeof args[1] === "string" ? args[1] : source, outermost);
    },
    newproxy: (...args) => {
      const [like] = args;
      if (like === true) return new Userdata(new LuaTable());
      return new Userdata(like instanceof Userdata ? like.metatable : undefined);
    },
    next,
    pairs: (...args) => {
      const handler = metamethod(args[0], "__pairs");
      if (handler !== undefined) return threeOf(callable(handler)(args[0]));
      return [next, tableArgument(args, 1, "pairs"), undefined];
    },
    pcall: (...args) => {
      const callee = callable(anyArgument(args, 1, "pcall"));
      return protectedCall(callee, args.slice(1), (error) => [false, thrownValue(error)]);
    },
    print: (...args) => {
      host.print(args.map((value) => toText(value)).join("\t"));
      return NONE;
    },
    rawequal: (...args) => anyArgument(args, 1, "rawequal") === anyArgument(args, 2, "rawequal"),
    rawget: (...args) => tableArgument(args, 1, "rawget").get(args[1]),
    rawlen: (...args) => {
      const [value] = args;
      if (typeof value === "string" || value instanceof LuaTable) return value.length;
      throw argumentError(1, "rawlen", "table or string expected");
    },
    rawset: (...args) => {
      rawSet(tableArgument(args, 1, "rawset"), args[1], args[2]);
      return args[0];
    },
    select: (...args) => {
      if (args[0] === "#") return args.length - 1;
      const at = integerArgument(args, 1, "select");
      if (at < 0 && -at < args.length) return args.slice(args.length + at);
      if (at <= 0) throw argumentError(1, "select", "index out of range");
      return args.slice(at);
    },
    setfenv: inEnvironment((own, args) => {
      const table = tableArgument(args, 2, "setfenv");
      const [what] = args;
      if (what === 0) {
        outermost = table;
        return NONE;
      }
      const environment =
        typeof what === "function" ? environments.get(what) : environmentAt(what, own);
      if (environment === undefined)
        throw libraryError("'setfenv' cannot change environment of given object");
      environment.table = table;
      return environment.owner;
    }),
    setmetatable: (...args) => {
      const table = tableArgument(args, 1, "setmetatable");
      const [, metatable] = args;
      if (args.length < 2 || (metatable !== undefined && !(metatable instanceof LuaTable)))
        throw typeError(args, 2, "setmetatable", "nil or table");
      if (table.metatable?.getText("__metatable") !== undefined)
        throw libraryError("cannot change a protected metatable");
      table.metatable = metatable as LuaTable | undefined;
      return table;
    },
    tonumber,
    tostring: (...args) => {
      const value = anyArgument(args, 1, "tostring");
      const handler = typeof value === "string" ? undefined : metamethod(value, "__tostring");
      return handler === undefined ? rawText(value) : call(handler, value);
    },
    type: (...args) => typeOf(anyArgument(args, 1, "type")),
    unpack,
    xpcall: (...args) => {
      const callee = callable(args[0]);
      const handler = callable(args[1]);
      return protectedCall(callee, args.slice(2), (error) => [
        false,
        ...handled(handler, thrownValue(error)),
      ]);
    },
  });
}

/** Calls xpcall's handler. Returns its results, or Lua's message for a handler that fails itself. */
function handled(handler: LuaFunction, value: unknown): readonly unknown[] {
  try {
    return all(handler(value));
  } catch (error) {
    // Throws again if the script was stopped.
    thrownValue(error);
    return ["error in error handling"];
  }
}

const COLLECTING = new Set(
  "stop restart collect count step setpause setstepmul isrunning".split(" "),
);

/** The environment of a stack level, where 1 is the function that calls `getfenv` or `setfenv`; undefined: not known. */
function environmentAt(level: unknown, own: Environment | undefined): Environment | undefined {
  if (typeof level !== "number") return undefined;
  return level === 1 ? own : level > 1 ? levels.at(-level) : undefined;
}

/** Makes `getfenv` or `setfenv`. `own`: the environment of the calling function; undefined: the compiler did not see the call. */
function inEnvironment(
  body: (own: Environment | undefined, args: readonly unknown[]) => unknown,
): LuaFunction {
  const plain: LuaFunction = (...args) => body(undefined, args);
  levelled.set(plain, body);
  return plain;
}

const threeOf = (result: unknown): readonly unknown[] => {
  const [a, b, c] = all(result);
  return [a, b, c];
};

const tonumber: LuaFunction = (...args) => {
  const base = args[1] === undefined ? 10 : integerArgument(args, 2, "tonumber");
  if (base === 10) return toNumber(anyArgument(args, 1, "tonumber"));
  if (base < 2 || base > 36) throw argumentError(2, "tonumber", "base out of range");
  const text = textArgument(args, 1, "tonumber").trim().toLowerCase();
  const sign = text[0] === "-" ? -1 : 1;
  let digits = text[0] === "-" ? text.slice(1) : text;
  if (base === 16 && digits.startsWith("0x")) digits = digits.slice(2);
  if (digits === "") return undefined;
  let value = 0;
  for (const char of digits) {
    const digit = /[0-9a-z]/.test(char) ? Number.parseInt(char, 36) : 36;
    if (digit >= base) return undefined;
    value = value * base + digit;
  }
  return sign * value;
};

// ---- coroutines

let current: Coroutine | undefined;

/** Called when a run begins, which is outside of all coroutines. */
export function leaveCoroutines(): void {
  current = undefined;
  // Setting an array's length, even to the same value, calls into the engine's runtime.
  if (levels.length > 0) levels.length = 0;
}

export function coroutineLibrary(): LuaTable {
  return library({
    create: (...args) => {
      spend(32);
      return new Coroutine(functionArgument(args, 1, "create"));
    },
    resume: (...args) => {
      const [first] = args;
      if (!(first instanceof Coroutine)) throw typeError(args, 1, "resume", "coroutine");
      return resume(first, args.slice(1), (ok, values) => [ok, ...values]);
    },
    running: () => (current === undefined ? [MAIN, true] : [current, false]),
    status: (...args) => {
      const [first] = args;
      if (first instanceof Coroutine) return first.status;
      throw typeError(args, 1, "status", "coroutine");
    },
    // Always true: as in Envoy, each hook runs in a coroutine of its own.
    isyieldable: () => true,
    wrap: (...args) => {
      spend(32);
      const coroutine = new Coroutine(functionArgument(args, 1, "wrap"));
      return hostFunction("wrapped", (...values) =>
        resume(coroutine, values, (ok, results) => {
          if (ok) return results;
          const [error] = results;
          throw new LuaError(typeof error === "string" ? where(1) + error : error);
        }),
      );
    },
    yield: (...args) => yieldOut(args),
  });
}

/** The main program, which `coroutine.running` returns outside of coroutines. It cannot be resumed. */
const MAIN = Object.assign(new Coroutine(() => NONE), { status: "running" as const });

function* yieldOut(values: readonly unknown[]): Generator<unknown, unknown, unknown> {
  return yield values;
}

/** Makes the result of `resume` or of a wrapped function. `ok` false: `values` is the error alone. */
type Answer = (ok: boolean, values: readonly unknown[]) => unknown;

function resume(coroutine: Coroutine, args: readonly unknown[], answer: Answer): unknown {
  if (coroutine.status !== "suspended") {
    const { status } = coroutine;
    const what = status === "normal" ? "non-suspended" : status;
    return answer(false, [`cannot resume ${what} coroutine`]);
  }
  const result = advance(coroutine, args, answer);
  return result instanceof HostWait ? passOn(coroutine, result, answer) : result;
}

/** Yields what the coroutine waits for to the host, then resumes the coroutine with the outcome, until it waits no more. */
function* passOn(
  coroutine: Coroutine,
  first: HostWait,
  answer: Answer,
): Generator<unknown, unknown, unknown> {
  let result: unknown = first;
  while (result instanceof HostWait) result = advance(coroutine, yield result, answer);
  return result;
}

/** Runs a coroutine until it yields, ends or waits for the host. `value`: its arguments, or later what its `yield` returns. */
function advance(coroutine: Coroutine, value: unknown, answer: Answer): unknown {
  const before = current;
  if (before !== undefined) before.status = "normal";
  current = coroutine;
  coroutine.status = "running";
  let step: IteratorResult<unknown, unknown>;
  try {
    if (coroutine.generator === undefined) {
      const { body } = coroutine;
      coroutine.body = undefined;
      const result = body!(...(value as readonly unknown[]));
      if (isPending(result)) {
        coroutine.generator = wait(result);
        step = coroutine.generator.next();
      } else step = { done: true, value: result };
    } else step = coroutine.generator.next(value);
  } catch (error) {
    coroutine.status = "dead";
    back(before);
    return answer(false, [thrownValue(error)]);
  }
  back(before);
  if (step.done === true) {
    coroutine.status = "dead";
    return answer(true, all(step.value));
  }
  if (step.value instanceof HostWait) return step.value;
  coroutine.status = "suspended";
  return answer(true, step.value as readonly unknown[]);
}

/** Returns to the coroutine that resumed the one that has stopped; undefined: the main program. */
function back(before: Coroutine | undefined): void {
  current = before;
  if (before !== undefined) before.status = "running";
}

// ---- os

export function osLibrary(): LuaTable {
  const started = Date.now();
  return library({
    clock: () => (Date.now() - started) / 1000,
    date: (...args) => {
      spend(200);
      const form = args[0] === undefined ? "%c" : textArgument(args, 1, "date");
      const time = args[1] === undefined ? Date.now() : numberArgument(args, 2, "date") * 1000;
      const isUtc = form[0] === "!";
      const rest = isUtc ? form.slice(1) : form;
      return rest.startsWith("*t") ? dateTable(time, isUtc) : dateText(time, rest, isUtc);
    },
    difftime: (...args) =>
      numberArgument(args, 1, "difftime") -
      (args[1] === undefined ? 0 : numberArgument(args, 2, "difftime")),
    time: (...args) =>
      args[0] === undefined
        ? Math.floor(Date.now() / 1000)
        : timeOf(tableArgument(args, 1, "time")),
    setlocale: (...args) =>
      args[0] === undefined || ["", "C", "POSIX"].includes(textArgument(args, 1, "setlocale"))
        ? "C"
        : undefined,
    // A script in a sandbox must see nothing of the machine.
    getenv: () => undefined,
  });
}
