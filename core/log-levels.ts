import { type Log, leastLevel, levelOf } from "./log.ts";
import type { LevelName, LogOptions } from "./log-options.ts";

/** What core itself says is said by `main`; each package has a logger of its name. */
export const MAIN_LOGGER = "main";

/** How much each logger tells, changed while the proxy runs (admin's /logging). */
export class LogLevels {
  readonly #log: Log;
  readonly #options: LogOptions;

  /** `options`: those that the log was opened with, and looks at. */
  constructor(log: Log, options: LogOptions) {
    this.#log = log;
    this.#options = options;
  }

  level(name: string): LevelName {
    return levelOf(this.#options, name === MAIN_LOGGER ? undefined : name);
  }

  /** "": all of them. */
  set(name: string, level: LevelName): void {
    const options = this.#options;
    if (name === "") {
      options.level = level;
      options.components = {};
    } else options.components = { ...options.components, [name]: level };
    this.#log.level = leastLevel(options);
  }
}
