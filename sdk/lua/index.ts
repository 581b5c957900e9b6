/**
 * Lua 5.1 in LuaJIT's dialect, compiled to JavaScript where it is loaded. For packages that run Lua scripts: a program stays in
 * the isolate that loads it and is bounded in time, in the length of texts and in depth.
 */
export * from "./arguments.ts";
export { HostWait } from "./base-library.ts";
export { BufferData, bufferKind } from "./buffer.ts";
export { LateError, LuaError, libraryError, runtimeError } from "./error.ts";
export { carryOut, type HttpCall, headersFromTable, readCall, sendOff } from "./http-call.ts";
export { type HotMethod, kind, loggedText, type Method, refused, writeLog } from "./kinds.ts";
export { bytesMade, Stopped } from "./meter.ts";
export { numberText } from "./number.ts";
export {
  all,
  call,
  callable,
  isPending,
  type LuaFunction,
  NONE,
  rawText,
  Scope,
  thrownValue,
  toText,
  truth,
  typeOf,
  Userdata,
  wait,
} from "./runtime.ts";
export { StatsData } from "./script-stats.ts";
export { LuaState, type StateOptions } from "./state.ts";
export { LuaTable } from "./table.ts";
