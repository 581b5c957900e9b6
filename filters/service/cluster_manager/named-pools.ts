import type { Pool } from "./pool.ts";

/** Names come from clients. As many of them have pools at one host; beyond these one that is at rest makes room. */
const MAX_NAMES = 256;

/** The pools of one host for requests whose connections are made for a name: each name has its own. */
export class NamedPools {
  readonly #byKey = new Map<string, readonly Pool[]>();
  readonly #drop: (pool: Pool) => void;

  /** `drop` ends a pool that is at rest. */
  constructor(drop: (pool: Pool) => void) {
    this.#drop = drop;
  }

  /** Undefined: no more may be made. */
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

  /** The oldest goes first. */
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
