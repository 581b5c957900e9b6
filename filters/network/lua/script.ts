import {
  ConfigError,
  type Counter,
  latin1Decode,
  type SetupContext,
  utf8Encode,
} from "@tsproxy/sdk";
import {
  bufferKind,
  LuaError,
  type LuaFunction,
  LuaState,
  type LuaTable,
  loggedText,
  StatsData,
  Stopped,
  thrownValue,
  writeLog,
} from "@tsproxy/sdk/lua";
import type { Config } from "./config.ts";
import { connectionKind } from "./connection.ts";

const HOOKS = ["onNewConnection", "onData", "onWrite", "onClose"] as const;
export type HookName = (typeof HOOKS)[number];

/** The loaded script of one filter. The constructor throws ConfigError if it does not load or defines no hook. */
export class Script {
  readonly cx: SetupContext;
  readonly state: LuaState;
  readonly hooks: Readonly<Partial<Record<HookName, LuaFunction>>>;
  readonly stats: StatsData;
  readonly tables: Readonly<Record<"connection" | "buffer", LuaTable>>;
  readonly #errors: Counter;
  readonly #executions: Counter;

  constructor({ source_code, stat_prefix }: Config, cx: SetupContext) {
    const { text, modules } = source_code;
    this.cx = cx;
    const { log } = cx;
    const prefix = `lua.${stat_prefix === "" ? "" : `${stat_prefix}.`}`;
    const stats = cx.stats.scope(prefix);
    this.#errors = stats.counter("errors");
    this.#executions = stats.counter("executions");
    this.stats = new StatsData(log, stats);
    this.tables = { connection: connectionKind(log), buffer: bufferKind(log) };
    this.state = new LuaState({
      print: (line) => writeLog(log, "info", line),
      module: (name) => {
        const found = Object.hasOwn(modules, name) ? modules[name] : undefined;
        return found && { ...found, text: toBytes(found.text) };
      },
    });
    const source = toBytes(text);
    try {
      this.state.call(this.state.load(source, source, source_code.place));
    } catch (error) {
      throw new ConfigError("source_code", `script load error: ${messageOf(error)}`);
    }
    const found: Partial<Record<HookName, LuaFunction>> = {};
    for (const name of HOOKS) {
      const hook = this.state.globals.get(name);
      if (typeof hook === "function") found[name] = hook as LuaFunction;
    }
    if (Object.keys(found).length === 0)
      throw new ConfigError("source_code", `the script defines none of ${HOOKS.join(", ")}`);
    this.hooks = found;
  }

  /** Called before each run of a hook: counts it and starts its time limit. */
  enter(): void {
    this.#executions.inc();
    this.state.enter();
  }

  /** Counts and logs the error of a failed run; the connection goes on. */
  failed(error: unknown): void {
    this.#errors.inc();
    this.cx.log.error(`script log: ${messageOf(error)}`);
  }
}

/** Converts a text to its UTF-8 bytes, one char per byte. */
function toBytes(text: string): string {
  const bytes = utf8Encode(text);
  return latin1Decode(bytes, 0, bytes.length);
}

function messageOf(error: unknown): string {
  if (error instanceof Stopped) return error.reason;
  const value = error instanceof LuaError ? error.value : thrownValue(error);
  return typeof value === "string" ? loggedText(value) : "unspecified lua error";
}
