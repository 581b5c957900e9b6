import { ConfigError } from "@tsproxy/sdk";
import type { Config } from "./config.ts";

/** How long attempts at a connection wait: a random part of a time that doubles with each of them. */
export class BackOff {
  readonly #baseMs: number;
  readonly #mostMs: number;

  constructor({ base_interval, max_interval }: NonNullable<Config["backoff_options"]>) {
    if (base_interval < 1)
      throw new ConfigError("backoff_options.base_interval", "is less than 1ms");
    if (max_interval !== undefined && max_interval < base_interval)
      throw new ConfigError("backoff_options.max_interval", "is less than base_interval");
    this.#baseMs = base_interval;
    this.#mostMs = max_interval ?? base_interval * 10;
  }

  /** `failed`: how many attempts have failed, 1 or more. */
  next(failed: number): number {
    const most = Math.min(this.#mostMs, this.#baseMs * 2 ** Math.min(failed - 1, 32));
    return Math.floor(Math.random() * most);
  }
}
