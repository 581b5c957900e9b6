import { type Answer, json, Refused, text } from "./answer.ts";
import type { CoreData } from "./core-data.ts";
import type { Query } from "./query.ts";

/** `/runtime` */
export async function runtime(_query: Query, core: CoreData): Promise<Answer> {
  const { layers, entries } = await core.runtime();
  return json({ layers, entries });
}

const USAGE =
  "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n" +
  "       or send the parameters as form values\n" +
  "use an empty value to remove a previously added override";

/** `/runtime_modify` */
export async function runtimeModify(query: Query, core: CoreData): Promise<Answer> {
  if (query.all.size === 0) throw new Refused(400, USAGE);
  if (!(await core.modifyRuntime(Object.fromEntries(query.all))))
    throw new Refused(503, "No admin layer specified");
  return text("OK\n");
}
