// Hot path: counts every attempt on a host of a cluster with outlier detection.
import type { CellSpec, Runtime } from "@tsproxy/sdk";
import type { OutlierDetection } from "./health-config.ts";

/** Offsets of the counts in a host's slot, in memory shared by all workers. */
export const WORD = {
  CONSECUTIVE_5XX: 0,
  CONSECUTIVE_GATEWAY: 1,
  CONSECUTIVE_LOCAL: 2,
  TOTAL: 3,
  SUCCESSES: 4,
  LOCAL_TOTAL: 5,
  LOCAL_SUCCESSES: 6,
} as const;
const SLOT_WORDS = 8;

/** Counts of a cluster's hosts in shared memory, one slot per host; the control thread assigns the slots. */
export class OutlierTable {
  readonly #words: Int32Array;
  readonly #at: number;
  readonly slots: number;

  constructor(words: Int32Array, at: number, slots: number) {
    this.#words = words;
    this.#at = at;
    this.slots = slots;
  }

  read(slot: number, word: number): number {
    return Atomics.load(this.#words, this.#at + slot * SLOT_WORDS + word);
  }

  increment(slot: number, word: number): void {
    Atomics.add(this.#words, this.#at + slot * SLOT_WORDS + word, 1);
  }

  /** Counts one more. True: it is the `most`th of a row, and the next one is the first again, whichever worker counts it. */
  completesRow(slot: number, word: number, most: number): boolean {
    const at = this.#at + slot * SLOT_WORDS + word;
    for (;;) {
      const before = Atomics.load(this.#words, at);
      const isWhole = before + 1 === most;
      const after = isWhole ? 0 : before + 1;
      if (Atomics.compareExchange(this.#words, at, before, after) === before) return isWhole;
    }
  }

  /** Sets a count to 0; writes only if it is not 0 already, as it mostly is. */
  clear(slot: number, word: number): void {
    const at = this.#at + slot * SLOT_WORDS + word;
    if (Atomics.load(this.#words, at) !== 0) Atomics.store(this.#words, at, 0);
  }

  /** Clears a slot for another host. */
  reset(slot: number): void {
    for (let word = 0; word < SLOT_WORDS; word++) this.clear(slot, word);
  }
}

/** Spec of the shared memory cell that holds an OutlierTable. */
export function outlierTable(slots: number): CellSpec<OutlierTable> {
  return {
    kind: "outliers",
    bytes: slots * SLOT_WORDS * 4,
    open: ({ words }, at) => new OutlierTable(words, at >> 2, slots),
  };
}

/** Type of consecutive failures, by Envoy's names. */
export type Row =
  | "CONSECUTIVE_5XX"
  | "CONSECUTIVE_GATEWAY_FAILURE"
  | "CONSECUTIVE_LOCAL_ORIGIN_FAILURE";

/** Counts the results of one worker's attempts on a host, in counts that all workers share. */
export class OutlierMonitor {
  readonly slot: number;
  readonly #table: OutlierTable;
  readonly #config: OutlierDetection;
  readonly #runtime: Runtime;
  readonly #onRow: (row: Row) => void;

  /** `onRow`: called once when the configured number of consecutive failures is reached. */
  constructor(
    table: OutlierTable,
    slot: number,
    config: OutlierDetection,
    runtime: Runtime,
    onRow: (row: Row) => void,
  ) {
    this.#table = table;
    this.slot = slot;
    this.#config = config;
    this.#runtime = runtime;
    this.#onRow = onRow;
  }

  /** Counts the status of a response. */
  onCode(status: number): void {
    const table = this.#table;
    const { slot } = this;
    table.increment(slot, WORD.TOTAL);
    if (status < 500 || status > 599) {
      table.increment(slot, WORD.SUCCESSES);
      table.clear(slot, WORD.CONSECUTIVE_5XX);
      table.clear(slot, WORD.CONSECUTIVE_GATEWAY);
      return;
    }
    const config = this.#config;
    if (status >= 502 && status <= 504) {
      const most = this.#runtime.integer(
        "outlier_detection.consecutive_gateway_failure",
        config.consecutive_gateway_failure,
      );
      if (table.completesRow(slot, WORD.CONSECUTIVE_GATEWAY, most))
        this.#onRow("CONSECUTIVE_GATEWAY_FAILURE");
    } else table.clear(slot, WORD.CONSECUTIVE_GATEWAY);
    const most = this.#runtime.integer("outlier_detection.consecutive_5xx", config.consecutive_5xx);
    if (table.completesRow(slot, WORD.CONSECUTIVE_5XX, most)) this.#onRow("CONSECUTIVE_5XX");
  }

  /** Counts a successful connect. `final`: no response will be counted for it (TCP). */
  onConnected(final: boolean): void {
    if (this.#config.split_external_local_origin_errors) {
      this.#table.increment(this.slot, WORD.LOCAL_TOTAL);
      this.#table.increment(this.slot, WORD.LOCAL_SUCCESSES);
      this.#table.clear(this.slot, WORD.CONSECUTIVE_LOCAL);
    } else if (final) this.onCode(200);
  }

  /** Counts a failed connect, a reset or a timeout; `status` is the status that represents it. */
  onLocalFailure(status: 503 | 504): void {
    if (!this.#config.split_external_local_origin_errors) {
      this.onCode(status);
      return;
    }
    this.#table.increment(this.slot, WORD.LOCAL_TOTAL);
    const most = this.#runtime.integer(
      "outlier_detection.consecutive_local_origin_failure",
      this.#config.consecutive_local_origin_failure,
    );
    if (this.#table.completesRow(this.slot, WORD.CONSECUTIVE_LOCAL, most))
      this.#onRow("CONSECUTIVE_LOCAL_ORIGIN_FAILURE");
  }
}
