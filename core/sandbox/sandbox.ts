// Hot path: core's side of a dropped-in package's records and answers (test/bench/sandbox.ts).

import type { SandboxUse } from "../inside/sandbox/context.ts";
import {
  ANSWER,
  baseOf,
  HOOK,
  type HookMask,
  KIND,
  partOf,
  RECORD,
  RECORD_FLAG,
  STATUS,
} from "../inside/sandbox/layout.ts";
import type { Refusal } from "../protocol.ts";
import { type Account, Accounts, NOBODY } from "./accounts.ts";
import { Answers } from "./answers.ts";
import type { Made } from "./build.ts";
import { Calls, replyRecord } from "./calls.ts";
import { CpuShare } from "./cpu-share.ts";
import { Door } from "./door.ts";
import { FaultReports } from "./fault-reports.ts";
import { Faults } from "./faults.ts";
import { hooksOf } from "./hooks.ts";
import { Inbox, RECORD_SIZE_MIN, type Waiting } from "./inbox.ts";
import type { SandboxIsolate } from "./isolate.ts";
import { takeNote } from "./notes.ts";
import { DEFAULT_LIMITS, type SandboxLimits, type SandboxOptions } from "./options.ts";
import { type Renewal, Renewals } from "./renewals.ts";
import type { SandboxStats } from "./stats.ts";
import { Tokens } from "./tokens.ts";
import { Quota, SandboxUsage } from "./usage.ts";
import { Uses } from "./uses.ts";
import { Ward } from "./ward.ts";

/** What a ward shares with the sandbox that it belongs to. */
interface Shared {
  /** Those of the places that are confined there. */
  readonly accounts: Accounts;
  readonly reports: FaultReports;
  readonly share: CpuShare;
  /** The uses whose filters keep nothing from one hook to the next. */
  readonly stateless: Set<number>;
}

/**
 * One generation of a dropped-in package: an isolate with a small block of shared memory. Filters send it records (a head, a
 * chunk), and it writes answers (a verdict, edits) into the block. While all is well the builtin isolate enters it directly,
 * through a gate (inside/gate.ts). Core enters it by the door (door.ts) in all other cases, once a round with all records that have
 * gathered, within a time box: when the gate is closed, for chunks too long for the gate, and for answers that come later because a
 * hook returned a promise. The isolate itself calls nobody. Its answers are not trusted: tokens and offsets are checked here and in
 * answers.ts, the contents in the builtin isolate.
 */
export class Sandbox {
  readonly package: string;
  /** The hooks that the package's source names, a mask of HOOK bits. */
  readonly hooks: HookMask;
  readonly #options: SandboxOptions;
  readonly #limits: SandboxLimits;
  readonly #memory: Buffer;
  readonly #words: Int32Array;
  readonly #tokens = new Tokens();
  readonly #answers: Answers;
  readonly #accounts: Accounts;
  readonly #uses: Uses;
  readonly #ward: Ward | undefined;
  readonly #reports: FaultReports;
  readonly #inbox = new Inbox();
  readonly #renewals = new Renewals();
  readonly #stateless: Set<number>;
  #calls: Calls | undefined = undefined;
  readonly #now: () => number;
  readonly #share: CpuShare;
  readonly #faults: Faults;
  readonly #door: Door;
  readonly #usage: SandboxUsage;
  readonly #quota: Quota;
  #stats: SandboxStats | undefined = undefined;
  #disposed = false;
  #entriesSeen = 0;
  readonly counts = {
    entries: 0,
    records: 0,
    bytesIn: 0,
    faults: 0,
    thrown: 0,
    late: 0,
    refused: 0,
    rebuilt: 0,
  };

