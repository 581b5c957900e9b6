import { type Answer, text } from "./answer.ts";
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
  await core.drainListeners({
    graceful: query.has("graceful"),
    inboundOnly: query.has("inboundonly"),
    skipExit: query.has("skip_exit"),
  });
  return ok();
}

/** `/reopen_logs` */
export async function reopenLogs(_query: Query, core: CoreData): Promise<Answer> {
  await core.reopenLogs();
  return ok();
}

/** `/reset_counters` */
export async function resetCounters(_query: Query, core: CoreData): Promise<Answer> {
  await core.resetCounters();
  return ok();
}

/** `/quitquitquit` */
export function quit(_query: Query, core: CoreData): Answer {
  return { ...ok(), after: () => core.quit() };
}
