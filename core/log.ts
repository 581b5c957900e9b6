import { openSync } from "node:fs";
import { type DestinationStream, type Logger, pino } from "pino";
import { lineFormat } from "./log-format.ts";
import { LEVELS, type LevelName, type LogOptions } from "./log-options.ts";

export type Log = Logger;

/** A reader of our output that stops reading costs lines past this many bytes, never the process. */
const MAX_BUFFERED_BYTES = 1024 * 1024;

/** The log, and what to do when its file has been moved away. */
export interface OpenLog {
  readonly log: Log;
  reopen(): void;
}

/** One line an event on stderr or in a file: for eyes on a terminal, JSON for everything else. */
export async function openLog(options: LogOptions): Promise<OpenLog> {
  const { path, format } = options;
  const isForEyes = path === undefined && format === undefined && process.stderr.isTTY === true;
  const destination = pino.destination({
    // Opened here: a file that is still being opened could not take what is said at an early end.
    fd: path === undefined ? 2 : openSync(path, "a"),
    sync: false,
    minLength: 0,
    maxLength: MAX_BUFFERED_BYTES,
  });
  if (path !== undefined) Object.assign(destination, { file: path });
  // A closed stderr, a full disk, must not end the proxy.
  destination.on("error", () => {});
  process.on("exit", () => flush(destination));
  return {
    log: logTo(destination, options, isForEyes ? await prettyLines() : undefined),
    reopen: () => path !== undefined && destination.reopen(),
  };
}

/** Loaded where somebody looks: 4 ms of a start. */
async function prettyLines(): Promise<(line: string) => string> {
  const { prettyFactory } = await import("pino-pretty");
  return prettyFactory({
    colorize: process.env.NO_COLOR === undefined,
    translateTime: "SYS:HH:MM:ss.l",
    singleLine: true,
  });
}

/** The same into any stream; `pretty` makes of JSON what is written, unless the options name a format. */
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

/** Of a package, or of core itself (`filter` undefined). */
export function levelOf({ level, components }: LogOptions, filter: unknown): LevelName {
  return components[componentOf(components, filter) ?? ""] ?? level;
}

/** What pino has to let pass. */
export function leastLevel({ level, components }: LogOptions): string {
  const levels = [level, ...Object.values(components)].map((name) => LEVELS[name]);
  return levels.reduce((a, b) => (rank(a) <= rank(b) ? a : b));
}

/** The name by which the user meant that package. */
function componentOf(components: LogOptions["components"], filter: unknown): string | undefined {
  if (typeof filter !== "string") return "main";
  const [kind, name] = filter.split("/");
  return [filter, name, kind].find((word) => word !== undefined && word in components);
}

function rank(level: string): number {
  return level === "silent" ? Number.POSITIVE_INFINITY : (pino.levels.values[level] ?? 0);
}

function flush(destination: { flushSync(): void }): void {
  try {
    destination.flushSync();
  } catch {
    // Nobody reads it any more, or it has never been opened.
  }
}
