import type { SandboxManifest } from "@tsproxy/sdk";
import { Debugging } from "./admin/debugging.ts";
import { EVENT } from "./inside/ring.ts";
import type { SandboxUse } from "./inside/sandbox/context.ts";
import { partOf, RECORD } from "./inside/sandbox/layout.ts";
import { HISTOGRAM_CELLS } from "./inside/stats.ts";
import type { Watchdog } from "./isolate.ts";
import { linesOfNow } from "./logs/gathered-lines.ts";
import { textOf } from "./packages/module-code.ts";
import type { Marks } from "./process/marks.ts";
import type { FromWorker, ModuleSource, ProfileKind, Refusal, ToWorker } from "./protocol.ts";
import type { Account } from "./sandbox/accounts.ts";
import type { SandboxIsolate } from "./sandbox/isolate.ts";
import type { SandboxLimits } from "./sandbox/options.ts";
import { SandboxProfile } from "./sandbox/profile.ts";
import { Sandbox } from "./sandbox/sandbox.ts";
import type { StatsSink } from "./sandbox/stats.ts";
import type { Supply } from "./sandbox/supply.ts";
import type { Crossing } from "./sockets/crossing.ts";
import type { Sockets } from "./sockets/sockets.ts";

/** Sandboxes use the last quarter of a worker's stats cells; it begins at this fraction of the block. */
const SANDBOX_CELLS_FROM = 3 / 4;

export interface BoxesOptions {
  readonly supply: Supply;
  readonly watchdog: Watchdog;
  readonly worker: number;
  readonly node: { readonly id: string; readonly cluster: string; readonly address?: string };
  readonly sockets: Sockets;
  readonly crossing: Crossing;
  readonly stats: StatsSink;
  readonly post: (message: FromWorker) => void;
  /** The thread's words for the supervisor (BEAT): among them the box that the thread is inside now. */
  readonly beats: Int32Array;
  /** Undefined: this process keeps no marks. */
  readonly marks: Marks | undefined;
  /** Called after setup: the filters of this use read only these parts of their streams (a mask of HOOK bits). */
  readonly onReads: (use: number, mask: number) => void;
  /** Called after the setup of a balancer: JSON of its ToldPolicy. */
  readonly onPolicy: (use: number, told: string) => void;
  /** The builtin isolate may enter this sandbox directly, through a gate (inside/gate.ts). Undefined: the box has ended. */
  readonly onGate: (box: number, isolate: SandboxIsolate | undefined) => void;
  /** A sandboxed filter calls `fetch`: JSON of a FetchMessage, and the body. "": the sandbox has ended; cancel its calls. */
  readonly onFetch: (box: number, text: string, bytes: Buffer) => void;
  /** New streams of that use, or of its per-route config, go to the box's ward from now on (true), past the gate, or no longer. */
  readonly onConfined: (account: Account, isConfined: boolean) => void;
}

/** A place in the config that uses a dropped-in package, as reported by the package's stand-in in the builtin isolate. */
export interface ToldUse {
  readonly package: string;
  readonly box: number;
  readonly use: number;
  readonly place: string;
  readonly statPrefix: string;
  readonly config: unknown;
  readonly previousUse?: number;
}

/** A per-route config of a use. */
export interface ToldPart {
  readonly box: number;
  readonly use: number;
  readonly part: number;
  /** Where it stands in the config of the chain that the use is in. */
  readonly path: string;
}

/** The previous generation of a package with `failurePolicy: previous`, kept running for streams that the new one cannot take. */
interface Fallback {
  readonly box: Box;
  /** The old number of each use, by its new number. */
  readonly uses: ReadonlyMap<number, number>;
}

/** One generation of a package's code in its sandbox. */
interface Box {
  readonly number: number;
  /** The number of its ward. */
  readonly ward: number;
  readonly sandbox: Sandbox;
  readonly wantsFallback: boolean;
  /** An access logger: its records are complete by themselves, and all of them come under one token, for as long as it is used. */
  readonly isLogger: boolean;
  readonly uses: Set<number>;
  /** Every string in the configs of its uses. The package may append only to files that are named there. */
  readonly named: Set<string>;
  /** A refused append has been logged; it is logged once. */
  saidNo: boolean;
  /** Numbers of the same uses in the previous generation. */
  readonly previousUses: Map<number, number>;
  fallback: Fallback | undefined;
  /** This box is the fallback of a newer one: its uses stay although the config no longer has them. */
  kept: boolean;
  /** The package has newer code: this box ends with its last use. */
  superseded: boolean;
  /** Its last use has ended, and its end is under way. */
  isEnding: boolean;
}

