import type { Session } from "node:inspector/promises";

/** Bytes between two samples of what is allocated. */
const HEAP_SAMPLE_BYTES = 16 * 1024;

/**
 * A profile of the thread that it is made on: of its CPU time, in which that inside isolates counts to the crossing into them, or of
 * what its own heap, without those of isolates, has allocated.
 */
export class ThreadProfile {
  #session: Session | undefined;
  #kind: "cpu" | "heap" = "cpu";

  async start(kind: "cpu" | "heap"): Promise<void> {
    const { Session } = await import("node:inspector/promises");
    this.#session = new Session();
    this.#session.connect();
    this.#kind = kind;
    if (kind === "cpu") {
      await this.#session.post("Profiler.enable");
      await this.#session.post("Profiler.start");
    }
    // With what was collected since, which is nearly all that a request allocates.
    else
      await this.#session.post("HeapProfiler.startSampling", {
        samplingInterval: HEAP_SAMPLE_BYTES,
        includeObjectsCollectedByMajorGC: true,
        includeObjectsCollectedByMinorGC: true,
      });
  }

  /** JSON, as DevTools opens it. */
  async stop(): Promise<string> {
    const session = this.#session;
    if (session === undefined) throw new Error("no profile is being taken");
    this.#session = undefined;
    const { profile } =
      this.#kind === "cpu"
        ? await session.post("Profiler.stop")
        : await session.post("HeapProfiler.stopSampling");
    session.disconnect();
    return JSON.stringify(profile);
  }
}
