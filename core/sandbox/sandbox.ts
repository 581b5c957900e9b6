// Hot path: core's side of a dropped-in package's records and answers (test/bench/sandbox.ts).

import type { SandboxUse } from "../inside/sandbox/context.ts";
import {
  ANSWER,
  BOX,
  baseOf,
  GATE,
  type HookMask,
  partOf,
  RECORD,
  RECORD_FLAG,
  STATUS,
} from "../inside/sandbox/layout.ts";
import { ownCpuMs, threadCpuMs } from "../process/cpu-limit.ts";
import { BEAT, type Refusal } from "../protocol.ts";
import { type Account, Accounts, NOBODY } from "./accounts.ts";
import { Alarms } from "./alarms.ts";
import { Answers } from "./answers.ts";
import { SandboxLost } from "./aside.ts";
import type { Made } from "./build.ts";
import { Calls, replyRecord } from "./calls.ts";
import { CpuBudget } from "./cpu-budget.ts";
import { CpuShare } from "./cpu-share.ts";
import { FaultReports } from "./fault-reports.ts";
import { hooksOf } from "./hooks.ts";
import { Inbox, RECORD_SIZE_MIN, type Waiting } from "./inbox.ts";
import type { SandboxIsolate } from "./isolate.ts";
import { takeNote } from "./notes.ts";
import { DEFAULT_LIMITS, type SandboxLimits, type SandboxOptions } from "./options.ts";
import type { SandboxStats } from "./stats.ts";
import { Tokens } from "./tokens.ts";
import { Quota, SandboxUsage } from "./usage.ts";
import { Uses } from "./uses.ts";
import { Ward } from "./ward.ts";

const WARM_UP_RECORDS = 1024; // a fresh isolate interprets and compiles what it will run fast later

/** What a ward shares with the sandbox that it belongs to. */
interface Shared {
  /** Those of the places that are confined there. */
  readonly accounts: Accounts;
  readonly reports: FaultReports;
  readonly share: CpuShare;
}

