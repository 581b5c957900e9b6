import { BOX, STATS_CELLS } from "../inside/sandbox/layout.ts";
import type { SandboxImage } from "./image.ts";
import { EmptyIsolate, type SandboxMemory } from "./isolate.ts";
import { DEFAULT_LIMITS } from "./options.ts";

/** V8's own limit, the last resort behind the quota, is so many times that. */
const LIMIT_OF_QUOTA = 2;
/** A generation and the one that it replaces. */
const MEMORIES_KEPT = 2;

/**
 * What sandboxes of one worker are built from. One isolate is made ahead of need: it takes 6 ms (21 as long as
 * there is no snapshot), three times that under load. And memory is used again, since what is shared
 * with an isolate is given back only when the collector finds time (110 MiB after 300 reloads, 5 with this).
 */
export class Supply {
  readonly #image: SandboxImage;
  #spare: Promise<EmptyIsolate> | undefined = undefined;
  readonly #memories: SandboxMemory[] = [];
  #disposed = false;

  constructor(image: SandboxImage) {
    this.#image = image;
  }

  /** For a package that may take so much. Rejects when no isolate can be made. */
  takeIsolate(quotaMb = DEFAULT_LIMITS.quotaMb): Promise<EmptyIsolate> {
    if (quotaMb > DEFAULT_LIMITS.quotaMb) return this.#build(quotaMb);
    const spare = this.#spare ?? this.#build();
    this.#spare = undefined;
    return spare;
  }

  /** Makes the next isolate, when there is time. */
  restock(): void {
    if (this.#disposed || this.#image.awaits()) return;
    this.#spare ??= this.#build();
    // Whoever takes it hears why there is none.
    this.#spare.catch(() => {});
  }

  #build(quotaMb = DEFAULT_LIMITS.quotaMb): Promise<EmptyIsolate> {
    return EmptyIsolate.build(this.#image, quotaMb * LIMIT_OF_QUOTA);
  }

  /** What `SandboxImage` has asked for. */
  useSnapshot(snapshot: ArrayBuffer): void {
    this.#image.use(snapshot);
    this.restock();
  }

  takeMemory(): SandboxMemory {
    const memory = this.#memories.pop();
    if (memory === undefined)
      return {
        box: new SharedArrayBuffer(BOX.TOTAL),
        stats: new SharedArrayBuffer(STATS_CELLS * 8),
      };
    new Int32Array(memory.box).fill(0);
    new Int32Array(memory.stats).fill(0);
    return memory;
  }

  /** Of an isolate that is disposed and runs on no thread. */
  giveMemory(memory: SandboxMemory): void {
    if (this.#memories.length < MEMORIES_KEPT) this.#memories.push(memory);
  }

  dispose(): void {
    this.#disposed = true;
    void this.#spare?.then((isolate) => isolate.dispose()).catch(() => {});
    this.#spare = undefined;
  }
}
