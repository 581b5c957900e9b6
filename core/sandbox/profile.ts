import type { ProfileKind } from "../protocol.ts";
import type { DebugChannel, SandboxIsolate } from "./isolate.ts";

/** A CPU profile is taken in slices of this length, which are merged. */
const SLICE_MS = 200;
/** Bytes between two samples of a heap profile. */
const HEAP_SAMPLE_BYTES = 16 * 1024;

const REPLACED = "the filter was replaced while it was profiled; begin again";

interface Answer {
  readonly id?: number;
  readonly method?: string;
  readonly params?: { readonly chunk?: string };
  readonly result?: { readonly profile?: unknown };
  readonly error?: { readonly message: string };
}

/**
 * A profile of one sandbox. While it is taken the sandbox is entered on isolated-vm's own threads, as under a debugger: V8 takes
 * no samples of an isolate that Node's thread has entered.
 */
export class SandboxProfile {
  readonly #isolate: SandboxIsolate;
  readonly #kind: ProfileKind;
  readonly #channel: DebugChannel;
  readonly #answers = new Map<number, (answer: Answer) => void>();
  #next = 1;
  #snapshot = "";
  #slicing: NodeJS.Timeout | undefined;
  #sliced: Promise<void> = Promise.resolve();
  #over = false;
  readonly #slices: CpuProfile[] = [];

  private constructor(isolate: SandboxIsolate, kind: ProfileKind) {
    this.#isolate = isolate;
    this.#kind = kind;
    this.#channel = isolate.debug(
      (text) => this.#onMessage(JSON.parse(text)),
      () => this.#onClosed(),
    );
  }

  static async start(isolate: SandboxIsolate, kind: ProfileKind): Promise<SandboxProfile> {
    const profile = new SandboxProfile(isolate, kind);
    if (kind === "snapshot") return profile;
    // Optimised code knows the functions that it has inlined only if it was compiled under a profiler. Counting calls discards
    // all of it, and keeps V8 from inlining anew.
    await profile.#ask("Profiler.enable");
    await profile.#ask("Profiler.startPreciseCoverage", { callCount: true });
    if (kind === "cpu") {
      await profile.#ask("Profiler.stopPreciseCoverage");
      await profile.#ask("Profiler.start");
      profile.#slicing = setInterval(() => void profile.#slice(), SLICE_MS);
    } else {
      await profile.#ask("HeapProfiler.enable");
      // With what was collected since: most of what a filter allocates for a stream is gone before the profile ends.
      await profile.#ask("HeapProfiler.startSampling", {
        samplingInterval: HEAP_SAMPLE_BYTES,
        includeObjectsCollectedByMajorGC: true,
        includeObjectsCollectedByMinorGC: true,
      });
    }
    return profile;
  }

  /** JSON, as DevTools opens it. */
  async stop(): Promise<string> {
    clearInterval(this.#slicing);
    try {
      if (this.#kind === "snapshot") {
        await this.#ask("HeapProfiler.takeHeapSnapshot", { reportProgress: false });
        return this.#snapshot;
      }
      if (this.#kind === "heap")
        return JSON.stringify((await this.#ask("HeapProfiler.stopSampling")).profile);
      await this.#sliced;
      this.#slices.push((await this.#ask("Profiler.stop")).profile as CpuProfile);
      return JSON.stringify(joined(this.#slices));
    } finally {
      this.#channel.close();
    }
  }

  /** V8 samples only the thread on which the profile was started, and the isolate moves between threads: hence the slices. */
  #slice(): Promise<void> {
    const slice = async () => {
      this.#slices.push((await this.#ask("Profiler.stop")).profile as CpuProfile);
      await this.#ask("Profiler.start");
    };
    // If the isolate has ended, `stop` tells so.
    this.#sliced = this.#sliced.then(slice).catch(() => {});
    return this.#sliced;
  }

  async #ask(method: string, params: object = {}): Promise<NonNullable<Answer["result"]>> {
    if (this.#over || this.#isolate.disposed) throw new Error(REPLACED);
    const id = this.#next++;
    const answer = new Promise<Answer>((resolve) => this.#answers.set(id, resolve));
    this.#channel.send(JSON.stringify({ id, method, params }));
    const { result, error } = await answer;
    if (error !== undefined) throw new Error(error.message);
    return result ?? {};
  }

  #onClosed(): void {
    this.#over = true;
    for (const answer of this.#answers.values()) answer({ error: { message: REPLACED } });
    this.#answers.clear();
  }

  #onMessage(message: Answer): void {
    if (message.id !== undefined) {
      this.#answers.get(message.id)?.(message);
      this.#answers.delete(message.id);
    } else if (message.method === "HeapProfiler.addHeapSnapshotChunk")
      this.#snapshot += message.params?.chunk ?? "";
  }
}

interface CpuNode {
  readonly id: number;
  readonly callFrame: {
    readonly functionName: string;
    readonly scriptId: string;
    readonly url: string;
    readonly lineNumber: number;
    readonly columnNumber: number;
  };
  hitCount?: number;
  children?: number[];
}

/** A profile as in the DevTools protocol; times in microseconds. */
export interface CpuProfile {
  readonly nodes: readonly CpuNode[];
  readonly startTime: number;
  readonly endTime: number;
  readonly samples?: readonly number[];
  readonly timeDeltas?: readonly number[];
}

/** Merges consecutive profiles into one; nodes with the same call path become one node. */
export function joined(slices: readonly CpuProfile[]): CpuProfile {
  const nodes: CpuNode[] = [];
  const known = new Map<string, CpuNode>();
  const samples: number[] = [];
  const timeDeltas: number[] = [];
  const startTime = slices[0]?.startTime ?? 0;
  let time = startTime;
  for (const slice of slices) {
    const ids = new Map<number, number>();
    const byId = new Map(slice.nodes.map((node) => [node.id, node]));
    const add = (node: CpuNode, parent: CpuNode | undefined): void => {
      const { functionName, url, lineNumber, columnNumber } = node.callFrame;
      const key = JSON.stringify([parent?.id, functionName, url, lineNumber, columnNumber]);
      let here = known.get(key);
      if (here === undefined) {
        here = { id: nodes.length + 1, callFrame: node.callFrame, hitCount: 0, children: [] };
        known.set(key, here);
        nodes.push(here);
        parent?.children?.push(here.id);
      }
      here.hitCount! += node.hitCount ?? 0;
      ids.set(node.id, here.id);
      for (const child of node.children ?? []) add(byId.get(child)!, here);
    };
    if (slice.nodes[0] !== undefined) add(slice.nodes[0], undefined);
    let at = slice.startTime;
    for (const [k, sample] of (slice.samples ?? []).entries()) {
      at += slice.timeDeltas?.[k] ?? 0;
      samples.push(ids.get(sample)!);
      timeDeltas.push(at - time);
      time = at;
    }
  }
  return { nodes, startTime, endTime: slices.at(-1)?.endTime ?? startTime, samples, timeDeltas };
}
