import type { Pool } from "./pool.ts";

/** Limit for names with pools at one host, as names come from clients; beyond it an unused name is dropped. */
const MAX_NAMES = 256;

/** Pools of one host for requests whose connections depend on peer names; each key of names has its own pools. */
export class NamedPools {
  readonly #byKey = new Map<string, readonly Pool[]>();
  readonly #drop: (pool: Pool) => void;

  /** `drop` is called for the pools of a name that is dropped; they have no requests. */
  constructor(drop: (pool: Pool) => void) {
    this.#drop = drop;
  }

  /** Returns the pools of a key, created by `make` if needed; undefined if the limit is reached. */
  get(
    key: string,
    make: () => readonly Pool[],
    most: number = MAX_NAMES,
  ): readonly Pool[] | undefined {
    let pools = this.#byKey.get(key);
    if (pools !== undefined) return pools;
    if (this.#byKey.size >= most && !this.#makeRoom()) return undefined;
    pools = make();
    this.#byKey.set(key, pools);
    return pools;
  }

  /** Drops the oldest name whose pools have no requests; false if there is none. */
  #makeRoom(): boolean {
    for (const [key, pools] of this.#byKey) {
      if (!pools.every((pool) => pool.atRest)) continue;
      this.#byKey.delete(key);
      for (const pool of pools) this.#drop(pool);
      return true;
    }
    return false;
  }
}
