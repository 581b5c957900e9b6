import type { OpenBreakers } from "../admin/open-breakers.ts";
import type { ServerStats } from "../admin/server-stats.ts";
import type { StatsReader } from "../admin/stats.ts";
import type { FleetEvents } from "../fleet.ts";
import { locate, type SourcePositions } from "../packages/source-positions.ts";
import { formatProblem, type Problem, problem } from "../problem.ts";
import type { FromWorker, Refusal, RuntimeConfig } from "../protocol.ts";
import type { Thread } from "../thread.ts";
import { borrowed } from "./line-buffer.ts";
import type { LineOrder } from "./line-order.ts";
import type { Log } from "./log.ts";
import { Repeats } from "./repeats.ts";
import { scriptPlace } from "./script-place.ts";

export interface FleetLogParts {
  readonly log: Log;
  /** Source positions of a package's module, by its file name. */
  readonly find: (filename: string) => SourcePositions | undefined;
  /** The same for core's own modules. */
  readonly findOwn: (filename: string) => SourcePositions | undefined;
  /** The config that serves, whose scripts faults may be in. */
  readonly config: () => RuntimeConfig | undefined;
  /** A thread serves the previous code of these packages again. */
  readonly onReverted: (packages: readonly string[]) => void;
  /** The problem of what a place in that config has done. Undefined: there is no config. */
  readonly explain: (told: Refusal) => Problem | undefined;
  readonly server: Pick<ServerStats, "faults" | "opened">;
  readonly breakers: Pick<OpenBreakers, "open">;
  readonly stats: StatsReader;
  readonly lines: Pick<LineOrder, "add">;
  readonly onCall: (name: string, args: unknown) => Promise<unknown>;
  readonly onSandboxLost: (packageName: string) => void;
  readonly onFiles: NonNullable<FleetEvents["onFiles"]>;
  readonly onRested: NonNullable<FleetEvents["onRested"]>;
  /** Messages of debugger sessions. Absent: no debugger can attach. */
  readonly onInspected?: NonNullable<FleetEvents["onInspected"]>;
}

/** Passes what threads report on to the log and the stats. */
export class FleetLog implements FleetEvents {
  readonly #parts: FleetLogParts;
  readonly #repeats = new Repeats();
  /** Source positions of any module, a package's or core's own. */
  readonly #find: FleetLogParts["find"];
  readonly onCall: FleetLogParts["onCall"];
  readonly onSandboxLost: FleetLogParts["onSandboxLost"];
  readonly onFiles: NonNullable<FleetEvents["onFiles"]>;
  readonly onRested: NonNullable<FleetEvents["onRested"]>;

  constructor(parts: FleetLogParts) {
    this.#parts = parts;
    this.#find = (filename) => parts.find(filename) ?? parts.findOwn(filename);
    this.onCall = parts.onCall;
    this.onSandboxLost = parts.onSandboxLost;
    this.onFiles = parts.onFiles;
    this.onRested = parts.onRested;
  }

  onLog(
    _thread: Thread,
    { level, message, fields, single }: Extract<FromWorker, { type: "log" }>,
  ): void {
    const { log } = this.#parts;
    if (single === true) log[level](fields, message);
    else
      this.#repeats.once(`${level} ${message} ${JSON.stringify(fields)}`, (more) => {
        const { stack = "", ...others } = fields;
        const inCode = locate(message, String(stack), this.#find);
        if (inCode.file === "") log[level]({ ...fields, ...more }, message);
        else log[level]({ ...others, ...more }, formatProblem(inCode));
      });
  }

  onFault(thread: Thread, fault: Extract<FromWorker, { type: "fault" }>): void {
    const { package: name, reason, stack, reverted, place: use, path = "", openMs = 0 } = fault;
    const { log, find, server, breakers } = this.#parts;
    server.faults(name === "" ? "unknown" : name);
    const refusal = { package: name, message: reason, stack: "", path, place: use ?? "" };
    const charged = (use !== undefined && this.#parts.explain(refusal)) || problem(reason);
    if (openMs > 0) {
      breakers.open(name, charged, openMs);
      server.opened(name);
    }
    if (reverted !== undefined && reverted.length > 0) this.#parts.onReverted(reverted);
    this.#repeats.once(`fault ${name} ${use} ${path} ${reason}`, (more) => {
      // A package's fault is located in the package itself, even if core's code stands above it in the stack.
      const inCode = locate(reason, stack, name === "" ? this.#find : find);
      const located = inCode.file === "" ? charged : inCode;
      const place = scriptPlace(stack, this.#parts.config());
      // A script's own errors have been given their place by its package.
      const isToPlace = place !== undefined && !reason.includes(`${place.file}:`);
      const found = isToPlace ? { ...problem(reason), ...place } : located;
      const who = name === "" ? "" : `${name}: `;
      log.error({ thread: thread.name, ...more }, `fault: ${who}${formatProblem(found)}`);
    });
  }

  onLines(thread: Thread, message: Extract<FromWorker, { type: "lines" }>): void {
    const { path, bytes, marks } = message;
    this.#parts.lines.add(path, borrowed(bytes, thread.memory.lines), marks);
  }

  onInspected(message: Parameters<NonNullable<FleetEvents["onInspected"]>>[0]): void {
    this.#parts.onInspected?.(message);
  }

  onStats(thread: Thread, message: Extract<FromWorker, { type: "stats" }>): void {
    const { defined, listed, returned, owner = "" } = message;
    const { stats } = this.#parts;
    if (returned !== undefined) stats.takeBack(thread.memory.stats, returned);
    if (listed !== undefined) stats.list(listed);
    const told = defined as Parameters<StatsReader["define"]>[1];
    if (owner === "") stats.define(thread.memory.stats, told);
    else stats.defineOf(owner, thread.memory.stats, told);
    this.#tellRefused();
  }

  #tellRefused(): void {
    for (const { owner, name } of this.#parts.stats.takeRefused())
      this.#parts.log.error(
        { filter: owner },
        `"${name}" is not counted for ${owner}: another part of the proxy has a stat of that name; give it another name`,
      );
  }

  onStatsLost(thread: Thread): void {
    this.#parts.stats.forget(thread.memory.stats);
  }

  onLost(thread: Thread, reason: string): void {
    this.#parts.stats.forget(thread.memory.stats);
    this.#parts.log.error(`${thread.name} died and is started again: ${reason}`);
  }
}
