import { type DestinationStream, type Logger, pino } from "pino";
import { prettyFactory } from "pino-pretty";

export type Log = Logger;

/** Envoy's words for `-l`, and pino's. */
const LEVELS = {
  trace: "trace",
  debug: "debug",
  info: "info",
  warning: "warn",
  warn: "warn",
  error: "error",
  critical: "fatal",
  off: "silent",
} as const;
export type LevelName = keyof typeof LEVELS;
export const LEVEL_NAMES = Object.keys(LEVELS) as LevelName[];

/** A reader of our output that stops reading costs lines past this many bytes, never the process. */
const MAX_BUFFERED_BYTES = 1024 * 1024;

/** One line an event on stderr: for eyes on a terminal, JSON for everything else. */
export function createLog(level: LevelName, terminal = process.stderr.isTTY === true): Log {
  const destination = pino.destination({
    fd: 2,
    sync: false,
    minLength: 0,
    maxLength: MAX_BUFFERED_BYTES,
  });
  // A closed stderr must not end the proxy.
  destination.on("error", () => {});
  process.on("exit", () => flush(destination));
  return logTo(destination, level, terminal);
}

/** The same into any stream. */
export function logTo(stream: DestinationStream, level: LevelName, terminal: boolean): Log {
  const options = {
    level: LEVELS[level],
    base: null,
    formatters: { level: (label: string) => ({ level: label }) },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  if (!terminal) return pino(options, stream);
  const format = prettyFactory({
    colorize: process.env.NO_COLOR === undefined,
    translateTime: "SYS:HH:MM:ss.l",
    singleLine: true,
  });
  return pino(options, { write: (line) => void stream.write(format(line)) });
}

function flush(destination: { flushSync(): void }): void {
  try {
    destination.flushSync();
  } catch {
    // Nobody reads stderr any more.
  }
}
