// Hot path: every attempt on a host of a cluster with outlier detection is counted here.
import type { CellSpec, Runtime } from "@tsproxy/sdk";
import type { OutlierDetection } from "./health-config.ts";

/** Words of a host's slot in memory that all workers share. */
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

/** A slot a host. Which host has which slot is the control thread's to say. */
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

  /** Answers the new value. */
  increment(slot: number, word: number): number {
    return Atomics.add(this.#words, this.#at + slot * SLOT_WORDS + word, 1) + 1;
  }

  /** A row of failures has ended: most have not begun, and then nothing is written. */
  clear(slot: number, word: number): void {
    const at = this.#at + slot * SLOT_WORDS + word;
    if (Atomics.load(this.#words, at) !== 0) Atomics.store(this.#words, at, 0);
  }

  /** Another host moves in. */
  reset(slot: number): void {
    for (let word = 0; word < SLOT_WORDS; word++) this.clear(slot, word);
  }
}

export function outlierTable(slots: number): CellSpec<OutlierTable> {
  return {
    bytes: slots * SLOT_WORDS * 4,
    open: ({ words }, at) => new OutlierTable(words, at >> 2, slots),
  };
}

/** What a row of failures is of; Envoy's words in stats and logs. */
export type Row =
  | "CONSECUTIVE_5XX"
  | "CONSECUTIVE_GATEWAY_FAILURE"
  | "CONSECUTIVE_LOCAL_ORIGIN_FAILURE";

/** Counts how a host does, on one worker; the counts are of all workers. */
export class OutlierMonitor {
  readonly slot: number;
  readonly #table: OutlierTable;
  readonly #config: OutlierDetection;
  readonly #runtime: Runtime;
  readonly #onRow: (row: Row) => void;

  /** `onRow`: as many failures in a row as the config asks for; called once for each such row. */
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

  /** The status of a response. */
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
      if (table.increment(slot, WORD.CONSECUTIVE_GATEWAY) === most)
        this.#onRow("CONSECUTIVE_GATEWAY_FAILURE");
    } else table.clear(slot, WORD.CONSECUTIVE_GATEWAY);
    const most = this.#runtime.integer("outlier_detection.consecutive_5xx", config.consecutive_5xx);
    if (table.increment(slot, WORD.CONSECUTIVE_5XX) === most) this.#onRow("CONSECUTIVE_5XX");
  }

  /** A connection to the host is there. `final`: nothing above it will tell how it went (TCP). */
  onConnected(final: boolean): void {
    if (this.#config.split_external_local_origin_errors) {
      this.#table.increment(this.slot, WORD.LOCAL_TOTAL);
      this.#table.increment(this.slot, WORD.LOCAL_SUCCESSES);
      this.#table.clear(this.slot, WORD.CONSECUTIVE_LOCAL);
    } else if (final) this.onCode(200);
  }

  /** No connection, a reset, or no answer in time; `status` is the code that stands for it. */
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
    if (this.#table.increment(this.slot, WORD.CONSECUTIVE_LOCAL) === most)
      this.#onRow("CONSECUTIVE_LOCAL_ORIGIN_FAILURE");
  }
}
