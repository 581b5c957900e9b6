import type { SandboxUse } from "../inside/sandbox/context.ts";
import type { Refusal } from "../protocol.ts";
import { refusalOf } from "../reload/refusal.ts";
import type { Accounts } from "./accounts.ts";
import { build, discard, type Made, type SetupFailure, type Surroundings, setUp } from "./build.ts";
import type { SandboxIsolate } from "./isolate.ts";
import type { SandboxOptions } from "./options.ts";

const PREPARE_TIMES = 16; // isolates that a setup may see end because of what uses do that run

/** The sandbox, as its uses see it. */
export interface UsesPorts {
  /** The one that serves. Undefined: it is being built. */
  readonly isolate: SandboxIsolate | undefined;
  readonly now: () => number;
  /** From now on this isolate serves. `again`: it takes the place of a lost one. */
  install(made: Made, again: boolean): void;
  /**
   * Calls the isolate on another thread; meanwhile records wait. Answers what `call` answers, or, after a fault, what `failed` makes
   * of it. Undefined: the isolate was lost meanwhile, for what other code has done.
   */
  aside<T>(
    what: string,
    call: () => Promise<T>,
    failed: (error: unknown) => T,
  ): Promise<T | undefined>;
  /** The setup of this use has failed that went well before: it is left alone for a while. */
  rests(use: number, error: unknown): void;
  /** No isolate can be built, and nobody knows which use is to blame. */
  fault(what: string, error: unknown): void;
  /** All that waits for an isolate asks again, as some of it is not to wait any longer. */
  askAgain(): void;
}

/**
 * The uses of a sandbox and the isolate that they are set up in, which is built anew whenever it is lost.
 *
 *   set up ──its code fails too often, or its setup when the isolate is built anew──▶ left out ──back-off──▶ tried
 *     ▲                                                                                  ▲                    │
 *     └──────────────── its setup goes well ─────────────────────────────────────────────┴──── it fails ──────┘
 */
export class Uses {
  readonly #options: SandboxOptions;
  /** Those of an isolate that nobody is told of. */
  readonly #trial: SandboxOptions;
  readonly #timeoutMs: number;
  readonly #accounts: Accounts;
  readonly #sandbox: UsesPorts;
  #all: readonly SandboxUse[] = [];
  #left: readonly SandboxUse[] = [];
  /** Those that are being prepared, without those that were released meanwhile. */
  #coming: readonly SandboxUse[] = [];
  #prepared: Promise<unknown> = Promise.resolve();
  #runtime = "";
  #rebuilding: Promise<void> | undefined = undefined;
  #preparing: Promise<unknown> | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  #isTrying = false;
  #disposed = false;

  constructor(options: SandboxOptions, timeoutMs: number, accounts: Accounts, sandbox: UsesPorts) {
    const { onMade: _, onReads: _reads, onPolicy: _policy, ...trial } = options;
    // Cells are its own: those of the package count who uses them, and nobody is told when this isolate goes.
    const { cells: _cells, ...module } = options.module;
    this.#options = options;
    this.#trial = { ...trial, module };
    this.#timeoutMs = timeoutMs;
    this.#accounts = accounts;
    this.#sandbox = sandbox;
  }

  get ids(): readonly number[] {
    return this.#all.map(({ id }) => id);
  }
  get isEmpty(): boolean {
    return this.#all.length === 0;
  }
  /** JSON of all runtime values, or "". */
  get runtime(): string {
    return this.#runtime;
  }
  find(id: number): SandboxUse | undefined {
    return this.#all.find((use) => use.id === id);
  }
  /** Whether the isolate is, or is being, built without this use. */
  isLeft(id: number): boolean {
    return this.#left.length > 0 && this.#left.some((use) => use.id === id);
  }

