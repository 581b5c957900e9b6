import { ENVOY_LOGGERS } from "@tsproxy/sdk";
import { type Answer, text } from "./answer.ts";
import type { CoreData } from "./core-data.ts";
import type { Query } from "./query.ts";

const LEVELS = ["trace", "debug", "info", "warning", "error", "critical", "off"];
const LOGGING_USAGE =
  "usage: /logging?<name>=<level> (change single level)\n" +
  "usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n" +
  "usage: /logging?level=<level> (change all levels)\n" +
  "usage: /logging?group=<group_name>:<level> (change group of loggers)\n" +
  `levels: ${LEVELS.join(" ")} \n`;

type Levels = readonly (readonly [logger: string, level: string])[];

/** Adds the loggers under Envoy's names. */
function withEnvoyNames(levels: Levels): Levels {
  const byName = new Map(levels);
  const named = Object.entries(ENVOY_LOGGERS).flatMap(([name, ours]) => {
    const level = byName.get(ours);
    return level === undefined ? [] : [[name, level] as const];
  });
  return [...levels, ...named];
}

/** `/logging`: the loggers are core's own (`main`) and one for each package, which may be called by Envoy's name as well. */
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

/** The changes asked for: [logger, level], with "" for all loggers; undefined: none; a string: what is wrong with the query. */
function loggingChanges(
  query: Query,
  names: ReadonlySet<string>,
): readonly (readonly [string, string])[] | string | undefined {
  // As in Envoy, a parameter without a value asks for nothing.
  const given = [...query.all].filter(([, value]) => value !== "");
  if (given.length === 0) return undefined;
  if (given.length > 1) return "invalid number of parameters";
  const [name, value] = given[0]!;
  const changes: (readonly [string, string])[] = [];
  if (name === "level") changes.push(["", value]);
  else if (name !== "paths" && name !== "group") changes.push([name, value]);
  else {
    for (const pair of value.split(",").filter((each) => each !== "")) {
      const colon = pair.indexOf(":");
      if (colon <= 0 || colon === pair.length - 1) return "empty logger name or empty logger level";
      changes.push([pair.slice(0, colon), pair.slice(colon + 1)]);
    }
  }
  for (const [logger, level] of changes) {
    if (!LEVELS.includes(level)) return "unknown logger level";
    if (name !== "level" && !names.has(logger)) return "unknown logger name";
  }
  return changes;
}
