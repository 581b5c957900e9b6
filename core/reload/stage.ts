import type { ModuleSource, Refusal, RuntimeConfig } from "../protocol.ts";

/** A new generation: changed and removed packages, and the config. */
export interface Change {
  readonly generation: number;
  readonly modules: readonly ModuleSource[];
  readonly removed: readonly string[];
  /** Undefined: the configuration stays as it is. */
  readonly config: RuntimeConfig | undefined;
}

/** A change as isolates take it: its config is JSON. */
export interface WrittenChange extends Omit<Change, "config"> {
  readonly config: string | undefined;
}

/** Sets a change up beside what runs, and then puts it into service or drops it: the canary and the fleet do. */
export interface Stage {
  /** Sets the change up. No refusals: all is ready for `commit`. */
  prepare(change: Change): Promise<readonly Refusal[]>;
  commit(generation: number): Promise<void>;
  abort(generation: number): Promise<void>;
}
