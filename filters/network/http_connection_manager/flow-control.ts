// Hot path: one object a request, reused with its HcmStream.
import type { ResponseEncoder } from "@tsproxy/sdk";
import type { HcmStats } from "./stats.ts";
import type { StreamFilters } from "./stream-filters.ts";
import type { Info } from "./stream-info.ts";

/** Reasons why a source of bytes is stopped, as bits. WALK: a filter has not decided yet. PEER: the receiver takes no more. */
export const BY = { WALK: 1, PEER: 2 } as const;

/** Stops and starts the two sources of one stream: the client, whose connection is read, and the terminal filter's upstream. */
export class FlowControl {
  readonly #filters: StreamFilters;
  readonly #info: Info;
  #stats!: HcmStats;
  #encoder!: ResponseEncoder;
  #requestStoppedBy = 0;
  #responseStoppedBy = 0;
  #readingPaused = false;
  #pauseCounted = false;

  constructor(filters: StreamFilters, info: Info) {
    this.#filters = filters;
    this.#info = info;
  }

  begin(stats: HcmStats, encoder: ResponseEncoder): void {
    this.#stats = stats;
    this.#encoder = encoder;
    this.#requestStoppedBy = this.#responseStoppedBy = 0;
    this.#readingPaused = this.#pauseCounted = false;
  }

  /** `isComplete`: the request has no more bytes to hold back. */
  stopRequest(by: number, stop: boolean, isComplete: boolean): void {
    this.#requestStoppedBy = stop ? this.#requestStoppedBy | by : this.#requestStoppedBy & ~by;
    const pause = this.#requestStoppedBy !== 0;
    if (pause === this.#readingPaused || (pause && isComplete)) return;
    this.#readingPaused = pause;
    // Envoy reads on until its buffers are full, so a pause before there is an upstream connection is not counted.
    if (pause && this.#info.upstreamTxBegin >= 0) {
      this.#pauseCounted = true;
      this.#stats.flowControlPaused.inc();
    } else if (!pause && this.#pauseCounted) {
      this.#pauseCounted = false;
      this.#stats.flowControlResumed.inc();
    }
    this.#encoder.pauseReading(pause);
  }

  stopResponse(by: number, stop: boolean): void {
    const before = this.#responseStoppedBy !== 0;
    this.#responseStoppedBy = stop ? this.#responseStoppedBy | by : this.#responseStoppedBy & ~by;
    const now = this.#responseStoppedBy !== 0;
    if (before === now) return;
    this.#filters.callTerminal((terminal) => terminal.onResponseBlocked?.(now));
  }
}
