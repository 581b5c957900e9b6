import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Fleet } from "./fleet.ts";

/** A profile that nobody ends is ended: its samples are kept until then. */
const LONGEST_MS = 60_000;

export interface ProfileAnswer {
  readonly file?: string;
  readonly error?: string;
}

/** CPU profiles of one thread at a time, written as DevTools opens them (admin's /cpuprofiler). */
export class Profiler {
  readonly #fleet: () => Pick<Fleet, "profile">;
  #running: { readonly thread: string; readonly end: NodeJS.Timeout } | undefined;

  constructor(fleet: () => Pick<Fleet, "profile">) {
    this.#fleet = fleet;
  }

  async start(thread: string, file: string | undefined): Promise<ProfileAnswer> {
    if (this.#running !== undefined)
      return { error: "failure to start the profiler: one runs already" };
    const { error } = await this.#fleet().profile(thread, true);
    if (error !== undefined) return { error: `failure to start the profiler: ${error}` };
    const end = setTimeout(() => void this.stop(file), LONGEST_MS);
    end.unref();
    this.#running = { thread, end };
    return {};
  }

  /** As Envoy, it does not mind that none runs. */
  async stop(file: string | undefined): Promise<ProfileAnswer> {
    const running = this.#running;
    this.#running = undefined;
    if (running === undefined) return {};
    clearTimeout(running.end);
    const { profile, error } = await this.#fleet().profile(running.thread, false);
    if (error !== undefined) return { error };
    const to = file ?? path.join(tmpdir(), `tsproxy-${process.pid}.cpuprofile`);
    try {
      await writeFile(to, profile);
    } catch (reason) {
      return { error: reason instanceof Error ? reason.message : String(reason) };
    }
    return { file: to };
  }
}
