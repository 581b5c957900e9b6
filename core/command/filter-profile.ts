import { writeFile } from "node:fs/promises";
import { refuse, shortPath } from "../problem.ts";

export interface FilterProfileOptions {
  readonly name: string;
  readonly seconds: number;
  readonly heap: boolean;
  readonly heapSnapshot: boolean;
  readonly output?: string;
  /** The proxy's admin address. */
  readonly admin: string;
  readonly json: boolean;
}

const ENDINGS = { cpu: "cpuprofile", heap: "heapprofile", snapshot: "heapsnapshot" } as const;
/** Time for the answer itself: a large heap takes long. */
const PATIENCE_MS = 30_000;

/** Asks a running proxy for a profile of one filter and writes it to a file. Answers the exit code. */
export async function filterProfile(options: FilterProfileOptions): Promise<number> {
  const { name, seconds, heap, heapSnapshot, admin, json } = options;
  const kind = heapSnapshot ? "snapshot" : heap ? "heap" : "cpu";
  const base = admin.includes("://") ? admin : `http://${admin}`;
  const url = new URL("/filter_profile", base);
  url.search = String(new URLSearchParams({ filter: name, seconds: String(seconds), kind }));
  let answer: Response;
  try {
    const signal = AbortSignal.timeout(seconds * 1000 + PATIENCE_MS);
    answer = await fetch(url, { method: "POST", signal });
  } catch (error) {
    const { message, cause } = error as Error;
    const why = cause instanceof Error ? cause.message : message;
    return refuse(`no tsproxy admin at ${admin}: ${why}; name it with --admin`, json);
  }
  const text = await answer.text();
  if (!answer.ok) return refuse(text.trim(), json);
  const file = options.output ?? `${name.replaceAll("/", "-")}.${ENDINGS[kind]}`;
  await writeFile(file, text);
  const where = shortPath(file);
  if (json) process.stdout.write(`${JSON.stringify({ file: where, kind, bytes: text.length })}\n`);
  else process.stdout.write(`wrote ${where}; DevTools opens it (${HOW[kind]})\n`);
  return 0;
}

const HOW = {
  cpu: "Performance, Load profile",
  heap: "Memory, Load",
  snapshot: "Memory, Load",
} as const;
