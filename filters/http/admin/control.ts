import { type Answer, json, jsonPieces, Refused, text } from "./answer.ts";
import type { CoreData } from "./core-data.ts";
import type { Query } from "./query.ts";

const ok = (): Answer => text("OK\n");

/** `/healthcheck/fail` and `/healthcheck/ok` */
export const healthcheck =
  (failed: boolean) =>
  async (_query: Query, core: CoreData): Promise<Answer> => {
    await core.healthcheck(failed);
    return ok();
  };

/** `/drain_listeners` */
export async function drainListeners(query: Query, core: CoreData): Promise<Answer> {
  const skipExit = query.has("skip_exit");
  if (skipExit && !query.has("graceful")) throw new Refused(400, "skip_exit requires graceful\n");
  await core.drainListeners({
    graceful: query.has("graceful"),
    inboundOnly: query.has("inboundonly"),
    skipExit,
  });
  return ok();
}

/** `/reopen_logs` */
export async function reopenLogs(_query: Query, core: CoreData): Promise<Answer> {
  await core.reopenLogs();
  return ok();
}

/** `/memory`: Envoy's names for what V8 and the system tell. */
export async function memory(_query: Query, core: CoreData): Promise<Answer> {
  const { allocated, heapSize, unmapped, free, cached, physical } = await core.memory();
  return json({
    allocated: String(allocated),
    heap_size: String(heapSize),
    pageheap_unmapped: String(unmapped),
    pageheap_free: String(free),
    total_thread_cache: String(cached),
    total_physical_bytes: String(physical),
  });
}

/** Parts of Envoy that a JavaScript proxy does not have: what Envoy answers where it was built without them. */
export const unsupported = (what: string) => (): Answer =>
  text(`The current build does not support ${what}`, 501);

const LEVELS = ["trace", "debug", "info", "warning", "error", "critical", "off"];
const LOGGING_USAGE =
  "usage: /logging?<name>=<level> (change single level)\n" +
  "usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n" +
  "usage: /logging?level=<level> (change all levels)\n" +
  "usage: /logging?group=<group_name>:<level> (change group of loggers)\n" +
  `levels: ${LEVELS.join(" ")} \n`;

/** Loggers of Envoy's, by the packages whose loggers do that work here. */
const ENVOY_LOGGERS: Readonly<Record<string, string>> = {
  admin: "http/admin",
  hc: "health/http",
  http: "network/http_connection_manager",
  http2: "codec/http2",
  local_rate_limit: "http/local_ratelimit",
  lua: "http/lua",
  rbac: "http/rbac",
  router: "http/router",
  udp: "udp/udp_proxy",
  upstream: "service/cluster_manager",
};

type Levels = readonly (readonly [logger: string, level: string])[];

/** With Envoy's names for those that have one. */
function withEnvoyNames(levels: Levels): Levels {
  const byName = new Map(levels);
  const named = Object.entries(ENVOY_LOGGERS).flatMap(([name, ours]) => {
    const level = byName.get(ours);
    return level === undefined ? [] : [[name, level] as const];
  });
  return [...levels, ...named];
}

/** `/logging`: the loggers are core's own (`main`) and one a package, which Envoy's name for it names as well. */
export async function logging(query: Query, core: CoreData): Promise<Answer> {
  const known = withEnvoyNames(await core.logLevels());
  const asked = loggingChanges(query, new Set(known.map(([name]) => name)));
  const changes =
    typeof asked === "string"
      ? asked
      : asked?.map(([name, level]) => [ENVOY_LOGGERS[name] ?? name, level] as const);
  const list = (levels: Levels) =>
    `active loggers:\n${levels.map(([name, level]) => `  ${name}: ${level}\n`).join("")}\n`;
  if (typeof changes === "string")
    return text(`error: ${changes}\n\n${LOGGING_USAGE}${list(known)}`, 400);
  return text(
    list(changes === undefined ? known : withEnvoyNames(await core.setLogLevels(changes))),
  );
}

/** [logger, level] of each change, "" for all loggers; undefined: none is asked for; a string: what is wrong. */
function loggingChanges(
  query: Query,
  names: ReadonlySet<string>,
): readonly (readonly [string, string])[] | string | undefined {
  const given = [...query.all];
  if (given.length === 0) return undefined;
  if (given.length > 1) return "invalid number of parameters";
  const [name, value] = given[0]!;
  const changes: (readonly [string, string])[] =
    name === "level"
      ? [["", value]]
      : name === "paths" || name === "group"
        ? value.split(",").map((pair) => {
            const colon = pair.lastIndexOf(":");
            return [pair.slice(0, Math.max(0, colon)), pair.slice(colon + 1)] as const;
          })
        : [[name, value]];
  for (const [logger, level] of changes) {
    if (!LEVELS.includes(level)) return "unknown logger level";
    if (name !== "level" && !names.has(logger)) return "unknown logger name";
  }
  return changes;
}

/** `/cpuprofiler?enable=y`, and `=n`, which writes the profile. `thread`, `filter`: whose, see CoreData. */
export async function cpuProfiler(query: Query, core: CoreData): Promise<Answer> {
  const enable = query.get("enable");
  if (query.all.size === 0 || (enable !== "y" && enable !== "n"))
    throw new Refused(400, "?enable=<y|n>\n");
  const of = { thread: query.get("thread"), filter: query.get("filter") };
  const answer = await core.profile(enable === "y", of);
  if (answer.error !== undefined) throw new Refused(500, `${answer.error}\n`);
  return text(answer.file === undefined ? "OK\n" : `OK\n${answer.file}\n`);
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

/** `/stats/recentlookups`, as Envoy prints them: the names of stats that threads have asked for. */
export async function recentLookups(_query: Query, core: CoreData): Promise<Answer> {
  const { recent, total } = await core.recentLookups();
  if (recent === undefined)
    return text(
      `Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n\ntotal: ${total}\n`,
    );
  const lines = recent.map(([name, times]) => `${String(times).padStart(8)} ${name}\n`).join("");
  return text(`   Count Lookup\n${lines}\ntotal: ${total}\n`);
}
export const changeLookups =
  (change: "enable" | "disable" | "clear") =>
  async (_query: Query, core: CoreData): Promise<Answer> => {
    await core.changeLookups(change);
    return ok();
  };
