import type { Stats } from "./stats.ts";

/** Counts filters' own requests to a cluster as Envoy does: among all of its requests, and once more below `internal.`. */
export class FetchStats {
  readonly #stats: Stats;
  readonly #began = Date.now();

  /** `stats`: those of the cluster. */
  constructor(stats: Stats) {
    this.#stats = stats;
  }

  /** The head of the response is there. */
  onStatus(status: number): void {
    for (const stats of this.#scopes()) {
      stats.counter("upstream_rq_completed").inc();
      if (status < 100 || status > 599) continue;
      stats.counter(`upstream_rq_${status}`).inc();
      stats.counter(`upstream_rq_${(status / 100) | 0}xx`).inc();
    }
  }

  onEnd(): void {
    const ms = Date.now() - this.#began;
    for (const stats of this.#scopes()) stats.histogram("upstream_rq_time", "ms").record(ms);
  }

  /** There is no response: what the filter then sees counts as 503, or as 504 after a timeout. */
  onFailure(isTimeout: boolean): void {
    if (isTimeout) this.#stats.counter("upstream_rq_timeout").inc();
    this.onStatus(isTimeout ? 504 : 503);
  }

  #scopes(): readonly Stats[] {
    return [this.#stats, this.#stats.scope("internal.")];
  }
}