/** The sandboxes of a worker: one box for each package and generation of its code. */
export class Boxes {
  readonly #options: BoxesOptions;
  readonly #boxes = new Map<number, Box>();
  /** The boxes by the numbers of their wards. */
  readonly #wards = new Map<number, Box>();
  readonly #current = new Map<string, number>();
  #next = 1;
  /** Uses that were reported since the last `prepare`. */
  #told: ToldUse[] = [];
  #runtime = "";
  /** For sandboxes that are made from now on. */
  node: BoxesOptions["node"];
  readonly #debugging: Debugging;
  readonly #profiles = new Map<string, SandboxProfile>();

  constructor(options: BoxesOptions) {
    this.#options = options;
    this.node = options.node;
    this.#debugging = new Debugging(options.post, (name) => this.#serving(name)?.isolate);
    const { sockets, crossing } = options;
    sockets.onPark = (box, token, at, size) => {
      const found = this.#boxes.get(box);
      if (found === undefined) crossing.push(EVENT.VERDICT, token, 0, -1);
      else if (found.fallback === undefined) found.sandbox.park(token, at, size);
      else this.#parkWithFallback(found, found.fallback, token, at, size);
    };
    sockets.onForget = (box, token) => {
      const found = this.#boxes.get(box);
      found?.sandbox.forget(token);
      found?.fallback?.box.sandbox.forget(token);
    };
  }