  /**
   * Builds the isolate if there is none yet, and runs `setup` for these uses. If one refuses, none is taken. They are tried apart first
   * if there is one: nobody else's streams are lost with an isolate that a setup never returns in. A change that is given up leaves its
   * `prepare` behind, so the next one waits for that. `isTried`: there is no need to.
   */
  prepare(uses: readonly SandboxUse[], isTried: boolean): Promise<readonly Refusal[]> {
    this.#coming = [...this.#coming, ...uses];
    const prepared = this.#prepared
      .then(() => this.#prepare(uses, isTried))
      .finally(() => {
        this.#coming = this.#coming.filter((use) => !uses.includes(use));
      });
    this.#prepared = prepared;
    return prepared;
  }

  async #prepare(uses: readonly SandboxUse[], wasTried: boolean): Promise<readonly Refusal[]> {
    let isTried = wasTried || this.isEmpty || uses.length === 0;
    for (let k = 0; k < PREPARE_TIMES; k++) {
      await this.#rebuilding;
      const { isolate } = this.#sandbox;
      if (isolate === undefined) {
        const first = this.#prepareFirst(uses);
        this.#preparing = first;
        const refusals = await first;
        this.#preparing = undefined;
        return refusals;
      }
      if (!isTried) {
        const failures = await this.#try(uses);
        if (failures.length > 0) return failures.map(({ refusal }) => refusal);
        isTried = true;
        if (this.#sandbox.isolate !== isolate) continue;
      }
      const failures = await this.#setUp("setup", isolate, uses);
      if (failures?.length === 0) this.#take(uses);
      if (failures !== undefined) return failures.map(({ refusal }) => refusal);
    }
    const why = "its isolate was stopped each time, by uses that run; save it again";
    return [refusalOf(this.#options.package, why)];
  }

  /** Takes uses that ran before in a sandbox that was lost, and settles when they have been tried once. */
  async restore(uses: readonly SandboxUse[]): Promise<void> {
    this.#all = [...this.#all, ...uses];
    await this.#beginRebuild();
  }

  /** Takes a use that ran before in another isolate; this one is built anew with it, `ms` from now. */
  async adopt(use: SandboxUse, ms: number): Promise<void> {
    if (this.find(use.id) !== undefined) return;
    this.#all = [...this.#all, use];
    await this.#rebuilding;
    this.#left = this.#left.filter((left) => left !== use);
    this.#sandbox.askAgain();
    this.rebuildIn(ms);
  }

  /** Sets the runtime values of this isolate and of those built after it. `text`: their JSON. */
  async setRuntime(text: string): Promise<void> {
    this.#runtime = text;
    await this.#call("runtime", (isolate) => isolate.call("setRuntime", text));
  }

  async release(id: number): Promise<void> {
    this.#all = this.#all.filter((kept) => kept.id !== id);
    this.#left = this.#left.filter((kept) => kept.id !== id);
    this.#coming = this.#coming.filter((use) => use.id !== id);
    await this.#call("release", (isolate) => isolate.call("release", id));
  }

  /** The isolate is lost. */
  rebuildIn(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#disposed) return;
    this.#timer = setTimeout(() => void this.#beginRebuild(), ms);
    this.#timer.unref();
  }

  /**
   * To be called once a second: sets uses up again that have rested long enough. They are tried in an isolate of their own first, as
   * a setup that never returns costs the one that it runs in, and seconds.
   */
  async takeBack(): Promise<void> {
    if (this.#left.length === 0 || this.#isTrying) return;
    const { isolate } = this.#sandbox;
    const due = this.#left.filter((use) => !this.#mustRest(use));
    if (isolate === undefined || due.length === 0) return;
    this.#isTrying = true;
    const failed = await this.#try(due);
    this.#isTrying = false;
    if (this.#sandbox.isolate !== isolate) return;
    if (failed.length > 0) {
      this.#rest(failed, due);
      return;
    }
    const uses = due.filter((use) => this.#left.includes(use));
    const failures = await this.#setUp("rebuild", isolate, uses);
    if (failures === undefined) return;
    if (failures.length === 0) this.#left = this.#left.filter((use) => !uses.includes(use));
    // What was lost with the isolate has been charged already.
    else if (this.#sandbox.isolate === isolate) this.#rest(failures, uses);
  }

  dispose(): void {
    this.#disposed = true;
    clearTimeout(this.#timer);
  }

  get #surroundings(): Surroundings {
    return { timeoutMs: this.#timeoutMs, runtime: this.#runtime, now: this.#sandbox.now };
  }

  /** Sets these uses up in an isolate that nobody is told of. Answers which of them have failed. */
  async #try(uses: readonly SandboxUse[]): Promise<readonly SetupFailure[]> {
    const made = await build(this.#trial, uses, this.#surroundings);
    this.#options.supply.restockSoon();
    if (!("isolate" in made)) return made;
    discard(this.#trial, made);
    return [];
  }

  async #prepareFirst(uses: readonly SandboxUse[]): Promise<readonly Refusal[]> {
    for (let earlier = this.#begin(); ; earlier = this.#begin()) {
      const all = [...earlier, ...uses];
      const surroundings = this.#surroundings;
      const made = await build(this.#options, all, surroundings);
      if ("isolate" in made) {
        this.#take(uses);
        this.#install(made, false, all, surroundings);
        return [];
      }
      const own = made.filter(({ use }) => !earlier.some(({ id }) => id === use));
      if (own.length > 0) return own.map(({ refusal }) => refusal);
      this.#rest(made, earlier);
    }
  }

  #beginRebuild(): Promise<void> {
    this.#rebuilding = this.#rebuild().finally(() => {
      this.#rebuilding = undefined;
    });
    return this.#rebuilding;
  }

  /** Builds the isolate again, without the uses whose setup fails; compiling and setup run on other threads. */
  async #rebuild(): Promise<void> {
    await this.#preparing;
    // A `prepare` may have built it meanwhile.
    if (this.#sandbox.isolate !== undefined) return;
    for (let uses = this.#begin(); !this.#disposed; ) {
      const surroundings = this.#surroundings;
      const made = await build(this.#options, uses, surroundings);
      if ("isolate" in made) {
        this.#install(made, true, uses, surroundings);
        // One fault is often followed by another.
        this.#options.supply.restockSoon();
        return;
      }
      const unknown = made.find(({ use }) => use === 0);
      if (unknown !== undefined) {
        if (!this.#disposed) this.#sandbox.fault("rebuild", unknown.error);
        return;
      }
      this.#rest(made, uses);
      uses = uses.filter(({ id }) => !made.some(({ use }) => use === id));
      this.#left = this.#all.filter((use) => !uses.includes(use));
      this.#sandbox.askAgain();
    }
  }

  /** The uses that an isolate is built with. */
  #begin(): readonly SandboxUse[] {
    this.#left = this.#all.filter((use) => this.#mustRest(use));
    return this.#all.filter((use) => !this.#left.includes(use));
  }

  /** Code of this use's own has failed too often, so that the isolate is built without it. */
  #mustRest({ id }: SandboxUse): boolean {
    return this.#accounts.state({ use: id, part: 0 }, this.#sandbox.now()) === "open";
  }

  /** `uses`: those that it was built with; `runtime`: what it knows. Either may have changed meanwhile. */
  #install(
    made: Made,
    again: boolean,
    uses: readonly SandboxUse[],
    { runtime }: Surroundings,
  ): void {
    if (this.#disposed) {
      discard(this.#options, made);
      return;
    }
    this.#left = this.#all.filter((use) => !uses.includes(use));
    this.#sandbox.install(made, again);
    if (runtime !== this.#runtime) void this.setRuntime(this.#runtime);
    for (const use of uses) if (!this.#all.includes(use)) void this.release(use.id);
  }

  /** These have been set up, and those of them that were released before that are released again. */
  #take(uses: readonly SandboxUse[]): void {
    this.#all = [...this.#all, ...uses.filter((use) => this.#coming.includes(use))];
    for (const use of uses) if (!this.#coming.includes(use)) void this.release(use.id);
  }

  /** These have failed among `tried`. */
  #rest(failures: readonly SetupFailure[], tried: readonly SandboxUse[]): void {
    for (const { use, refusal, error = refusedAgain(refusal) } of failures)
      for (const { id } of tried)
        if ((use === 0 || use === id) && this.find(id) !== undefined)
          this.#sandbox.rests(id, error);
  }

  #setUp(
    what: string,
    isolate: SandboxIsolate,
    uses: readonly SandboxUse[],
  ): Promise<readonly SetupFailure[] | undefined> {
    const { package: name } = this.#options;
    return this.#sandbox.aside(
      what,
      () => setUp(this.#options, isolate, uses),
      (error) => [{ use: 0, refusal: refusalOf(name, error), error }],
    );
  }

  async #call(what: string, call: (isolate: SandboxIsolate) => Promise<unknown>): Promise<void> {
    const { isolate } = this.#sandbox;
    if (isolate === undefined) return;
    await this.#sandbox.aside(
      what,
      () => call(isolate),
      () => undefined,
    );
  }
}

function refusedAgain({ message, stack }: Refusal): Error {
  return Object.assign(new Error(`setup refuses what it took before: ${message}`), { stack });
}
