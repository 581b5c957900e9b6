import { BOX, STATS_CELLS } from "../inside/sandbox/layout.ts";
import type { IsolateNumbers } from "../isolate-numbers.ts";
import type { SandboxImage } from "./image.ts";
import { EmptyIsolate, type SandboxMemory } from "./isolate.ts";
import { DEFAULT_LIMITS } from "./options.ts";

/** V8's memory limit, the last resort behind the quota, is so many times the quota. */
const LIMIT_OF_QUOTA = 2;
/** Blocks of memory kept for reuse: of a generation and of the one that it replaces. Each spare isolate has one of its own. */
const MEMORIES_KEPT = 2;
/** What has come with the need for an isolate (the first answers by new code, streams that waited) goes first. */
const RESTOCK_AFTER_MS = 25;
/** For so long after an isolate was needed the next need belongs to the same series. */
const SERIES_MS = 10_000;

/**
 * Supplies the sandboxes of one worker with isolates and memory. One isolate is made ahead of need, because making one takes 6 ms
 * (21 without a snapshot), and three times that under load; two in a series of needs, as saves can follow each other sooner than
 * one is made (one save in two waited, 25 ms and more). Shared memory is reused, because V8 gives memory that was shared with an
 * isolate back only when the collector finds time (110 MiB after 300 reloads; 5 with reuse).
 */
export class Supply {
  readonly #image: SandboxImage;
  readonly numbers: IsolateNumbers;
  readonly #spares: Promise<EmptyIsolate>[] = [];
  #isSeries = false;
  /** Undefined: for SERIES_MS no isolate has been needed. */
  #rest: NodeJS.Timeout | undefined = undefined;
  readonly #memories: SandboxMemory[] = [];
  #disposed = false;

  constructor(image: SandboxImage, numbers: IsolateNumbers) {
    this.#image = image;
    this.numbers = numbers;
  }

  /** Takes a spare isolate, or makes one, for a package with this quota. Rejects if none can be made. */
  takeIsolate(quotaMb = DEFAULT_LIMITS.quotaMb): Promise<EmptyIsolate> {
    if (quotaMb > DEFAULT_LIMITS.quotaMb) return this.#build(quotaMb);
    this.#isSeries = this.#rest !== undefined;
    return this.#spares.shift() ?? this.#build();
  }

  /** Makes what is missing of the spare isolates in the background, after a need. */
  restock(): void {
    if (this.#disposed || this.#image.awaits()) return;
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => this.#endSeries(), SERIES_MS).unref();
    while (this.#spares.length < (this.#isSeries ? 2 : 1)) {
      const spare = this.#build();
      // `take` tells why it could not be made.
      spare.catch(() => {});
      this.#spares.push(spare);
    }
  }

  #endSeries(): void {
    this.#rest = undefined;
    this.#isSeries = false;
    for (const spare of this.#spares.splice(1)) this.#end(spare);
  }

  #build(quotaMb = DEFAULT_LIMITS.quotaMb): Promise<EmptyIsolate> {
    return EmptyIsolate.build(this.#image, quotaMb * LIMIT_OF_QUOTA, this.#takeMemory());
  }

  #end(spare: Promise<EmptyIsolate>): void {
    spare.then(
      (isolate) => {
        isolate.dispose();
        this.giveMemory(isolate.memory);
      },
      () => {},
    );
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

  #takeMemory(): SandboxMemory {
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
    clearTimeout(this.#rest);
    for (const spare of this.#spares.splice(0)) this.#end(spare);
  }
}
