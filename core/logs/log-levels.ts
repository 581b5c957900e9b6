import { type Log, leastLevel, levelOf, MAIN_LOGGER } from "./log.ts";
import type { LevelName, LogOptions } from "./log-options.ts";

/** The levels of all loggers, which admin's /logging changes while the proxy runs. */
export class LogLevels {
  readonly #log: Log;
  readonly #options: LogOptions;

  /** `options`: the object that the log was opened with. The log reads it for each line, so changes take effect at once. */
  constructor(log: Log, options: LogOptions) {
    this.#log = log;
    this.#options = options;
  }

  level(name: string): LevelName {
    return levelOf(this.#options, name === MAIN_LOGGER ? undefined : name);
  }

  /** Sets the level of one logger; "": of all. */
  set(name: string, level: LevelName): void {
    const options = this.#options;
    if (name === "") {
      options.level = level;
      options.components = {};
    } else options.components = { ...options.components, [name]: level };
    this.#log.level = leastLevel(options);
  }
}
