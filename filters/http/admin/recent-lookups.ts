import { type Answer, text } from "./answer.ts";
import type { CoreData } from "./core-data.ts";
import type { Query } from "./query.ts";

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

/** `/stats/recentlookups/enable`, `/disable` and `/clear` */
export const changeLookups =
  (change: "enable" | "disable" | "clear") =>
  async (_query: Query, core: CoreData): Promise<Answer> => {
    await core.changeLookups(change);
    return text("OK\n");
  };
