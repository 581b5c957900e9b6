import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import type { Fleet } from "../fleet.ts";
import type { SourcePositions } from "../packages/source-positions.ts";
import type { Profiled } from "../protocol.ts";

/** A profile is ended after this time if nobody ends it, since its samples take memory. */
const LONGEST_MS = 60_000;
const BUSY = "one runs already";

export interface ProfileAnswer {
  readonly file?: string;
  readonly error?: string;
}

export interface Taken {
  readonly profile?: string;
  readonly error?: string;
}

/** The profile that is being taken. */
interface Running {
  /** Who has begun it, and ends it. */
  readonly by: "cpuprofiler" | "allocprofiler" | "filter_profile";
  readonly thread: string;
  readonly of: Profiled;
  end?: NodeJS.Timeout;
  /** What it has shown, if its time was over. */
  taken?: Promise<Taken>;
}

type Find = (filename: string) => SourcePositions | undefined;

/** Takes profiles of a thread, or of one filter in it, in DevTools' formats; only one at a time. */
export class Profiler {
  readonly #fleet: () => Pick<Fleet, "profile">;
  readonly #find: Find;
  #running: Running | undefined;

  /** `find`: source positions of a module, by its name in stacks. */
  constructor(fleet: () => Pick<Fleet, "profile">, find: Find = () => undefined) {
    this.#fleet = fleet;
    this.#find = find;
  }

  /** A CPU profile, for /cpuprofiler. */
  async start(thread: string, file: string | undefined, of: Profiled): Promise<ProfileAnswer> {
    const running: Running = { by: "cpuprofiler", thread, of };
    const error = await this.#begin(running);
    if (error !== undefined) return { error: `failure to start the profiler: ${error}` };
    endAtLast(running, () => this.stop(file));
    return {};
  }

  /** Ends the profile and writes it to `file`, or to a temporary file. As in Envoy, it is no error if none runs. */
  async stop(file: string | undefined): Promise<ProfileAnswer> {
    if (this.#running?.by !== "cpuprofiler") return {};
    const { profile, error } = await this.#end(this.#running);
    if (profile === undefined) return { error: error ?? "the thread has no profile" };
    const to = file ?? path.join(tmpdir(), `tsproxy-${process.pid}.cpuprofile`);
    try {
      await writeFile(to, profile);
    } catch (reason) {
      return { error: reason instanceof Error ? reason.message : String(reason) };
    }
    return { file: to };
  }

  /** A profile of what is allocated, for /allocprofiler, in whose words it refuses. Once its time is over it waits to be fetched. */
  async startAllocations(thread: string, of: Profiled): Promise<{ readonly error?: string }> {
    if (this.#running?.by === "allocprofiler")
      return { error: "Allocation profiler has already started" };
    const running: Running = { by: "allocprofiler", thread, of };
    const error = await this.#begin(running);
    if (error !== undefined) return { error: `failure to start the profiler: ${error}` };
    endAtLast(running, () => (running.taken = this.#fetch(running)));
    return {};
  }

  async stopAllocations(): Promise<Taken> {
    const running = this.#running;
    if (running?.by !== "allocprofiler") return { error: "Allocation profiler is not started" };
    if (running.taken === undefined) return this.#end(running);
    this.#running = undefined;
    return running.taken;
  }

  /** Takes a profile of `ms` (at most LONGEST_MS), and answers it as JSON. */
  async take(thread: string, of: Profiled, ms: number): Promise<Taken> {
    const running: Running = { by: "filter_profile", thread, of };
    const error = await this.#begin(running);
    if (error !== undefined) return { error };
    await new Promise((resolve) => setTimeout(resolve, Math.min(ms, LONGEST_MS)));
    return this.#end(running);
  }

  async #begin(running: Running): Promise<string | undefined> {
    if (this.#running !== undefined) return BUSY;
    this.#running = running;
    // V8 samples by this signal; without a handler, one that comes after the last sample would end the process.
    if (process.listenerCount("SIGPROF") === 0) process.on("SIGPROF", () => {});
    const { error } = await this.#fleet().profile(running.thread, true, running.of);
    if (error !== undefined) this.#running = undefined;
    return error;
  }

  #end(running: Running): Promise<Taken> {
    this.#running = undefined;
    clearTimeout(running.end);
    return this.#fetch(running);
  }

  async #fetch({ thread, of }: Running): Promise<Taken> {
    const { profile, error } = await this.#fleet().profile(thread, false, of);
    if (error !== undefined) return { error };
    const hasPlaces = of.filter !== undefined && of.kind !== "snapshot";
    return { profile: hasPlaces ? inSources(profile, this.#find) : profile };
  }
}

function endAtLast(running: Running, end: () => Promise<unknown>): void {
  running.end = setTimeout(() => void end(), LONGEST_MS);
  running.end.unref();
}

interface Frame {
  url: string;
  lineNumber: number;
  columnNumber: number;
}

/** Maps functions in a profile to files and lines of their sources. */
function inSources(text: string, find: Find): string {
  const profile = JSON.parse(text) as {
    readonly nodes?: readonly { readonly callFrame?: Frame; positionTicks?: unknown }[];
    readonly head?: HeapNode;
  };
  if (profile.nodes !== undefined && Array.isArray(profile.nodes))
    for (const node of profile.nodes) {
      if (node.callFrame === undefined) continue;
      // Its ticks are counted by lines of the bundled module, which mean nothing in the source.
      if (moveFrame(node.callFrame, find)) delete node.positionTicks;
    }
  const walk = (node: HeapNode): void => {
    moveFrame(node.callFrame, find);
    for (const child of node.children) walk(child);
  };
  if (profile.head !== undefined) walk(profile.head);
  return JSON.stringify(profile);
}

interface HeapNode {
  readonly callFrame: Frame;
  readonly children: readonly HeapNode[];
}

/** Maps a frame, whose lines and columns count from 0, to its source. False: the source is not known. */
function moveFrame(frame: Frame, find: Find): boolean {
  const at = find(frame.url)?.find(frame.lineNumber + 1, frame.columnNumber + 1);
  if (at === undefined) return false;
  frame.url = pathToFileURL(at.file).href;
  frame.lineNumber = at.line - 1;
  frame.columnNumber = at.column - 1;
  return true;
}
