import { openSync } from "node:fs";
import { ENVOY_LOGGERS } from "@tsproxy/sdk";
import { type DestinationStream, type Logger, pino } from "pino";
import { lineFormat } from "./log-format.ts";
import { LEVELS, type LevelName, type LogOptions } from "./log-options.ts";

export type Log = Logger;

/** The logger of core itself; each package has a logger of the package's name. */
export const MAIN_LOGGER = "main";

/** If the reader of the output stops reading, lines beyond this many waiting bytes are dropped; the proxy goes on. */
const MAX_BUFFERED_BYTES = 1024 * 1024;

/**
 * The log. `reopen` opens its file again, after the file was moved away. `flush` writes the lines that wait, for a process that ends
 * itself by a signal; one that exits does so by itself.
 */
export interface OpenLog {
  readonly log: Log;
  reopen(): void;
  flush(): void;
}

/** Opens the log on stderr or in a file: one line for each event, readable on a terminal, else JSON, or in the given format. */
export async function openLog(options: LogOptions): Promise<OpenLog> {
  const { path, format } = options;
  const isForEyes = path === undefined && format === undefined && process.stderr.isTTY === true;
  const destination = pino.destination({
    // Opened synchronously: with a file that is still being opened, lines logged just before an early exit would be lost.
    fd: path === undefined ? 2 : openSync(path, "a"),
    sync: false,
    minLength: 0,
    maxLength: MAX_BUFFERED_BYTES,
  });
  if (path !== undefined) Object.assign(destination, { file: path });
  // A closed stderr or a full disk must not end the proxy.
  destination.on("error", () => {});
  process.on("exit", () => flush(destination));
  return {
    log: logTo(destination, options, isForEyes ? await prettyLines() : undefined),
    reopen: () => path !== undefined && destination.reopen(),
    flush: () => flush(destination),
  };
}

/** Imported only for a terminal: it takes 4 ms of a start. */
async function prettyLines(): Promise<(line: string) => string> {
  const { prettyFactory } = await import("pino-pretty");
  return prettyFactory({
    colorize: process.env.NO_COLOR === undefined,
    translateTime: "SYS:HH:MM:ss.l",
    singleLine: true,
  });
}

/** As `openLog`, into any stream. `pretty` formats the JSON lines, unless the options name a format. */
export function logTo(
  stream: DestinationStream,
  options: LogOptions,
  pretty?: (line: string) => string,
): Log {
  const { format } = options;
  const settings = {
    level: leastLevel(options),
    base: null,
    formatters: { level: (label: string) => ({ level: label }) },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  const form = format === undefined ? pretty : lineFormat(format, options.escaped);
  const write = (line: string): void => void stream.write(form?.(line) ?? line);
  const wanted = (line: string): boolean => {
    if (Object.keys(options.components).length === 0) return true;
    const said = JSON.parse(line) as { level: string; filter?: unknown };
    return rank(said.level) >= rank(LEVELS[levelOf(options, said.filter)]);
  };
  return pino(settings, { write: (line) => wanted(line) && write(line) });
}

/** The level of a package's logger, or of core's own (`filter` undefined). */
export function levelOf({ level, components }: LogOptions, filter: unknown): LevelName {
  return components[componentOf(components, filter) ?? ""] ?? level;
}

/** The most verbose of all levels: pino has to let lines of that level pass. */
export function leastLevel({ level, components }: LogOptions): string {
  const levels = [level, ...Object.values(components)].map((name) => LEVELS[name]);
  return levels.reduce((a, b) => (rank(a) <= rank(b) ? a : b));
}

/** The component in the options that means this package. Undefined: none does. */
function componentOf(components: LogOptions["components"], filter: unknown): string | undefined {
  const logger = typeof filter === "string" ? filter : MAIN_LOGGER;
  return componentNames(logger).find((word) => Object.hasOwn(components, word));
}

/** What a logger may be called in `--component-log-level`, the most exact name first. */
export function componentNames(logger: string): string[] {
  const [kind = "", name] = logger.split("/");
  const envoys = Object.keys(ENVOY_LOGGERS).filter((envoy) => ENVOY_LOGGERS[envoy] === logger);
  return [logger, ...(name === undefined ? [] : [name]), kind, ...envoys];
}

function rank(level: string): number {
  return level === "silent" ? Number.POSITIVE_INFINITY : (pino.levels.values[level] ?? 0);
}

function flush(destination: { flushSync(): void }): void {
  try {
    destination.flushSync();
  } catch {
    // The output is closed, or was never opened.
  }
}
