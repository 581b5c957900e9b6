import { placeOfRouteConfig } from "@tsproxy/sdk";
import { PART_MAX, partFlags } from "./sandbox/layout.ts";

/** Numbers the per-route configs of one use, so that a fault is charged to the route whose config has caused it. */
export class Parts {
  readonly #known = new WeakMap<readonly unknown[], number>();
  readonly #onNew: (part: number, path: string) => void;
  #last = 0;

  /** `onNew` is told where in its chain's config the new part stands. */
  constructor(onNew: (part: number, path: string) => void) {
    this.#onNew = onNew;
  }

  /** The flags of records of a stream with these per-route configs, an array that all streams of a route share. */
  flags(configs: readonly unknown[]): number {
    let part = this.#known.get(configs);
    if (part === undefined) {
      part = this.#last = Math.min(this.#last + 1, PART_MAX);
      this.#known.set(configs, part);
      const own = configs.at(-1);
      this.#onNew(part, typeof own === "object" && own !== null ? placeOfRouteConfig(own) : "");
    }
    return partFlags(part);
  }
}
