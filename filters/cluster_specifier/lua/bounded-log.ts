import type { Log } from "@tsproxy/sdk";

const LINES_A_SECOND = 1000;

/** Log for scripts that run for every request: drops lines beyond LINES_A_SECOND within one second. */
export class BoundedLog implements Log {
  readonly #log: Log;
  #second = 0;
  #lines = 0;

  constructor(log: Log) {
    this.#log = log;
  }

  #mayWrite(): boolean {
    const second = Math.floor(Date.now() / 1000);
    if (second !== this.#second) this.#lines = 0;
    this.#second = second;
    return ++this.#lines <= LINES_A_SECOND;
  }

  debug(...line: Parameters<Log["debug"]>): void {
    if (this.#mayWrite()) this.#log.debug(...line);
  }
  info(...line: Parameters<Log["info"]>): void {
    if (this.#mayWrite()) this.#log.info(...line);
  }
  warn(...line: Parameters<Log["warn"]>): void {
    if (this.#mayWrite()) this.#log.warn(...line);
  }
  error(...line: Parameters<Log["error"]>): void {
    if (this.#mayWrite()) this.#log.error(...line);
  }
}
