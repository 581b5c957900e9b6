import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import type { Fleet } from "../fleet.ts";
import type { SourcePositions } from "../packages/source-positions.ts";
import type { ProfiledFilter } from "../protocol.ts";

/** A profile is ended after this time if nobody ends it, since its samples take memory. */
const LONGEST_MS = 60_000;
const BUSY = "one runs already";

export interface ProfileAnswer {
  readonly file?: string;
  readonly error?: string;
}

interface Running {
  readonly thread: string;
  readonly of: ProfiledFilter | undefined;
  readonly end: NodeJS.Timeout | undefined;
}

type Find = (filename: string) => SourcePositions | undefined;

/** Takes profiles of a thread, or of one filter in it, in DevTools' formats (admin's /cpuprofiler); only one at a time. */
export class Profiler {
  readonly #fleet: () => Pick<Fleet, "profile">;
  readonly #find: Find;
  #running: Running | undefined;

  /** `find`: source positions of a module, by its name in stacks. */
  constructor(fleet: () => Pick<Fleet, "profile">, find: Find = () => undefined) {
    this.#fleet = fleet;
    this.#find = find;
  }

  async start(
    thread: string,
    file: string | undefined,
    of?: ProfiledFilter,
  ): Promise<ProfileAnswer> {
    const error = await this.#begin(thread, of);
    if (error !== undefined) return { error: `failure to start the profiler: ${error}` };
    const end = setTimeout(() => void this.stop(file), LONGEST_MS);
    end.unref();
    this.#running = { thread, of, end };
    return {};
  }

  /** Ends the profile and writes it to `file`, or to a temporary file. As in Envoy, it is no error if none runs. */
  async stop(file: string | undefined): Promise<ProfileAnswer> {
    const running = this.#running;
    if (running === undefined) return {};
    const { profile, error } = await this.#end(running);
    if (error !== undefined) return { error };
    const ending = ENDINGS[running.of?.kind ?? "cpu"];
    const to = file ?? path.join(tmpdir(), `tsproxy-${process.pid}.${ending}`);
    try {
      await writeFile(to, profile);
    } catch (reason) {
      return { error: reason instanceof Error ? reason.message : String(reason) };
    }
    return { file: to };
  }

  /** Takes a profile of `ms` (at most LONGEST_MS), and answers it as JSON. */
  async take(
    thread: string,
    of: ProfiledFilter,
    ms: number,
  ): Promise<{ readonly profile?: string; readonly error?: string }> {
    const error = await this.#begin(thread, of);
    if (error !== undefined) return { error };
    const running: Running = { thread, of, end: undefined };
    this.#running = running;
    await new Promise((resolve) => setTimeout(resolve, Math.min(ms, LONGEST_MS)));
    return this.#end(running);
  }

  async #begin(thread: string, of: ProfiledFilter | undefined): Promise<string | undefined> {
    if (this.#running !== undefined) return BUSY;
    // V8 samples by this signal; without a handler, one that comes after the last sample would end the process.
    if (process.listenerCount("SIGPROF") === 0) process.on("SIGPROF", () => {});
    return (await this.#fleet().profile(thread, true, of)).error;
  }

  async #end(running: Running): Promise<{ readonly profile: string; readonly error?: string }> {
    this.#running = undefined;
    clearTimeout(running.end);
    const { thread, of } = running;
    const { profile, error } = await this.#fleet().profile(thread, false, of);
    if (error !== undefined) return { profile, error };
    const hasPlaces = of !== undefined && of.kind !== "snapshot";
    return { profile: hasPlaces ? inSources(profile, this.#find) : profile };
  }
}

/** The file endings by which DevTools knows each kind. */
const ENDINGS = { cpu: "cpuprofile", heap: "heapprofile", snapshot: "heapsnapshot" } as const;

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
