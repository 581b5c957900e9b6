import type { ScriptPlace } from "../schema.ts";
import { spend } from "./meter.ts";

/** What a Lua program throws: any value. It is no Error, for making a stack would cost more than all else. */
export class LuaError {
  readonly value: unknown;

  constructor(value: unknown) {
    this.value = value;
  }
}

/** One that was found while the program waited: its message does not say where that was. */
export class LateError extends LuaError {}

/** A text that is no Lua program. */
export class SyntaxError51 extends Error {
  /** More text could mend it. */
  readonly atEnd: boolean;

  constructor(message: string, atEnd: boolean) {
    super(message);
    this.atEnd = atEnd;
  }
}

/** How messages call a chunk: its first line in quotes; `@file` and `=name` as they are (LuaJIT's lj_debug_shortname). */
export function chunkId(name: string): string {
  if (name.startsWith("=")) return name.slice(1, 60);
  if (name.startsWith("@")) return name.length <= 60 ? name.slice(1) : `...${name.slice(-56)}`;
  let size = 0;
  while (size < 48 && size < name.length && name.charCodeAt(size) >= 32) size++;
  if (size === name.length) return `[string "${name}"]`;
  return `[string "${name.slice(0, Math.min(size, 45))}..."]`;
}

// ---- where the program is

/** V8's own: how many frames a stack holds. */
const Errors = Error as ErrorConstructor & { stackTraceLimit: number };
const FRAMES = 64;
/** Reading a stack takes as long as so many turns of a loop. */
const STACK_COST = 1000;
const CHUNK_FRAME = /tsproxy-lua\/(\d+)(?:\/\S*)?:(\d+):\d+\)?$/;
/** Functions of the library carry such names, so that they count as levels. */
const HOST_FRAME = /^\s*at (?:\w+\.)*lua_/;
/** Programs may load ever new chunks; messages of those past so many do not say which. */
const CHUNKS_MAX = 4096;
const chunks: string[] = ["?"];
const chunkNumbers = new Map<string, number>();

/** A number that stands for the chunk's name in stacks. */
export function registerChunk(id: string): number {
  let number = chunkNumbers.get(id);
  if (number === undefined) {
    if (chunks.length >= CHUNKS_MAX) return 0;
    number = chunks.push(id) - 1;
    chunkNumbers.set(id, number);
  }
  return number;
}

/** By which stacks and debuggers name a chunk: its number, and the line and file that it begins at. */
export function sourceUrl(number: number, place: ScriptPlace | undefined): string {
  const url = `tsproxy-lua/${number}`;
  return place === undefined ? url : `${url}/${place.line}/${encodeURI(place.file)}`;
}

/** `chunk:line:` of each active function, innermost first; "" for those of the library. */
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

/** The active functions, innermost first: `chunk:line`, or "" for one of the library. */
export function stackLevels(): readonly string[] {
  return levels().map((place) => place.replace(/:$/, ""));
}

/** The place that `error(message, level)` puts before its message; "" if there is none. */
export function where(level: number): string {
  const place = levels()[level] ?? "";
  return place === "" ? "" : `${place} `;
}

/** An operation that failed in the program itself. */
export function runtimeError(message: string): LuaError {
  return new LuaError(`${where(0)}${message}`);
}

/** A function of the library refuses what it was called with. */
export function libraryError(message: string): LuaError {
  return new LuaError(`${where(1)}${message}`);
}
