import { locate, type SourcePositions } from "./bundle.ts";
import type { FleetEvents, Thread } from "./fleet.ts";
import type { LineOrder } from "./line-order.ts";
import type { Log } from "./log.ts";
import { formatProblem } from "./problem.ts";
import type { FromWorker } from "./protocol.ts";
import type { ServerStats } from "./server-stats.ts";
import type { StatsReader } from "./stats.ts";

/** The same words again within this time are counted, not printed: threads say what concerns all of them each. */
const REPEAT_MS = 1_000;
const REMEMBERED = 1_000;

export interface FleetLogParts {
  readonly log: Log;
  /** Positions of the package's module of that name. */
  readonly find: (filename: string) => SourcePositions | undefined;
  /** The same of core's own. */
  readonly findOwn: (filename: string) => SourcePositions | undefined;
  /** A thread has gone back to what these packages were before. */
  readonly onReverted: (packages: readonly string[]) => void;
  readonly server: Pick<ServerStats, "faults">;
  readonly stats: StatsReader;
  readonly lines: Pick<LineOrder, "add">;
  readonly onCall: (name: string, args: unknown) => Promise<unknown>;
  /** A debugger's session; absent: there is none. */
  readonly onInspected?: NonNullable<FleetEvents["onInspected"]>;
}

/** What threads have to say, for the terminal and the stats. */
export class FleetLog implements FleetEvents {
  readonly #parts: FleetLogParts;
  readonly #said = new Map<string, { since: number; times: number }>();
  readonly onCall: FleetLogParts["onCall"];

  constructor(parts: FleetLogParts) {
    this.#parts = parts;
    this.onCall = parts.onCall;
  }

  onLog(_thread: Thread, { level, message, fields }: Extract<FromWorker, { type: "log" }>): void {
    this.#once(`${level} ${message} ${JSON.stringify(fields)}`, (more) =>
      this.#parts.log[level]({ ...fields, ...more }, message),
    );
  }

  onFault(
    thread: Thread,
    { package: name, reason, stack, reverted }: Extract<FromWorker, { type: "fault" }>,
  ): void {
    const { log, find, findOwn, server } = this.#parts;
    server.faults(name === "" ? "unknown" : name);
    if (reverted !== undefined && reverted.length > 0) this.#parts.onReverted(reverted);
    this.#once(`fault ${name} ${reason}`, (more) => {
      // What a package is told of by a line of core's is its own doing all the same.
      const found = locate(reason, stack, name === "" ? findOwn : find);
      const who = name === "" ? "" : `${name}: `;
      log.error({ thread: thread.name, ...more }, `fault: ${who}${formatProblem(found)}`);
    });
  }

  onLines({ path, text, marks }: Extract<FromWorker, { type: "lines" }>): void {
    this.#parts.lines.add(path, text, marks);
  }

  onInspected(message: Parameters<NonNullable<FleetEvents["onInspected"]>>[0]): void {
    this.#parts.onInspected?.(message);
  }

  onStats(thread: Thread, { defined, listed }: Extract<FromWorker, { type: "stats" }>): void {
    if (listed !== undefined) this.#parts.stats.list(listed);
    this.#parts.stats.define(thread.memory.stats, defined as Parameters<StatsReader["define"]>[1]);
  }

  onStatsLost(thread: Thread): void {
    this.#parts.stats.forget(thread.memory.stats);
  }

  onLost(thread: Thread, reason: string): void {
    this.#parts.stats.forget(thread.memory.stats);
    this.#parts.log.error(`${thread.name} died and is started again: ${reason}`);
  }

  #once(key: string, print: (more: { times?: number }) => void): void {
    const now = performance.now();
    const known = this.#said.get(key);
    if (known !== undefined && now - known.since < REPEAT_MS) {
      known.times++;
      return;
    }
    if (this.#said.size >= REMEMBERED) this.#said.clear();
    const times = known?.times ?? 1;
    this.#said.set(key, { since: now, times: 1 });
    print(times > 1 ? { times } : {});
  }
}
