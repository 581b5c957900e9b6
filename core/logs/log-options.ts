/** Level names that `-l` takes (Envoy's, and pino's), with pino's name for each. */
export const LEVELS = {
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

/** The log reads these for every line, so a level is changed by changing it here (log-levels.ts). */
export interface LogOptions {
  level: LevelName;
  /** Levels of components, by package (`http/router`), by the last part of its name, by its kind, or by Envoy's name. */
  components: Readonly<Record<string, LevelName>>;
  /** A file to append to; undefined: stderr. */
  readonly path?: string;
  /** A pattern of spdlog's, as Envoy takes it; undefined: JSON, or a readable form on a terminal. */
  readonly format?: string;
  /** True: line ends within a message are written as `\n`. */
  readonly escaped: boolean;
}
