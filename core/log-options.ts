/** Envoy's words for `-l`, and pino's. */
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

/** Looked at for every line, so whoever changes a level changes it here (log-levels.ts). */
export interface LogOptions {
  level: LevelName;
  /** Levels of components: a package (`http/router`), its last word, or its kind. */
  components: Readonly<Record<string, LevelName>>;
  /** A file to append to; undefined: stderr. */
  readonly path?: string;
  /** In spdlog's words, as Envoy takes it; undefined: JSON, or pretty on a terminal. */
  readonly format?: string;
  /** Line ends within a message are written as `\n`. */
  readonly escaped: boolean;
}
