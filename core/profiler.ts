import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import type { SourcePositions } from "./bundle.ts";
import type { Fleet } from "./fleet.ts";
import type { ProfiledFilter } from "./protocol.ts";

/** A profile that nobody ends is ended: its samples are kept until then. */
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

/** Profiles of one thread, or of one filter in it, at a time, written as DevTools opens them (admin's /cpuprofiler). */
export class Profiler {
  readonly #fleet: () => Pick<Fleet, "profile">;
  readonly #find: Find;
  #running: Running | undefined;

  /** `find`: where a place in a module stands in its sources. */
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

  /** As Envoy, it does not mind that none runs. */
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

  /** A profile of so long, as JSON. */
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
    // V8 samples by this signal; one that comes after the last sample would end the process.
    if (process.listenerCount("SIGPROF") === 0) process.on("SIGPROF", () => {});
    return (await this.#fleet().profile(thread, true, of)).error;
  }

  async #end(running: Running): Promise<{ readonly profile: string; readonly error?: string }> {
    this.#running = undefined;
    clearTimeout(running.end);
    const { thread, of } = running;
    const { profile, error } = await this.#fleet().profile(thread, false, of);
    if (error !== undefined) return { profile, error };
    return { profile: of === undefined ? profile : inSources(profile, this.#find) };
  }
}

/** By which DevTools knows them. */
const ENDINGS = { cpu: "cpuprofile", heap: "heapprofile", snapshot: "heapsnapshot" } as const;

interface Frame {
  url: string;
  lineNumber: number;
  columnNumber: number;
}

/** Functions by file and line of their sources. A snapshot has no places. */
function inSources(text: string, find: Find): string {
  const profile = JSON.parse(text) as {
    readonly nodes?: readonly { readonly callFrame?: Frame; positionTicks?: unknown }[];
    readonly head?: HeapNode;
  };
  if (profile.nodes !== undefined && Array.isArray(profile.nodes))
    for (const node of profile.nodes) {
      if (node.callFrame === undefined) continue;
      // Ticks by line count in the module, where nobody looks.
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

/** Lines and columns count from 0. */
function moveFrame(frame: Frame, find: Find): boolean {
  const at = find(frame.url)?.find(frame.lineNumber + 1, frame.columnNumber + 1);
  if (at === undefined) return false;
  frame.url = pathToFileURL(at.file).href;
  frame.lineNumber = at.line - 1;
  frame.columnNumber = at.column - 1;
  return true;
}
