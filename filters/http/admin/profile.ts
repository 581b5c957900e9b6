import { type Answer, jsonPieces, Refused, text } from "./answer.ts";
import type { CoreData } from "./core-data.ts";
import type { Query } from "./query.ts";

/** `/cpuprofiler?enable=y`, and `?enable=n`, which writes the profile. `thread` and `filter` say whose (`CoreData.profile`). */
export async function cpuProfiler(query: Query, core: CoreData): Promise<Answer> {
  const answer = await core.profile(isEnabled(query), profiled(query));
  if (answer.error !== undefined) throw new Refused(500, `${answer.error}\n`);
  return text(answer.file === undefined ? "OK\n" : `OK\n${answer.file}\n`);
}

/** `/allocprofiler?enable=y`, and `?enable=n`, which answers the profile. `thread` and `filter` say whose. */
export async function allocationProfiler(query: Query, core: CoreData): Promise<Answer> {
  const { profile, error } = await core.allocationProfile(isEnabled(query), profiled(query));
  if (error !== undefined) throw new Refused(400, error);
  return profile === undefined ? text("OK\n") : jsonPieces([profile]);
}

function isEnabled(query: Query): boolean {
  const enable = query.get("enable");
  if (enable !== "y" && enable !== "n") throw new Refused(400, "?enable=<y|n>\n");
  return enable === "y";
}

function profiled(query: Query) {
  return { thread: query.get("thread"), filter: query.get("filter") };
}

/** `/filter_profile?filter=NAME&seconds=5&kind=cpu|heap|snapshot`: the profile is the answer. */
export async function filterProfile(query: Query, core: CoreData): Promise<Answer> {
  const filter = query.get("filter");
  const seconds = Number(query.get("seconds") ?? 5);
  if (filter === undefined || !(seconds > 0 && seconds <= 60))
    throw new Refused(400, "?filter=<name>&seconds=<1 to 60>&kind=<cpu|heap|snapshot>\n");
  const kind = query.get("kind") ?? "cpu";
  const thread = query.get("thread");
  const { profile, error } = await core.filterProfile({ filter, kind, seconds, thread });
  if (profile === undefined) throw new Refused(500, `${error}\n`);
  return jsonPieces([profile]);
}

/** `/heap_dump`: of the main thread, of `thread=worker_0`, or of the isolate of `filter=NAME`. */
export async function heapDump(query: Query, core: CoreData): Promise<Answer> {
  const { dump, error } = await core.heapDump(profiled(query));
  if (dump === undefined) throw new Refused(500, `${error}\n`);
  return { ...jsonPieces(pieces(dump, core)), after: () => core.endHeapDump(dump) };
}

async function* pieces(dump: number, core: CoreData): AsyncIterable<string> {
  for (;;) {
    const piece = await core.heapDumpPiece(dump);
    if (piece === "") return;
    if (typeof piece !== "string") throw new Error("the client was too slow");
    yield piece;
  }
}

/** Parts of Envoy that a JavaScript proxy does not have: what Envoy answers where it was built without them. */
export const unsupported = (what: string) => (): Answer =>
  text(`The current build does not support ${what}`, 501);
