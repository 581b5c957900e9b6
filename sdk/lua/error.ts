import type { ScriptPlace } from "../schema.ts";
import { spend } from "./meter.ts";

/** What a Lua program throws: any value. Not a subclass of Error, whose stack trace would cost more than all else. */
export class LuaError {
  readonly value: unknown;

  constructor(value: unknown) {
    this.value = value;
  }
}

/** An error that occurred while the program waited: its message does not begin with a place in the program. */
export class LateError extends LuaError {}

/** A syntax error in a Lua source. */
export class SyntaxError51 extends Error {
  /** The source ends too early, so more text could complete it. */
  readonly atEnd: boolean;

  constructor(message: string, atEnd: boolean) {
    super(message);
    this.atEnd = atEnd;
  }
}

/** How messages name a chunk: by its first line in quotes; `@file` and `=name` as they are (LuaJIT's lj_debug_shortname). */
export function chunkId(name: string): string {
  if (name.startsWith("=")) return name.slice(1, 60);
  if (name.startsWith("@")) return name.length <= 60 ? name.slice(1) : `...${name.slice(-56)}`;
  let size = 0;
  while (size < 48 && size < name.length && name.charCodeAt(size) >= 32) size++;
  if (size === name.length) return `[string "${name}"]`;
  return `[string "${name.slice(0, Math.min(size, 45))}..."]`;
}

// ---- where the program is

/** V8's `stackTraceLimit` is how many frames a stack trace holds. */
const Errors = Error as ErrorConstructor & { stackTraceLimit: number };
const FRAMES = 64;
/** Cost of reading a stack trace, in turns of a loop. */
const STACK_COST = 1000;
const CHUNK_FRAME = /tsproxy-lua\/(\d+)(?:\/\S*)?:(\d+):(\d+)\)?$/;
/** Frames of library functions, which count as levels. `self_`: a method whose list of arguments leaves out its userdata. */
const HOST_FRAME = /^\s*at (?:\w+\.)*lua_(self_)?(\w*) \((?!<anonymous>)/;
/** As in LuaJIT these functions leave their level to the metamethod that they call. */
const PASSING_ON = /^(?:pairs|tostring)$/;
/** Most chunks that are kept, since programs may load chunks without end. Messages of later chunks begin with "?". */
const CHUNKS_MAX = 4096;
/** Most chars of compiled code that are kept for messages. Those of later chunks do not know by what name a function was called. */
const CODE_MAX = 4 * 1024 * 1024;

interface Chunk {
  readonly id: string;
  /** The compiled code, line by line. */
  readonly lines: readonly string[];
}
const chunks: Chunk[] = [{ id: "?", lines: [] }];
const chunkNumbers = new Map<string, number>();
let codeKept = 0;

/** Returns a number that stands for the chunk in stack traces; 0: there are too many chunks. `code`: what it was compiled to. */
export function registerChunk(id: string, code: string): number {
  const isKept = codeKept + code.length <= CODE_MAX;
  const key = `${id}\n${isKept ? code : ""}`;
  let number = chunkNumbers.get(key);
  if (number === undefined) {
    if (chunks.length >= CHUNKS_MAX) return 0;
    number = chunks.push({ id, lines: isKept ? code.split("\n") : [] }) - 1;
    chunkNumbers.set(key, number);
    if (isKept) codeKept += code.length;
  }
  return number;
}

/** The URL by which stack traces and debuggers name a chunk: its number, and the line and file where it begins. */
export function sourceUrl(number: number, place: ScriptPlace | undefined): string {
  const url = `tsproxy-lua/${number}`;
  return place === undefined ? url : `${url}/${place.line}/${encodeURI(place.file)}`;
}

/** An active function of the program, or of a library. */
interface Level {
  /** `chunk:line:`; "" for a library function. */
  readonly place: string;
  /** The compiled code up to the arguments of the call that is under way. */
  readonly before: string;
  /** A method whose list of arguments leaves out its userdata. */
  readonly takesSelf: boolean;
}

/** The compiler puts a space before the arguments of a call in tail position. */
const TAIL_CALL = /\) $/;
/** How compiled code names the callee, for messages: `callable(…,"local 'f'")`. */
const CALLEE = /"(method|local|upvalue|global|field) '([^']*)'"\) ?$/;
const CALLEE_SIZE = 160;
/** In front of the iterator's call of `for … in`, which LuaJIT names so. */
const ITERATOR = /\$r\d+=$/;