  /** `shared`: of the sandbox whose ward this is. */
  constructor(options: SandboxOptions, shared?: Shared) {
    this.package = options.package;
    this.hooks = hooksOf(options.module.code);
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#accounts = shared?.accounts ?? new Accounts(this.#limits.pauseMs);
    this.#stateless = shared?.stateless ?? new Set();
    this.#reports =
      shared?.reports ??
      new FaultReports(
        options.package,
        (fault) => options.onFault(fault),
        (id) => this.#uses.find(id),
      );
    this.#memory = options.memory;
    this.#answers = new Answers(
      options,
      this.#tokens,
      (kind, text) => this.#note(kind, text),
      (kind, head, bytes) => this.#calls?.onCall(kind, head, bytes),
    );
    this.#words = new Int32Array(
      options.memory.buffer,
      options.memory.byteOffset,
      options.memory.length >> 2,
    );
    this.#now = options.now ?? (() => performance.now());
    this.#uses = this.#makeUses();
    this.#share = shared?.share ?? new CpuShare(options.cpuShare ?? 1, this.#now());
    this.#faults = this.#makeFaults();
    this.#door = this.#makeDoor(shared !== undefined);
    this.#ward = this.#makeWard(options);
    this.#usage = new SandboxUsage(options.stats, options.package);
    this.#quota = new Quota(this.#limits.quotaMb);
  }

  /** Number of streams that the isolate holds state for, as far as core knows (those of the gate are not counted). */
  get live(): number {
    return this.#tokens.count + (this.#ward?.sandbox?.live ?? 0);
  }
  /** Whether the isolate holds state of that stream. */
  holds(token: number): boolean {
    return this.#tokens.isLive(token) || this.#ward?.sandbox?.holds(token) === true;
  }
  /** Whether this new stream of that account would be let in now. */
  takes(token: number, account: Account): boolean {
    const ward = this.#ward?.sandboxOf(account);
    if (ward !== undefined) return ward.takes(token, account);
    return this.#door.isolate !== undefined && this.#lets(token, account, this.#now());
  }
  /** The worst state of all accounts' breakers. */
  get breaker(): "closed" | "open" | "half-open" {
    const now = this.#now();
    const confined = this.#ward?.accounts.worst(now) ?? "closed";
    const own = this.#accounts.worst(now);
    return confined === "open" || own === "closed" ? confined : own;
  }
  /** Bytes of heap that the isolate uses; 0 while there is none. */
  get memoryUsed(): number {
    return this.#door.isolate?.memoryUsed ?? 0;
  }
  /** Undefined while it is being built. */
  get isolate(): SandboxIsolate | undefined {
    return this.#door.isolate;
  }
  /** A debugger is attached and a call runs on another thread: it may be stopped at a breakpoint. */
  get isHeld(): boolean {
    return this.#door.isAway && this.#door.isolate?.isDebugged === true;
  }
  get ready(): boolean {
    return this.#door.isolate !== undefined;
  }

  /** A use has met a per-route config; `path`: where it stands in the config of its chain. */
  name(account: Account, path: string): void {
    this.#reports.name(account, path);
  }

  // ---- the ward

  #makeWard(options: SandboxOptions): Ward | undefined {
    if (options.ward === undefined) return undefined;
    const {
      ward,
      onGate: _gate,
      onMade: _made,
      onReads: _reads,
      onPolicy: _policy,
      ...same
    } = options;
    const { onConfined, ...own } = ward;
    const [reports, share, stateless] = [this.#reports, this.#share, this.#stateless];
    return new Ward(
      (accounts) => {
        const sandbox = new Sandbox({ ...same, ...own }, { accounts, reports, share, stateless });
        void sandbox.setRuntime(this.#uses.runtime);
        return sandbox;
      },
      this.#limits.pauseMs,
      onConfined,
    );
  }

  /** Its isolate will be built anew with that use, `ms` from now. */
  adopt(use: SandboxUse, ms: number): void {
    void this.#uses.adopt(use, ms);
  }

  /** That account's code was stopped: it goes on in the ward. */
  #confine(account: Account): void {
    const use = this.#uses.find(account.use);
    if (use !== undefined) this.#ward?.confine(account, use, this.#accounts);
  }

  /** These streams, which wait, are confined from now on, and wait here. */
  moveIn(
    base: number,
    { use, part }: Account,
    lanes: readonly number[],
    waiting: readonly Waiting[],
    renewal: Renewal | undefined,
  ): void {
    this.#tokens.add(base, use, part);
    for (const token of lanes) {
      this.#tokens.wait(token);
      this.#tokens.leftPending(token, this.#now() + this.#limits.pauseMs);
    }
    this.#inbox.takeIn(waiting);
    if (renewal !== undefined) this.#renewals.takeIn(base, renewal);
  }

  // ---- building

  #makeUses(): Uses {
    const sandbox = this;
    const options: SandboxOptions = {
      ...this.#options,
      onReads: (use, mask) => {
        if ((mask & HOOK.STATELESS) !== 0) this.#stateless.add(use);
        this.#options.onReads?.(use, mask);
      },
    };
    return new Uses(options, this.#limits.timeoutMs, this.#accounts, {
      get isolate() {
        return sandbox.#door.isolate;
      },
      now: this.#now,
      install: (made, again) => this.#install(made, again),
      aside: (what, call, failed) => this.#door.aside(what, call, failed),
      rests: (use, error) => this.#faults.rests(use, error),
      fault: (what, error) => this.#faults.fault(what, error),
      askAgain: () => {
        this.#teardown(0);
        this.#options.onWork();
      },
    });
  }

  /**
   * Builds the isolate if there is none yet, and runs `setup` for these uses. If one refuses, none is taken. `isTried`: as of
   * `Uses.prepare`.
   */
  async prepare(uses: readonly SandboxUse[], isTried = false): Promise<readonly Refusal[]> {
    return this.#options.quarantined === true ? [] : this.#uses.prepare(uses, isTried);
  }

  /**
   * Takes uses that ran before in a sandbox that was lost, and settles when they have been tried once. If they cannot be set up, the
   * failure policy answers for them while that is tried again, as after any other fault.
   */
  async restore(uses: readonly SandboxUse[]): Promise<void> {
    if (this.#options.quarantined !== true) await this.#uses.restore(uses);
  }

  #install({ isolate, stats }: Made, again: boolean): void {
    if (again) this.counts.rebuilt++;
    this.#usage.begin(isolate);
    this.#calls = new Calls({
      onFetch: (text, bytes) => this.#options.onFetch?.(text, bytes),
      reply: (head, bytes) => this.reply(head, bytes),
    });
    this.#stats = stats;
    this.#inbox.attach(isolate);
    this.#quota.begin(isolate);
    this.#door.install(isolate);
    this.#options.onGate?.(isolate);
    this.#door.openGate(this.#now());
    // Setup may have said more than the block can hold, and records may have come in the meantime.
    this.#askToEnter();
  }

  /** What `onHandover` returns for each use, by the use's id. */
  async handover(): Promise<ReadonlyMap<number, unknown>> {
    const isolate = this.#door.isolate;
    // The source does not name `onHandover`.
    if (isolate === undefined || !/\bonHandover\b/.test(this.#options.module.code))
      return new Map();
    const left = await this.#door.aside<[number, unknown][]>(
      "hand-over",
      async () => JSON.parse(await isolate.call("handover")),
      () => [],
    );
    return new Map(left);
  }

  /** Sets the runtime values of this isolate and of those built after it. `text`: their JSON. */
  async setRuntime(text: string): Promise<void> {
    await Promise.all([this.#uses.setRuntime(text), this.#ward?.sandbox?.setRuntime(text)]);
  }

  /** As `reply`, to what was asked by `onFetch` of the ward. */
  replyInWard(head: string, bytes: Buffer): void {
    this.#ward?.sandbox?.reply(head, bytes);
  }

  /** Delivers an answer to a `fetch` or another request of the isolate, with the next crossing. `text`: JSON in ASCII. */
  reply(head: string, bytes: Buffer): void {
    const inbox = this.#inbox;
    if (this.#door.isolate === undefined) return;
    const block = replyRecord(head, bytes);
    if (!inbox.add(0, block, 0, block.length, 0, bytes.length)) {
      const lost = this.#calls?.lost(head);
      if (lost === undefined) return;
      inbox.mustAdd(replyRecord(lost, Buffer.alloc(0)));
    }
    this.#door.wake();
  }

  /** Ends a use: it has left the config and its last stream has ended. */
  async release(use: number): Promise<void> {
    this.#reports.forget(use);
    this.#accounts.forget(use);
    this.#stateless.delete(use);
    await Promise.all([this.#uses.release(use), this.#ward?.release(use)]);
  }

  // ---- records in

  /** Takes a record for that stream; it lies at [at, at + size) of the worker's memory. */
  park(token: number, at: number, size: number): void {
    const words = this.#words;
    if (at <= 0 || (at & 7) !== 0 || size < RECORD_SIZE_MIN || at + size > this.#memory.length) {
      this.counts.refused++;
      return;
    }
    const w = at >> 2;
    const flags = words[w]! >> 8;
    const isAnswered = (flags & RECORD_FLAG.ANSWER) !== 0;
    const rangeAt = words[w + RECORD.RANGE_AT]!;
    const rangeSize = words[w + RECORD.RANGE_SIZE]!;
    const rangeFits =
      rangeAt === 0 ? rangeSize <= size : rangeAt > 0 && rangeAt + rangeSize <= this.#memory.length;
    const [inbox, renewals] = [this.#inbox, this.#renewals];
    const isNew = (flags & RECORD_FLAG.CREATE) !== 0;
    const use = words[w + RECORD.USE]!;
    const part = partOf(words[w]!);
    const ward = this.#ward?.sandbox && this.#ward.takesOver(token, isNew, { use, part });
    if (ward !== undefined) {
      ward.park(token, at, size);
      return;
    }
    if (
      (flags & RECORD_FLAG.ADOPT) !== 0 &&
      this.#door.isolate !== undefined &&
      !this.#tokens.isLive(token)
    )
      this.#tokens.add(token, use, part);
    const isLive = this.#tokens.isLive(token);
    const mayPass =
      rangeSize >= 0 &&
      rangeFits &&
      this.#serves &&
      (isLive || this.#accounts.isClean || this.#lets(token, { use, part }, this.#now()));
    if (!mayPass || !(isLive || isNew)) {
      this.counts.refused++;
      if (isAnswered && mayPass) this.#options.onVerdict(token, 0, -STATUS.AGAIN);
      else if (isAnswered) this.#answerByPolicy(token);
      return;
    }
    if (!isLive) this.#tokens.add(token, use, part);
    const kind = words[w]! & 0xff;
    if (kind === KIND.CONNECTION && this.#stateless.has(use))
      renewals.add(token, this.#memory.subarray(at, at + size));
    const made = renewals.before(token, kind);
    const isTaken =
      (made === undefined || inbox.add(baseOf(token), made, 0, made.length, 0, 0)) &&
      inbox.add(token, this.#memory, at, size, rangeAt, rangeSize);
    if (!isTaken) {
      this.counts.refused++;
      if (isNew) {
        renewals.end(token);
        this.#tokens.remove(token);
      }
      if (isAnswered) this.#options.onVerdict(token, 0, -STATUS.OVERLOAD);
      return;
    }
    if (isAnswered) {
      this.#tokens.wait(token);
      // The deadline while there is no isolate; in an entry it begins again.
      if (this.#door.isolate === undefined)
        this.#tokens.leftPending(token, this.#now() + this.#limits.pauseMs);
      this.#door.ask(token);
    } else this.#door.beLazy();
  }

  /** There is an isolate, or one is being built: records wait for it. */
  get #serves(): boolean {
    return this.#door.isolate !== undefined || (!this.#uses.isEmpty && !this.#disposed);
  }

  /** With its breaker half-open one stream is let in; the failure policy answers the others until that one's outcome is known. */
  #lets(token: number, account: Account, now: number): boolean {
    if (this.#uses.isLeft(account.use)) return false;
    return this.#accounts.lets(account, now, token, (trial) => this.#tokens.isLive(trial));
  }

  #answerByPolicy(token: number): void {
    const status = this.#options.failurePolicy === "open" ? STATUS.SKIP : STATUS.FAULT;
    this.#options.onVerdict(token, 0, -status);
  }

  /** The stream has ended: an answer for it is dropped. */
  forget(token: number): void {
    const ward = this.#ward?.sandbox;
    if (ward?.holds(token) === true) {
      ward.forget(token);
      return;
    }
    if (this.#renewals.end(token)) {
      this.#tokens.remove(token);
      return;
    }
    this.#door.withdraw(token);
    // A stream that only ever used the gate is not in our table, but the isolate knows it.
    const isLive = this.#tokens.isLive(token);
    if (!isLive && this.#door.isolate === undefined) return;
    const account = isLive ? this.#tokens.accountOf(token) : NOBODY;
    if (isLive) this.#tokens.remove(token);
    this.#inbox.end(token, account);
    this.#door.beLazy();
  }

  // ---- entering

  #makeDoor(isWard: boolean): Door {
    const options = this.#options;
    return new Door({
      accounts: this.#accounts,
      answers: this.#answers,
      inbox: this.#inbox,
      share: this.#share,
      tokens: this.#tokens,
      counts: this.counts,
      limits: this.#limits,
      now: this.#now,
      isWard,
      hasGate: options.onGate !== undefined,
      mark: options.mark ?? { words: new Int32Array(3), box: 0 },
      mayWork: () => this.#askToEnter(),
      work: () => options.onWork(),
      merge: () => this.#stats?.merge(),
      fault: (what, error, begun, account) => this.#faults.fault(what, error, begun, account),
      slow: () => this.#faults.slow(),
      uncaught: (error) => this.#faults.uncaught(error),
    });
  }

  #askToEnter(): void {
    if (this.wantsEntry()) this.#options.onWork();
  }

  /** Asked after each crossing into the builtin isolate. */
  wantsEntry(): boolean {
    const wants = this.#door.wants();
    return this.#ward?.sandbox?.wantsEntry() === true || wants;
  }

  /** Enters with all records that wait, the ward's isolate if it has some, and this one. */
  enter(): void {
    const ward = this.#ward?.sandbox;
    if (ward?.wantsEntry() === true) {
      ward.enter();
      if (!this.#door.wants()) return;
    }
    this.#door.enter();
  }

  #note(kind: number, text: string): void {
    if (kind === ANSWER.THROWN) this.counts.thrown++;
    takeNote(this.#options, kind, text, (stat) => this.#stats?.define(stat));
  }

  // ---- what goes wrong

  /**
   * To be called once a second: checks deadlines of pauses and the memory quota, and flushes stats. `stoodStillMs`: for so long this
   * thread did not run, nor could any pause end.
   */
  expire(now: number, stoodStillMs = 0): void {
    this.#ward?.expire(now);
    if (stoodStillMs > 0) this.#tokens.postpone(stoodStillMs);
    for (const token of this.#tokens.takeLate(now)) {
      this.counts.late++;
      this.#options.onVerdict(token, 0, -STATUS.LATE);
      if (this.counts.late % 100 === 1) this.#reports.late(this.#limits.pauseMs, this.counts.late);
    }
    this.#stats?.merge();
    this.#accounts.forgive(now, (trial) => this.#tokens.isLive(trial));
    this.#door.openGate(now);
    const isolate = this.#door.isolate;
    void this.#uses.takeBack();
    if (isolate === undefined || this.#door.isAway || this.counts.entries === this.#entriesSeen)
      return;
    this.#entriesSeen = this.counts.entries;
    this.#tellUsage();
    const isOver = this.#quota.check(isolate);
    if (isOver !== undefined) this.#faults.fault("memory", isOver);
  }

  #tellUsage(): void {
    const { entries, records, bytesIn } = this.counts;
    this.#usage.tell({ entries, records, bytesIn, bytesOut: this.#answers.bytes });
  }

  /** Called when an entry by the gate has ended with a promise rejection that no code has handled. */
  onUncaught(message: string, stack: string): void {
    this.#faults.uncaughtByGate(message, stack);
  }

  #makeFaults(): Faults {
    const sandbox = this;
    return new Faults({
      accounts: this.#accounts,
      reports: this.#reports,
      counts: this.counts,
      cpuMs: this.#limits.cpuMs,
      now: this.#now,
      get isolate() {
        return sandbox.#door.isolate;
      },
      onLost: () => this.#options.onLost?.(),
      confine: (account) => this.#confine(account),
      lose: (begun) => {
        // Answers written before that are still good.
        this.#door.collect();
        this.#teardown(begun);
      },
      rebuildIn: (ms) => {
        this.#uses.rebuildIn(ms);
        this.#options.onWork();
      },
    });
  }

  /**
   * The failure policy answers streams whose hooks the isolate has called and not answered. New connections wait for the next one, and all
   * others may begin anew.
   */
  #teardown(begun: number): void {
    const now = this.#now();
    const { unbegun, kept } = this.#inbox.detach(
      begun,
      this.#renewals,
      this.#tokens,
      (token) =>
        !this.#disposed &&
        this.#tokens.isLive(token) &&
        this.#lets(token, this.#tokens.accountOf(token), now),
    );
    this.#stats?.end();
    if (this.#door.isolate !== undefined) this.#tellUsage();
    if (this.#calls?.end() === true) this.#options.onFetch?.("", NOTHING);
    this.#calls = undefined;
    this.#door.remove(this.#options.supply);
    this.#stats = undefined;
    this.#answers.clear();
    for (const token of this.#tokens.clear(kept)) {
      if (unbegun.has(baseOf(token)) && !this.#disposed)
        this.#options.onVerdict(token, 0, -STATUS.AGAIN);
      else this.#answerByPolicy(token);
    }
    this.#ward?.takeKept(kept, this.#tokens, this.#inbox, this.#renewals);
    for (const base of kept)
      for (const token of [base, base | 1])
        if (this.#tokens.isWaiting(token))
          this.#tokens.leftPending(token, now + this.#limits.pauseMs);
  }

  /** No stream and no use is left: tells the package of the last streams' ends, disposes of its uses, and ends the sandbox. */
  async finish(): Promise<void> {
    for (let entries = -1; ; ) {
      await this.#door.back();
      if (entries === this.counts.entries || !this.#hasRecords) break;
      ({ entries } = this.counts);
      this.#door.enter();
    }
    await this.#ward?.sandbox?.finish();
    await Promise.all(this.#uses.ids.map((id) => this.release(id)));
    this.dispose();
  }

  get #hasRecords(): boolean {
    const inbox = this.#inbox;
    return this.#door.isolate !== undefined && (inbox.count > 0 || inbox.backlog > 0);
  }

  /** Ends the sandbox. The failure policy answers the streams that still wait. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#ward?.sandbox?.dispose();
    this.#teardown(0);
    this.#uses.dispose();
    this.#door.end();
  }
}

const NOTHING = Buffer.alloc(0);