  /**
   * Streams stay with the generation they began in. New streams, and log entries, go to the previous one while the new one takes
   * none.
   */
  #parkWithFallback(
    { sandbox, isLogger }: Box,
    { box: old, uses }: Fallback,
    token: number,
    at: number,
    size: number,
  ): void {
    const isOld = !isLogger && old.sandbox.holds(token);
    const { memory } = this.#options.crossing;
    const useAt = at + RECORD.USE * 4;
    const own = memory.readInt32LE(useAt);
    const account = { use: own, part: partOf(memory.readInt32LE(at + RECORD.KIND * 4)) };
    const isNew = !isLogger && sandbox.holds(token);
    if (!isOld && (isNew || sandbox.takes(token, account))) {
      sandbox.park(token, at, size);
      return;
    }
    const use = uses.get(own);
    if (use !== undefined) memory.writeInt32LE(use, useAt);
    old.sandbox.park(token, at, size);
  }

  /** Makes a box for new code of a package. Answers its number, its ward's, and the hooks that the source names (a mask of HOOK bits). */
  add(module: ModuleSource): {
    readonly box: number;
    readonly ward: number;
    readonly hooks: number;
  } {
    const { supply, watchdog, worker, crossing, stats, post, beats } = this.#options;
    const { manifest = {}, quarantined = false } = module;
    const box = this.#next++;
    const ward = this.#next++;
    for (const number of [box, ward]) post({ type: "box", box: number, package: module.package });
    const sandbox = new Sandbox({
      package: module.package,
      supply,
      watchdog,
      module: { ...module, code: textOf(module) },
      worker,
      node: this.node,
      failurePolicy: manifest.failurePolicy === "open" ? "open" : "closed",
      cpuShare: manifest.cpuShare ?? 1,
      limits: limitsOf(manifest),
      quarantined,
      marks: this.#options.marks?.of(module.package),
      onLost: () => post({ type: "lost", package: module.package }),
      mark: { words: beats, box },
      memory: crossing.memory,
      place: (size) => crossing.place(size),
      onVerdict: (token, at, size) => {
        crossing.push(EVENT.VERDICT, token, at, size);
        crossing.schedule();
      },
      onWork: () => crossing.schedule(),
      onReads: (use, mask) => this.#options.onReads(use, mask),
      onPolicy: (use, told) => this.#options.onPolicy(use, told),
      onFetch: (text, bytes) => this.#options.onFetch(box, text, bytes),
      onFault: (fault) => post({ type: "fault", ...fault }),
      onLog: (level, message, fields, serves) =>
        post({
          type: "log",
          level: level as "info",
          message,
          fields: { filter: module.package, ...fields },
          ...(serves && { single: true }),
        }),
      onLines: (path, text) => this.#onLines(box, path, text),
      // With a fallback, core decides record by record which generation gets a stream, so there is no gate.
      ...(manifest.failurePolicy !== "previous" && {
        onGate: (isolate) => this.#options.onGate(box, isolate),
      }),
      onMade: (isolate) => this.#debugging.follow(module.package, isolate),
      ...(!module.package.startsWith("balancer/") && {
        ward: {
          mark: { words: beats, box: ward },
          onFetch: (text, bytes) => this.#options.onFetch(ward, text, bytes),
          onConfined: (account, isConfined) => this.#options.onConfined(account, isConfined),
        },
      }),
      stats,
    });
    if (this.#runtime !== "") void sandbox.setRuntime(this.#runtime);
    const made: Box = {
      number: box,
      ward,
      sandbox,
      wantsFallback: manifest.failurePolicy === "previous",
      isLogger: module.package.startsWith("access_log/"),
      uses: new Set(),
      named: new Set(),
      saidNo: false,
      previousUses: new Map(),
      fallback: undefined,
      kept: false,
      superseded: false,
      isEnding: false,
    };
    this.#boxes.set(box, made);
    this.#wards.set(ward, made);
    crossing.visit(sandbox);
    return { box, ward, hooks: sandbox.hooks };
  }

  #serving(name: string): Sandbox | undefined {
    return this.#boxes.get(this.#current.get(name) ?? -1)?.sandbox;
  }

  inspect({ session, action, text }: Extract<ToWorker, { type: "inspect" }>): void {
    if (action === "open") this.#debugging.open(session, text);
    else if (action === "send") this.#debugging.send(session, text);
    else if (action === "ready") this.#debugging.ready(session);
    else this.#debugging.close(session);
  }

  async startProfile(filter: string, kind: ProfileKind): Promise<void> {
    const isolate = this.#serving(filter)?.isolate;
    if (isolate === undefined) throw new Error(`"${filter}" has no sandbox in this thread`);
    this.#profiles.set(filter, await SandboxProfile.start(isolate, kind));
  }

  async stopProfile(filter: string): Promise<string> {
    const profile = this.#profiles.get(filter);
    this.#profiles.delete(filter);
    if (profile === undefined) throw new Error(`no profile of "${filter}" has begun`);
    return profile.stop();
  }

  /** The answer, or a part of it, to what a sandbox has fetched. */
  reply(box: number, text: string, bytes: Buffer): void {
    const found = this.#boxes.get(box);
    if (found !== undefined) found.sandbox.reply(text, bytes);
    else this.#wards.get(box)?.sandbox.replyInWard(text, bytes);
  }

  /** `text`: JSON of all runtime values. */
  setRuntime(text: string): void {
    this.#runtime = text;
    for (const { sandbox } of this.#boxes.values()) void sandbox.setRuntime(text);
  }

  onUse(use: ToldUse): void {
    this.#told.push(use);
    const found = this.#boxes.get(use.box);
    found?.uses.add(use.use);
    if (found !== undefined) for (const text of stringsIn(use.config)) found.named.add(text);
  }

  onPart({ box, use, part, path }: ToldPart): void {
    this.#boxes.get(box)?.sandbox.name({ use, part }, path);
  }

  /** Lines for a file. Only files named in the package's config are written. */
  #onLines(box: number, path: string, text: string): void {
    const { post } = this.#options;
    const found = this.#boxes.get(box);
    if (found === undefined) return;
    if (found.named.has(path)) {
      post(linesOfNow(path, text));
    } else if (!found.saidNo) {
      found.saidNo = true;
      const filter = found.sandbox.package;
      const message = `"${path}" is not written: a filter appends to files that its config names`;
      post({ type: "log", level: "error", message, fields: { filter } });
    }
  }

  /** An answer of this box's filter was not taken, and its stream has failed. */
  onMalformed(box: number, reason: string): void {
    const filter = this.#boxes.get(box)?.sandbox.package;
    const message = `a stream has failed, as the filter's answer cannot be taken: ${reason}`;
    this.#options.post({ type: "log", level: "warn", message, fields: { filter } });
  }

  /** Called when a promise without a handler was rejected in a sandbox that the filter chain had entered itself. */
  onUncaught(box: number, message: string, stack: string): void {
    this.#boxes.get(box)?.sandbox.onUncaught(message, stack);
  }

  onUnuse(box: number, use: number): void {
    const found = this.#boxes.get(box);
    if (found === undefined) return;
    found.uses.delete(use);
    if (found.kept) return;
    this.#told = this.#told.filter((told) => told.use !== use);
    if (found.superseded && found.uses.size === 0) this.#finish(found);
    else void found.sandbox.release(use);
  }

  /** Runs `setup` in the sandboxes for all uses reported since the last call. */
  async prepare(): Promise<readonly Refusal[]> {
    const answers = await Promise.all(
      [...this.#takeTold()].map(([box, uses]) => this.#prepareBox(box, uses)),
    );
    return answers.flat();
  }

  /** As `prepare`, when everything ran before and was lost: nothing is refused. A sandbox that cannot be set up goes on trying. */
  async restore(): Promise<void> {
    await Promise.all(
      [...this.#takeTold()].map(([box, uses]) =>
        this.#boxes.get(box)?.sandbox.restore(uses.map(setupOf)),
      ),
    );
  }

  /** The uses reported since the last call, by their box. */
  #takeTold(): ReadonlyMap<number, readonly ToldUse[]> {
    const byBox = new Map<number, ToldUse[]>();
    for (const use of this.#told) byBox.set(use.box, [...(byBox.get(use.box) ?? []), use]);
    this.#told = [];
    return byBox;
  }

  async #prepareBox(box: number, uses: readonly ToldUse[]): Promise<readonly Refusal[]> {
    const found = this.#boxes.get(box);
    if (found === undefined) return [];
    for (const { use, previousUse } of uses)
      if (previousUse !== undefined) found.previousUses.set(use, previousUse);
    const old = this.#boxes.get(this.#current.get(uses[0]!.package) ?? -1);
    const left =
      old === undefined || old === found
        ? new Map<number, unknown>()
        : await this.#handover(old.sandbox);
    const setups = uses.map((use): SandboxUse => {
      const { previousUse } = use;
      const previous = previousUse === undefined ? undefined : left.get(previousUse);
      return { ...setupOf(use), ...(previous != null && { previous }) };
    });
    if (old !== found || !found.sandbox.isHeld) return found.sandbox.prepare(setups);
    // The code stays, only the config is new: a debugger's pause is released for the setup and restored after it.
    this.#debugging.leave(found.sandbox.package);
    try {
      return await found.sandbox.prepare(setups);
    } finally {
      this.#debugging.restore(found.sandbox.package);
    }
  }

  /** Releases a debugger's pause first: nothing can enter an isolate that is held at a line. */
  #handover(sandbox: Sandbox): Promise<ReadonlyMap<number, unknown>> {
    this.#debugging.leave(sandbox.package);
    return sandbox.handover();
  }

  /** These boxes now serve their packages, by name; the boxes they replace end with their last use. */
  commit(boxes: ReadonlyMap<string, number>): void {
    for (const [name, box] of boxes) {
      const before = this.#current.get(name);
      this.#current.set(name, box);
      if (before === undefined || before === box) continue;
      this.#fallBackOn(this.#boxes.get(box), this.#boxes.get(before));
      this.#supersede(before);
    }
    if (boxes.size > 0) this.#options.supply.restockSoon();
  }

  /** With `failurePolicy: previous`: `before` serves the streams that `box` cannot take. */
  #fallBackOn(box: Box | undefined, before: Box | undefined): void {
    if (box === undefined || before === undefined || !box.wantsFallback) return;
    box.fallback = { box: before, uses: box.previousUses };
    before.kept = true;
    this.#letGo(before);
  }

  /** Ends the fallback of this box. */
  #letGo(box: Box): void {
    const old = box.fallback?.box;
    box.fallback = undefined;
    if (old !== undefined) this.#finish(old);
  }

  /** The preparation that made this box was refused or replaced. */
  drop(box: number): void {
    const name = this.#boxes.get(box)?.sandbox.package;
    if (name !== undefined) this.#debugging.restore(name);
    this.#supersede(box);
    this.#options.supply.restock();
  }

  removePackage(name: string): void {
    const box = this.#current.get(name);
    this.#current.delete(name);
    if (box !== undefined) this.#supersede(box);
  }

  #supersede(box: number): void {
    const found = this.#boxes.get(box);
    if (found === undefined) return;
    found.superseded = true;
    if (found.uses.size === 0 && !found.kept) this.#finish(found);
  }

  /** Ends a box that nothing uses any more, once the commands of this crossing, which name the last ended streams, have run. */
  #finish(box: Box): void {
    if (box.isEnding) return;
    box.isEnding = true;
    setImmediate(async () => {
      await box.sandbox.finish();
      this.#end(box.number);
    });
  }

  #end(box: number): void {
    const found = this.#boxes.get(box);
    if (found === undefined) return;
    this.#boxes.delete(box);
    this.#wards.delete(found.ward);
    this.#letGo(found);
    this.#options.crossing.leave(found.sandbox);
    found.sandbox.dispose();
    this.#options.onGate(box, undefined);
  }

  /** Ends pauses (promises of hooks) that are past their deadline. Called once a second. */
  expire(now: number, stoodStillMs: number): void {
    for (const { sandbox } of this.#boxes.values()) sandbox.expire(now, stoodStillMs);
  }

  dispose(): void {
    this.#debugging.dispose();
    for (const box of [...this.#boxes.keys()]) this.#end(box);
  }
}

const setupOf = ({ use: id, config, place, statPrefix }: ToldUse): SandboxUse => ({
  id,
  config,
  place,
  statPrefix,
});

/** Every string value in a config, at any depth. */
function* stringsIn(value: unknown): Iterable<string> {
  if (typeof value === "string") yield value;
  else if (typeof value === "object" && value !== null)
    for (const part of Object.values(value)) yield* stringsIn(part);
}

/** The stats of a worker's sandboxes: cells in their part of the worker's block, by kind, name and owner. */
export class SandboxCells implements StatsSink {
  readonly cells: Float64Array;
  readonly #defined = new Map<string, number>();
  readonly #post: (message: FromWorker) => void;
  #next: number;

  constructor(memory: SharedArrayBuffer, post: (message: FromWorker) => void) {
    this.cells = new Float64Array(memory);
    this.#next = Math.floor(this.cells.length * SANDBOX_CELLS_FROM);
    this.#post = post;
  }

  /** All sandboxes have ended. Main has dropped their gauges, so a gauge defined from now on gets a new cell. */
  forgetGauges(): void {
    for (const key of this.#defined.keys()) if (key.startsWith("gauge ")) this.#defined.delete(key);
  }

  define(
    kind: "counter" | "gauge" | "histogram",
    name: string,
    unit: string,
    owner: string,
  ): number {
    const key = `${kind} ${owner} ${name}`;
    const known = this.#defined.get(key);
    if (known !== undefined) return known;
    const size = kind === "histogram" ? HISTOGRAM_CELLS : 1;
    if (this.#next + size > this.cells.length) return -1;
    const cell = this.#next;
    this.#next += size;
    // -0 tells a cell that nobody has written from one that is 0 (inside/stats.ts).
    if (size === 1 && this.cells[cell] === 0) this.cells[cell] = -0;
    this.#defined.set(key, cell);
    this.#post({ type: "stats", defined: [{ kind, name, unit, cell }], owner });
    return cell;
  }
}

function limitsOf({ memoryMb, pauseMs }: SandboxManifest): Partial<SandboxLimits> {
  return {
    ...(memoryMb !== undefined && { quotaMb: memoryMb }),
    ...(pauseMs !== undefined && { pauseMs }),
  };
}