/** All active functions, innermost first. As in LuaJIT a function that has called another in tail position is none of them. */
function levels(): Level[] {
  spend(STACK_COST);
  const limit = Errors.stackTraceLimit;
  Errors.stackTraceLimit = FRAMES;
  const stack = String(new Error("").stack);
  Errors.stackTraceLimit = limit;
  const found: Level[] = [];
  for (const frame of stack.split("\n")) {
    const at = CHUNK_FRAME.exec(frame);
    if (at === null) {
      const host = HOST_FRAME.exec(frame);
      if (host !== null && !(found.length > 0 && PASSING_ON.test(host[2]!)))
        found.push({ place: "", before: "", takesSelf: host[1] !== undefined });
      continue;
    }
    const chunk = chunks[Number(at[1])];
    const end = Number(at[3]) - 1;
    const before =
      chunk?.lines[Number(at[2]) - 1]?.slice(Math.max(0, end - CALLEE_SIZE), end) ?? "";
    if (found.length > 0 && TAIL_CALL.test(before)) continue;
    found.push({ place: `${chunk?.id ?? "?"}:${at[2]}:`, before, takesSelf: false });
  }
  return found;
}

/** Each active function, innermost first: where it is, as `chunk:line` or "" for a library function, and by what name it was called. */
export function stackLevels(): readonly { readonly place: string; readonly name: string }[] {
  return levels().map(({ place }, k, all) => ({
    place: place.replace(/:$/, ""),
    name: CALLEE.exec(all[k + 1]?.before ?? "")?.[2] ?? "",
  }));
}

/** Finds the innermost place of the Lua program in a stack trace: `chunk:line: `, as messages begin; "" if there is none. */
export function placeIn(stack = ""): string {
  for (const frame of stack.split("\n")) {
    const chunk = CHUNK_FRAME.exec(frame);
    if (chunk !== null) return `${chunks[Number(chunk[1])]?.id ?? "?"}:${chunk[2]}: `;
  }
  return "";
}

/** The place that `error(message, level)` puts before its message; "" if there is none. */
export function where(level: number): string {
  const place = levels()[level]?.place ?? "";
  return place === "" ? "" : `${place} `;
}

/** Makes the error of an operation that failed in the program itself; its message begins with that place. */
export function runtimeError(message: string): LuaError {
  return new LuaError(`${where(0)}${message}`);
}

/** Makes the error of a library function; its message begins with the place of the call. */
export function libraryError(message: string): LuaError {
  return new LuaError(`${where(1)}${message}`);
}

/**
 * Makes the error of argument `k` of a library function, counted from 1 within its list of arguments. As in LuaJIT the message
 * counts and names as the caller wrote the call: `of` is the name if the caller's code is not known, "?" stands for no name.
 */
export function argumentError(k: number, of: string, message: string): LuaError {
  const [host, caller] = levels();
  const place = caller === undefined || caller.place === "" ? "" : `${caller.place} `;
  const before = caller?.before ?? "";
  const [, form, written] = CALLEE.exec(before) ?? [];
  const isUnnamed = place === "" || /\) ?$/.test(before);
  const name = written ?? (ITERATOR.test(before) ? "(for generator)" : isUnnamed ? "?" : of);
  const counted = k + (host?.takesSelf === true ? 1 : 0) - (form === "method" ? 1 : 0);
  return new LuaError(
    counted === 0
      ? `${place}calling '${name}' on bad self (${message})`
      : `${place}bad argument #${counted} to '${name}' (${message})`,
  );
}
