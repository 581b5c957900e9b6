import { ConfigError, type Counter, type LuaSource, type SetupContext } from "@tsproxy/sdk";
import {
  bufferKind,
  LuaError,
  type LuaFunction,
  LuaState,
  LuaTable,
  loggedText,
  type StatsData,
  Stopped,
  thrownValue,
} from "@tsproxy/sdk/lua";
import { keyKind } from "./crypto.ts";
import { handleKind, NAME } from "./handle.ts";
import { headersKind } from "./headers.ts";
import { type InfoKinds, infoKinds } from "./info.ts";
import { toUtf8 } from "./values.ts";

/** What a filter's config determines for all scripts that the filter runs, including those of routes. */
export interface Settings {
  readonly executions: Counter;
  readonly errors: Counter;
  /** `handle:stats()`. */
  readonly stats: StatsData;
  /** Whether the route is chosen anew after a script has edited the request headers. */
  readonly clearsRoute: boolean;
}

/** One loaded script of the config, with globals of its own. The constructor throws ConfigError if the script does not load. */
export class Script {
  readonly state: LuaState;
  readonly onRequest: LuaFunction | undefined;
  readonly onResponse: LuaFunction | undefined;
  readonly kinds: InfoKinds;
  readonly tables: Readonly<Record<"handle" | "headers" | "body" | "key", LuaTable>>;
  readonly #cx: SetupContext;

  constructor(source: LuaSource, cx: SetupContext) {
    this.#cx = cx;
    const { log } = cx;
    this.state = new LuaState({
      print: (text) => log.info(loggedText(text)),
      module: (name) => {
        const found = Object.hasOwn(source.modules, name) ? source.modules[name] : undefined;
        return found && { ...found, text: toUtf8(found.text) };
      },
    });
    const { configName = NAME } = cx;
    this.kinds = infoKinds(log, configName);
    this.tables = {
      handle: handleKind(cx, log),
      headers: headersKind(log),
      body: bufferKind(log),
      key: keyKind(log),
    };
    const { globals } = this.state;
    const resolution = new LuaTable();
    resolution.set("MILLISECOND", 0);
    resolution.set("MICROSECOND", 1);
    globals.set("EnvoyTimestampResolution", resolution);
    const text = toUtf8(source.text);
    try {
      this.state.call(this.state.load(text, text, source.place));
    } catch (error) {
      throw new ConfigError("", `script load error: ${messageOf(error)}`);
    }
    countState(cx);
    this.onRequest = this.#function("envoy_on_request");
    this.onResponse = this.#function("envoy_on_response");
  }

  #function(name: string): LuaFunction | undefined {
    const found = this.state.globals.get(name);
    if (typeof found === "function") return found as LuaFunction;
    this.#cx.log.debug(`${name}() function not found. Lua filter will not hook it.`);
    return undefined;
  }

  /** Whether the script's source contains any of these names, so that it may call a method of that name. */
  uses(...names: readonly string[]): boolean {
    return names.some((name) => this.state.names.has(name));
  }

  /** Logs the error of a failed run. */
  tell(error: unknown): void {
    this.#cx.log.error(`script log: ${messageOf(error)}`);
  }
}

/** Counts Lua states as Envoy does: per script one in each worker, and one in the main thread, which worker 0 counts here. */
function countState(cx: SetupContext): void {
  const states = cx.worker === 0 ? 2 : 1;
  const count = cx.stats.gauge("lua.lua_vm_count");
  count.add(states);
  cx.onDispose(() => count.add(-states));
}

function messageOf(error: unknown): string {
  if (error instanceof Stopped) return error.reason;
  const value = error instanceof LuaError ? error.value : thrownValue(error);
  return typeof value === "string" ? loggedText(value) : "unspecified lua error";
}