/**
 * One generation of a dropped-in package: an isolate with a small block of shared memory. Filters send it records (a head, a
 * chunk), and it writes answers (a verdict, edits) into the block. While all is well the builtin isolate enters it directly,
 * through a gate (inside/gate.ts). This class enters it in all other cases, once a round with all records that have gathered,
 * within a time box: when the gate is closed, for chunks too long for the gate, and for answers that come later because a hook
 * returned a promise. The isolate itself calls nobody. Its answers are not trusted: tokens and offsets are checked here, the
 * contents in the builtin isolate.
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
  readonly #isWard: boolean;
  readonly #ward: Ward | undefined;
  readonly #reports: FaultReports;
  readonly #inbox = new Inbox();
  #calls: Calls | undefined = undefined;
  readonly #now: () => number;
  readonly #alarms: Alarms;
  #cpu: CpuBudget;
  readonly #share: CpuShare;
  readonly #usage: SandboxUsage;
  readonly #quota: Quota;
  readonly #beats: Int32Array;
  readonly #mark: number;
  #isolate: SandboxIsolate | undefined = undefined;
  #stats: SandboxStats | undefined = undefined;
  #disposed = false;
  /** Counts isolates, so that a late callback of an earlier one is recognized. */
  #build = 0;
  /** Number of calls into the isolate that run on other threads now. */
  #away = 0;
  /** Tokens of the streams whose records are in the block and wait for an answer from this entry. */
  #asked: number[] = [];
  #due = false;
  #more = false;
  /** The latest entry was for due timers alone; the next one is for records, if there are any. */
  #isForTimers = false;
  #resting = false;
  #recordsOfBuild = 0;
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
    this.#isWard = shared !== undefined;
    this.#accounts = shared?.accounts ?? new Accounts(this.#limits.pauseMs);
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
    this.#alarms = new Alarms(
      this.#now,
      () => this.#wake(),
      () => this.#stats?.merge(),
    );
    this.#uses = this.#makeUses();
    this.#cpu = new CpuBudget(this.#limits.cpuMs);
    this.#share = shared?.share ?? new CpuShare(options.cpuShare ?? 1, this.#now());
    this.#ward = this.#makeWard(options);
    this.#usage = new SandboxUsage(options.stats, options.package);
    this.#quota = new Quota(this.#limits.quotaMb);
    this.#beats = options.mark?.words ?? new Int32Array(3);
    this.#mark = options.mark?.box ?? 0;
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
    return this.#isolate !== undefined && this.#lets(token, account, this.#now());
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
    return this.#isolate?.memoryUsed ?? 0;
  }
  /** Undefined while it is being built. */
  get isolate(): SandboxIsolate | undefined {
    return this.#isolate;
  }
  /** A debugger is attached and a call runs on another thread: it may be stopped at a breakpoint. */
  get isHeld(): boolean {
    return this.#away > 0 && this.#isolate?.isDebugged === true;
  }
  get ready(): boolean {
    return this.#isolate !== undefined;
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
    const [reports, share] = [this.#reports, this.#share];
    return new Ward(
      (accounts) => {
        const sandbox = new Sandbox({ ...same, ...own }, { accounts, reports, share });
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

  /** Of the streams `kept` for the next isolate, those of confined places wait for the ward's. */
  #moveOut(kept: ReadonlySet<number>): void {
    for (const base of kept) {
      const account = this.#tokens.accountOf(base);
      const ward = this.#ward?.sandboxOf(account);
      if (ward === undefined) continue;
      const lanes = [base, base | 1].filter((token) => this.#tokens.isWaiting(token));
      this.#tokens.remove(base);
      ward.#moveIn(base, account, lanes, this.#inbox.takeOut(base));
    }
  }

  #moveIn(
    base: number,
    { use, part }: Account,
    lanes: readonly number[],
    waiting: readonly Waiting[],
  ): void {
    this.#tokens.add(base, use, part);
    for (const token of lanes) {
      this.#tokens.wait(token);
      this.#tokens.leftPending(token, this.#now() + this.#limits.pauseMs);
    }
    this.#inbox.takeIn(waiting);
  }

  // ---- building

  #makeUses(): Uses {
    const sandbox = this;
    return new Uses(this.#options, this.#limits.timeoutMs, this.#accounts, {
      get isolate() {
        return sandbox.#isolate;
      },
      now: this.#now,
      install: (made, again) => this.#install(made, again),
      aside: (what, call, failed) => this.#aside(what, call, failed),
      rests: (use, error) => this.#rests(use, error),
      fault: (what, error) => this.#fault(what, error),
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
    this.#build++;
    if (again) this.counts.rebuilt++;
    this.#isolate = isolate;
    this.#usage.begin(isolate);
    this.#calls = new Calls({
      onFetch: (text, bytes) => this.#options.onFetch?.(text, bytes),
      reply: (head, bytes) => this.reply(head, bytes),
    });
    this.#stats = stats;
    this.#inbox.attach(isolate);
    this.#cpu = new CpuBudget(this.#limits.cpuMs);
    this.#recordsOfBuild = 0;
    this.#quota.begin(isolate);
    this.#collect();
    isolate.gate[GATE.LIMIT_MS] = this.#limits.cpuMs;
    this.#options.onGate?.(isolate);
    this.#openGate(this.#now());
    // Setup may have said more than the block can hold, and records may have come in the meantime.
    if (this.wantsEntry()) this.#options.onWork();
  }

  // ---- the gate

  /** Opens or closes the gate: open if core has nothing under way in the isolate and the package has not misbehaved lately. */
  #openGate(now: number): void {
    const isolate = this.#isolate;
    const { onGate } = this.#options;
    if (isolate === undefined || onGate === undefined || isolate.gate[GATE.OPEN] === -1) return;
    const isFree =
      this.#away === 0 &&
      this.#asked.length === 0 &&
      this.#inbox.backlog === 0 &&
      !this.#answers.waits &&
      !this.#more;
    const isTrusted =
      !isolate.isDebugged &&
      !this.#share.limited &&
      !this.#cpu.isPrecise(now) &&
      !this.#accounts.anySuspect(now);
    isolate.gate[GATE.OPEN] = isFree && isTrusted ? 1 : 0;
    if (isFree && isTrusted) isolate.words[BOX.ALONE] = 0;
  }

  #closeGate(): void {
    const gate = this.#isolate?.gate;
    if (gate !== undefined && gate[GATE.OPEN] === 1) gate[GATE.OPEN] = 0;
  }

  /** After a crossing: takes over what entries through the gate have left (late answers, faults, stats). */
  #afterGate(isolate: SandboxIsolate): void {
    const { gate } = isolate;
    const now = this.#now();
    this.counts.entries += gate[GATE.ENTRIES]!;
    this.counts.records += gate[GATE.RECORDS]!;
    this.counts.bytesIn += gate[GATE.BYTES]!;
    this.#recordsOfBuild += gate[GATE.RECORDS]!;
    this.#answers.bytes += gate[GATE.BYTES_OUT]!;
    gate[GATE.ENTRIES] = gate[GATE.RECORDS] = gate[GATE.BYTES] = gate[GATE.BYTES_OUT] = 0;
    const pending = gate[GATE.PENDING_COUNT]!;
    for (let k = 0; k < pending; k++) {
      const token = gate[GATE.PENDING + k]!;
      if (token === 0) continue;
      // Whose it is core learns with the stream's next record.
      if (!this.#tokens.isLive(token)) this.#tokens.add(token, 0, 0);
      this.#tokens.wait(token);
      this.#tokens.leftPending(token, now + this.#limits.pauseMs);
    }
    gate[GATE.PENDING_COUNT] = 0;
    this.#alarms.forgetLazy();
    if (gate[GATE.FAULT] === 1) {
      gate[GATE.FAULT] = 0;
      // The gate has told the streams of that entry itself.
      this.#fault("entry", isolate.stopped);
      return;
    }
    if (gate[GATE.SLOW] === 1) {
      gate[GATE.SLOW] = 0;
      this.#cpu.suspect(now);
      this.#closeGate();
    }
    this.#collect();
    this.#alarms.mergeSoon();
    // Records that the gate has not entered with are entered by core.
    if (pending > 0 && gate[GATE.COUNT] !== 0) this.#due = true;
  }

  /** See UsesPorts. */
  async #aside<T>(
    what: string,
    call: () => Promise<T>,
    failed: (error: unknown) => T,
  ): Promise<T | undefined> {
    const build = this.#build;
    this.#leave();
    if (this.#isolate !== undefined) this.#isolate.times[BOX.NOW / 2] = this.#now();
    try {
      const answer = await call();
      if (build !== this.#build) return undefined;
      this.#comeBack();
      return answer;
    } catch (error) {
      if (build !== this.#build) return undefined;
      this.#fault(what, error);
      return failed(error);
    }
  }

  /** JSON of the package's definition: kind, name, schemas (`describe` of inside/sandbox/main.ts). */
  async describe(): Promise<string> {
    if (this.#isolate === undefined) throw new Error("prepare first");
    return this.#isolate.call("describe");
  }

  /** What `onHandover` returns for each use, by the use's id. */
  async handover(): Promise<ReadonlyMap<number, unknown>> {
    const isolate = this.#isolate;
    // The source does not name `onHandover`.
    if (isolate === undefined || !/\bonHandover\b/.test(this.#options.module.code))
      return new Map();
    const left = await this.#aside<[number, unknown][]>(
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
    if (this.#isolate === undefined) return;
    const block = replyRecord(head, bytes);
    if (!inbox.add(0, block, 0, block.length, 0, bytes.length)) {
      const lost = this.#calls?.lost(head);
      if (lost === undefined) return;
      inbox.mustAdd(replyRecord(lost, Buffer.alloc(0)));
    }
    this.#wake();
  }

  /** Ends a use: it has left the config and its last stream has ended. */
  async release(use: number): Promise<void> {
    this.#reports.forget(use);
    this.#accounts.forget(use);
    await Promise.all([this.#uses.release(use), this.#ward?.release(use)]);
  }

  #leave(): void {
    this.#away++;
    this.#closeGate();
    this.#inbox.locked = true;
  }

  /** A call on another thread has ended. True: it was the last one. */
  #return(): boolean {
    if (--this.#away > 0) return false;
    this.#inbox.locked = false;
    return true;
  }

  #comeBack(): void {
    if (!this.#return()) return;
    this.#collect();
    this.#openGate(this.#now());
    if (this.wantsEntry()) this.#options.onWork();
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
    const inbox = this.#inbox;
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
      this.#isolate !== undefined &&
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
    if (!inbox.add(token, this.#memory, at, size, rangeAt, rangeSize)) {
      this.counts.refused++;
      if (isNew) this.#tokens.remove(token);
      if (isAnswered) this.#options.onVerdict(token, 0, -STATUS.OVERLOAD);
      return;
    }
    if (isAnswered) {
      this.#tokens.wait(token);
      // The deadline while there is no isolate; in an entry it begins again.
      if (this.#isolate === undefined)
        this.#tokens.leftPending(token, this.#now() + this.#limits.pauseMs);
      this.#asked.push(token);
      this.#closeGate();
    } else this.#alarms.beLazy();
  }

  /** There is an isolate, or one is being built: records wait for it. */
  get #serves(): boolean {
    return this.#isolate !== undefined || (!this.#uses.isEmpty && !this.#disposed);
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
    this.#withdraw(token);
    // A stream that only ever used the gate is not in our table, but the isolate knows it.
    const isLive = this.#tokens.isLive(token);
    if (!isLive && this.#isolate === undefined) return;
    const account = isLive ? this.#tokens.accountOf(token) : NOBODY;
    if (isLive) this.#tokens.remove(token);
    this.#inbox.end(token, account);
    this.#alarms.beLazy();
  }

  /** The gate has left this stream pending in the crossing that has also ended it. */
  #withdraw(token: number): void {
    const gate = this.#isolate?.gate;
    const pending = gate?.[GATE.PENDING_COUNT] ?? 0;
    for (let k = 0; k < pending; k++)
      if (baseOf(gate![GATE.PENDING + k]!) === token) gate![GATE.PENDING + k] = 0;
  }

  #wake(): void {
    this.#due = true;
    if (this.wantsEntry()) this.#options.onWork();
  }

  // ---- entering

  /** Asked after each crossing into the builtin isolate. */
  wantsEntry(): boolean {
    const wants = this.#wants();
    return this.#ward?.sandbox?.wantsEntry() === true || wants;
  }

  /** Enters with all records that wait, the ward's isolate if it has some, and this one. */
  enter(): void {
    const ward = this.#ward?.sandbox;
    if (ward?.wantsEntry() === true) {
      ward.enter();
      if (!this.#wants()) return;
    }
    this.#enterOwn();
  }

  #wants(): boolean {
    const isolate = this.#isolate;
    if (isolate === undefined) return false;
    if (isolate.gate[GATE.ENTRIES] !== 0 || isolate.gate[GATE.PENDING_COUNT] !== 0)
      this.#afterGate(isolate);
    // Ends of streams alone are no reason to enter.
    if (!this.#alarms.isLazy && isolate.gate[GATE.COUNT] !== 0) this.#alarms.beLazy();
    if (this.#isolate === undefined || this.#away > 0 || this.#resting) return false;
    return (
      this.#asked.length > 0 ||
      this.#due ||
      this.#more ||
      this.#alarms.isCrowded ||
      this.#inbox.backlog > 0 ||
      this.#answers.waits
    );
  }

  /** Enters the isolate once. */
  #enterOwn(): void {
    const isolate = this.#isolate;
    const inbox = this.#inbox;
    if (isolate === undefined || this.#away > 0) return;
    if (this.#answers.waits && !this.#answers.deliverKept()) return;
    const now = this.#now();
    if (this.#share.limited && this.#waitsForShare(now)) return;
    inbox.fill();
    isolate.times[BOX.NOW / 2] = now;
    this.#due = this.#more = false;
    this.#alarms.forgetLazy();
    const isCareful = this.#isWard || (!isolate.isDebugged && this.#accounts.anySuspect(now));
    // Timers have an entry of their own then, so that nobody's promises go on beside those of another account.
    this.#isForTimers = isCareful && !this.#isForTimers && isolate.times[BOX.WAKE_AT / 2]! <= now;
    isolate.words[BOX.ALONE] = isCareful ? 1 : 0;
    const waiting = this.#isForTimers ? 0 : inbox.count;
    const account = isCareful && waiting > 0 ? inbox.accountAt(0) : NOBODY;
    const isSuspect = this.#isWard || (isCareful && this.#accounts.isSuspect(account, now));
    const records =
      isCareful && waiting > 0
        ? inbox.alike(
            account,
            isSuspect ? undefined : (next) => this.#accounts.isSuspect(next, now),
          )
        : waiting;
    this.counts.entries++;
    this.counts.records += records;
    // What an earlier entry has left in the block counts with the last record of it.
    if (records === inbox.count) this.counts.bytesIn += inbox.used;
    if (isolate.isDebugged || isSuspect) {
      void this.#enterAside(isolate, records, account);
      return;
    }
    let uncaught: unknown;
    const cpuBefore = this.#share.limited ? threadCpuMs() : 0;
    this.#cpu.begin(now);
    this.#beats[BEAT.INSIDE] = this.#mark;
    try {
      uncaught = isolate.run(records);
    } catch (error) {
      this.#stopped(isolate, records, error);
      return;
    } finally {
      this.#beats[BEAT.INSIDE] = 0;
      // Each entry is bounded by its time box, so a thread with a thousand entries in one turn must not look hung.
      this.#beats[BEAT.TURNS]!++;
    }
    if (this.#share.limited) this.#share.spent(threadCpuMs() - cpuBefore);
    if (isCareful) this.#accounts.succeeded(account, inbox.endsIn(records), now);
    this.#entered(records, now);
    if (uncaught !== undefined) this.#tellUncaught(uncaught);
    this.#recordsOfBuild += Math.max(1, records);
    if (this.#cpu.end(records, this.#now()) && this.#recordsOfBuild > WARM_UP_RECORDS) {
      this.#onSlow();
    }
  }

  /** The package has used up its CPU share: its records wait. */
  #waitsForShare(now: number): boolean {
    const ms = this.#share.waitMs(now);
    if (ms === 0) return false;
    this.#resting = true;
    setTimeout(() => {
      this.#resting = false;
      this.#wake();
    }, ms).unref();
    return true;
  }

  /** Enters on another thread: code that has hung lately delays only its own sandbox this way. */
  async #enterAside(isolate: SandboxIsolate, count: number, account: Account): Promise<void> {
    const build = this.#build;
    this.#leave();
    const began = this.#now();
    const cpuBefore = ownCpuMs();
    let uncaught: unknown;
    this.#beats[BEAT.ASIDE] = this.#mark;
    try {
      uncaught = await isolate.runAside(count);
    } catch (error) {
      if (build === this.#build && !this.#disposed) this.#stopped(isolate, count, error, account);
      return;
    } finally {
      if (this.#beats[BEAT.ASIDE] === this.#mark) this.#beats[BEAT.ASIDE] = 0;
    }
    if (build !== this.#build || this.#disposed) return;
    const now = this.#now();
    // isolated-vm does not tell its threads' own CPU time: that of the whole process is the most that it can have been.
    this.#share.spent(Math.min(now - began, ownCpuMs() - cpuBefore));
    this.#accounts.succeeded(account, this.#inbox.endsIn(count), now);
    this.#return();
    this.#entered(count, now);
    if (uncaught !== undefined) this.#tellUncaught(uncaught);
    this.#options.onWork();
  }

  #entered(records: number, now: number): void {
    this.#inbox.taken(records);
    this.#collect();
    this.#alarms.mergeSoon();
    const asked = this.#asked;
    for (let k = 0; k < asked.length; k++) {
      const token = asked[k]!;
      if (this.#tokens.isWaiting(token))
        this.#tokens.leftPending(token, now + this.#limits.pauseMs);
    }
    // Records that came while it ran on the other thread are in the backlog, those that were left out still in the block.
    asked.length = 0;
    if (this.#inbox.count > 0) this.#due = true;
    this.#openGate(now);
  }

  // ---- answers out

  #collect(): void {
    const isolate = this.#isolate;
    if (isolate === undefined) return;
    this.#more = isolate.words[BOX.MORE] === 1;
    this.#answers.collect(isolate.words, isolate.bytes);
    this.#alarms.wakeAt(isolate.times[BOX.WAKE_AT / 2]!);
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
    this.#openGate(now);
    const isolate = this.#isolate;
    void this.#uses.takeBack();
    if (isolate === undefined || this.#away > 0 || this.counts.entries === this.#entriesSeen)
      return;
    this.#entriesSeen = this.counts.entries;
    this.#tellUsage();
    const isOver = this.#quota.check(isolate);
    if (isOver !== undefined) this.#fault("memory", isOver);
  }

  #tellUsage(): void {
    const { entries, records, bytesIn } = this.counts;
    this.#usage.tell({ entries, records, bytesIn, bytesOut: this.#answers.bytes });
  }

  /** Called when an entry by the gate has ended with a promise rejection that no code has handled. */
  onUncaught(message: string, stack: string): void {
    const isolate = this.#isolate;
    if (isolate === undefined) return;
    // The isolate was stopped while its promise callbacks ran. The fault is handled after the crossing.
    if (isolate.disposed) isolate.gate[GATE.FAULT] = 1;
    else this.#tellUncaught(Object.assign(new Error(message), { stack }));
  }

  #tellUncaught(error: unknown): void {
    this.counts.thrown++;
    this.#reports.uncaught(error, this.#now());
  }

  /** Notes a fault that failed no stream. For 10 s the sandbox runs on another thread, where it delays only its own streams. */
  #onSlow(): void {
    const error = new Error(
      `entries of more than ${this.#limits.cpuMs} ms of CPU, again and again`,
    );
    const { all } = this.#accounts.fault(NOBODY, this.#now());
    if (all > 0) {
      this.#lose("cpu", error, { own: all, all });
      return;
    }
    this.counts.faults++;
    this.#reports.charged("cpu", error, NOBODY, 0, "; it runs on a thread of its own for 10 s");
  }

  /** The isolate was stopped in an entry with the first `count` records. `account`: the only one that these are charged to. */
  #stopped({ words }: SandboxIsolate, count: number, error: unknown, account = NOBODY): void {
    const begun = words[BOX.RAN] === 1 ? count : words[BOX.BEGUN]!;
    this.#fault("entry", error, begun, account);
  }

  /** `begun`: number of records in the block that the isolate has begun with. */
  #fault(what: string, error: unknown, begun = 0, account = NOBODY): void {
    // A setup that is refused is made no further use of.
    if (error instanceof SandboxLost && what !== "setup") this.#options.onLost?.();
    const words = this.#isolate?.words;
    const use = words?.[BOX.USE] ?? 0;
    const charged = use > 0 ? { use, part: words![BOX.PART]! } : account;
    const backOff = this.#accounts.fault(charged, this.#now());
    if (what === "entry" && charged.use > 0) this.#confine(charged);
    this.#lose(what, error, backOff, begun, charged);
  }

  #rests(use: number, error: unknown): void {
    if (error instanceof SandboxLost) this.#options.onLost?.();
    this.counts.faults++;
    const restMs = this.#accounts.rest(use, this.#now());
    this.#reports.charged("rebuild", error, { use, part: 0 }, restMs);
  }

  /** The isolate is lost, and a new one is built. */
  #lose(
    what: string,
    error: unknown,
    backOff: { readonly own: number; readonly all: number },
    begun = 0,
    account = NOBODY,
  ): void {
    // Answers written before that are still good.
    this.#collect();
    this.#teardown(begun);
    this.counts.faults++;
    this.#reports.charged(what, error, account, Math.max(backOff.own, backOff.all));
    this.#uses.rebuildIn(backOff.all);
    this.#options.onWork();
  }

  /**
   * The failure policy answers streams whose hooks the isolate has called and not answered. New connections wait for the next one, and all
   * others may begin anew.
   */
  #teardown(begun: number): void {
    this.#build++;
    const now = this.#now();
    const { unbegun, kept } = this.#inbox.detach(
      begun,
      (token) =>
        !this.#disposed &&
        this.#tokens.isLive(token) &&
        this.#lets(token, this.#tokens.accountOf(token), now),
    );
    this.#stats?.end();
    if (this.#isolate !== undefined) this.#tellUsage();
    if (this.#isolate !== undefined) this.#isolate.gate[GATE.OPEN] = -1;
    if (this.#calls?.end() === true) this.#options.onFetch?.("", NOTHING);
    this.#calls = undefined;
    this.#isolate?.dispose();
    if (this.#isolate !== undefined && this.#away === 0)
      this.#options.supply.giveMemory(this.#isolate.memory);
    this.#away = 0;
    this.#isolate = this.#stats = undefined;
    this.#alarms.reset();
    this.#asked.length = 0;
    this.#answers.clear();
    this.#due = this.#more = false;
    for (const token of this.#tokens.clear(kept)) {
      if (unbegun.has(baseOf(token)) && !this.#disposed)
        this.#options.onVerdict(token, 0, -STATUS.AGAIN);
      else this.#answerByPolicy(token);
    }
    this.#moveOut(kept);
    for (const base of kept)
      for (const token of [base, base | 1])
        if (this.#tokens.isWaiting(token))
          this.#tokens.leftPending(token, now + this.#limits.pauseMs);
  }

  /** No stream and no use is left: tells the package of the last streams' ends, disposes of its uses, and ends the sandbox. */
  async finish(): Promise<void> {
    const { counts } = this;
    for (let entries = -1; entries !== counts.entries && this.#hasRecords; ) {
      entries = counts.entries;
      this.#enterOwn();
    }
    await this.#ward?.sandbox?.finish();
    await Promise.all(this.#uses.ids.map((id) => this.release(id)));
    this.dispose();
  }

  get #hasRecords(): boolean {
    const inbox = this.#inbox;
    return this.#isolate !== undefined && (inbox.count > 0 || inbox.backlog > 0);
  }

  /** Ends the sandbox. The failure policy answers the streams that still wait. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#ward?.sandbox?.dispose();
    this.#teardown(0);
    this.#uses.dispose();
    this.#alarms.end();
  }
}

const NOTHING = Buffer.alloc(0);
