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
const CHUNK_FRAME = /tsproxy-lua\/(\d+)(?:\/\S*)?:(\d+):\d+\)?$/;
/** Library functions have such names, so that they count as levels. */
const HOST_FRAME = /^\s*at (?:\w+\.)*lua_/;
/** Most chunk names that are kept, since programs may load chunks without end. Messages of later chunks begin with "?". */
const CHUNKS_MAX = 4096;
const chunks: string[] = ["?"];
const chunkNumbers = new Map<string, number>();

/** Returns a number that stands for the chunk's name in stack traces; 0: there are too many chunks. */
export function registerChunk(id: string): number {
  let number = chunkNumbers.get(id);
  if (number === undefined) {
    if (chunks.length >= CHUNKS_MAX) return 0;
    number = chunks.push(id) - 1;
    chunkNumbers.set(id, number);
  }
  return number;
}

/** The URL by which stack traces and debuggers name a chunk: its number, and the line and file where it begins. */
export function sourceUrl(number: number, place: ScriptPlace | undefined): string {
  const url = `tsproxy-lua/${number}`;
  return place === undefined ? url : `${url}/${place.line}/${encodeURI(place.file)}`;
}

/** `chunk:line:` of each active function, innermost first; "" for library functions. */
function levels(): string[] {
  spend(STACK_COST);
  const limit = Errors.stackTraceLimit;
  Errors.stackTraceLimit = FRAMES;
  const stack = String(new Error("").stack);
  Errors.stackTraceLimit = limit;
  const found: string[] = [];
  for (const frame of stack.split("\n")) {
    const chunk = CHUNK_FRAME.exec(frame);
    if (chunk !== null) found.push(`${chunks[Number(chunk[1])] ?? "?"}:${chunk[2]}:`);
    else if (HOST_FRAME.test(frame)) found.push("");
  }
  return found;
}

/** `chunk:line` of each active function, innermost first; "" for library functions. */
export function stackLevels(): readonly string[] {
  return levels().map((place) => place.replace(/:$/, ""));
}

/** Finds the innermost place of the Lua program in a stack trace: `chunk:line: `, as messages begin; "" if there is none. */
export function placeIn(stack = ""): string {
  for (const frame of stack.split("\n")) {
    const chunk = CHUNK_FRAME.exec(frame);
    if (chunk !== null) return `${chunks[Number(chunk[1])] ?? "?"}:${chunk[2]}: `;
  }
  return "";
}

/** The place that `error(message, level)` puts before its message; "" if there is none. */
export function where(level: number): string {
  const place = levels()[level] ?? "";
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
