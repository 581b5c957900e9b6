// Hot path: one run for each request whose cluster is chosen.
import {
  ConfigError,
  type Log,
  type LuaSource,
  latin1Decode,
  latin1Encode,
  type RequestHeaders,
  type SetupContext,
  utf8Decode,
  utf8Encode,
} from "@tsproxy/sdk";
import {
  bytesMade,
  isPending,
  LuaError,
  type LuaFunction,
  LuaState,
  loggedText,
  numberText,
  Scope,
  Stopped,
  thrownValue,
  writeLog,
} from "@tsproxy/sdk/lua";
import { BoundedLog } from "./bounded-log.ts";
import { RouteHandle, type RouteKinds, routeKinds } from "./route-handle.ts";

/** Time limit of one run; the worker and all its streams wait meanwhile. */
const RUN_MS = 20;
/**
 * Bytes that a script may allocate before it is loaded anew. It runs in the worker's own isolate, so the memory that it keeps
 * between requests must be bounded, and it cannot keep more than it has allocated.
 */
const MADE_MAX = 64 * 1024 * 1024;

/** A loaded script of the config, with its function `envoy_on_route`. */
export class Script {
  readonly #source: LuaSource;
  readonly #log: Log;
  readonly #kinds: RouteKinds;
  #state!: LuaState;
  #onRoute!: LuaFunction;
  #made = 0;

  /** Throws ConfigError if the script does not load or defines no `envoy_on_route`. */
  constructor(source: LuaSource, cx: SetupContext) {
    this.#source = source;
    this.#log = new BoundedLog(cx.log);
    this.#kinds = routeKinds(this.#log, cx.clusters);
    this.#load();
  }

  #load(): void {
    const { text, modules } = this.#source;
    this.#made = 0;
    const state = new LuaState({
      runMs: RUN_MS,
      print: (line) => writeLog(this.#log, "info", line),
      module: (name) => {
        const found = Object.hasOwn(modules, name) ? modules[name] : undefined;
        return found && { ...found, text: toBytes(found.text) };
      },
    });
    const source = toBytes(text);
    try {
      state.call(state.load(source, source, this.#source.place));
    } catch (error) {
      throw new ConfigError("source_code", `script load error: ${messageOf(error)}`);
    }
    const onRoute = state.globals.get("envoy_on_route");
    if (typeof onRoute !== "function")
      throw new ConfigError("source_code", "the script defines no function envoy_on_route");
    this.#state = state;
    this.#onRoute = onRoute as LuaFunction;
  }

  /** Runs `envoy_on_route`; undefined: it failed or returned no name, either of which is logged. */
  clusterFor(request: RequestHeaders): string | undefined {
    const before = bytesMade();
    const scope = new Scope();
    const handle = new RouteHandle(this.#kinds, request, scope);
    let answer: unknown;
    this.#state.enter();
    try {
      const result = this.#onRoute(handle);
      if (isPending(result)) throw new LuaError("script performed an unexpected yield");
      answer = Array.isArray(result) ? result.at(-1) : result;
    } catch (error) {
      this.#log.error(`script log: ${messageOf(error)}, use default cluster`);
      return undefined;
    } finally {
      scope.isOver = true;
      this.#made += bytesMade() - before;
      if (this.#made > MADE_MAX) this.#reload();
    }
    if (typeof answer === "string") return fromBytes(answer);
    if (typeof answer === "number") return numberText(answer);
    this.#log.error("script log: return value is not string, use default cluster");
    return undefined;
  }

  #reload(): void {
    try {
      this.#load();
    } catch (error) {
      // The old state stays in use; the next reload is tried after another MADE_MAX bytes.
      this.#log.error(`script log: ${messageOf(error)}`);
    }
  }
}

/** Converts a text to its UTF-8 bytes, one char per byte. */
function toBytes(text: string): string {
  const bytes = utf8Encode(text);
  return latin1Decode(bytes, 0, bytes.length);
}
function fromBytes(text: string): string {
  const bytes = latin1Encode(text);
  return utf8Decode(bytes, 0, bytes.length);
}

function messageOf(error: unknown): string {
  if (error instanceof Stopped) return error.reason;
  if (error instanceof ConfigError) return error.message;
  const value = error instanceof LuaError ? error.value : thrownValue(error);
  return typeof value === "string" ? loggedText(value) : "unspecified lua error";
}
