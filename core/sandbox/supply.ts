import { BOX, STATS_CELLS } from "../inside/sandbox/layout.ts";
import type { IsolateNumbers } from "../isolate-numbers.ts";
import type { SandboxImage } from "./image.ts";
import { EmptyIsolate, type SandboxMemory } from "./isolate.ts";
import { DEFAULT_LIMITS } from "./options.ts";

/** V8's memory limit, the last resort behind the quota, is so many times the quota. */
const LIMIT_OF_QUOTA = 2;
/** Blocks of memory kept for reuse: of a generation and of the one that it replaces. */
const MEMORIES_KEPT = 2;
/** What has come with the need for an isolate (the first answers by new code, streams that waited) goes first. */
const RESTOCK_AFTER_MS = 25;

/**
 * Supplies the sandboxes of one worker with isolates and memory. One isolate is made ahead of need, because making one takes 6 ms
 * (21 without a snapshot), and three times that under load. Shared memory is reused, because V8 gives memory that was shared with an
 * isolate back only when the collector finds time (110 MiB after 300 reloads; 5 with reuse).
 */
export class Supply {
  readonly #image: SandboxImage;
  readonly numbers: IsolateNumbers;
  #spare: Promise<EmptyIsolate> | undefined = undefined;
  readonly #memories: SandboxMemory[] = [];
  #disposed = false;

  constructor(image: SandboxImage, numbers: IsolateNumbers) {
    this.#image = image;
    this.numbers = numbers;
  }

  /** Takes the spare isolate, or makes one, for a package with this quota. Rejects if none can be made. */
  takeIsolate(quotaMb = DEFAULT_LIMITS.quotaMb): Promise<EmptyIsolate> {
    if (quotaMb > DEFAULT_LIMITS.quotaMb) return this.#build(quotaMb);
    const spare = this.#spare ?? this.#build();
    this.#spare = undefined;
    return spare;
  }

  /** Makes the next spare isolate in the background. */
  restock(): void {
    if (this.#disposed || this.#image.awaits()) return;
    this.#spare ??= this.#build();
    // `take` tells why it could not be made.
    this.#spare.catch(() => {});
  }

  #build(quotaMb = DEFAULT_LIMITS.quotaMb): Promise<EmptyIsolate> {
    return EmptyIsolate.build(this.#image, quotaMb * LIMIT_OF_QUOTA);
  }

  /** As `restock`, which takes 4 ms of this thread, a little later. */
  restockSoon(): void {
    setTimeout(() => this.restock(), RESTOCK_AFTER_MS).unref();
  }

  /** The snapshot that the image has asked for: spare isolates are made from it from now on. */
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

  /** Takes back the memory of an isolate that is disposed and runs on no thread. */
  giveMemory(memory: SandboxMemory): void {
    if (this.#memories.length < MEMORIES_KEPT) this.#memories.push(memory);
  }

  dispose(): void {
    this.#disposed = true;
    void this.#spare?.then((isolate) => isolate.dispose()).catch(() => {});
    this.#spare = undefined;
  }
}
