// Hot path: core enters sandboxes here (test/bench/sandbox.ts).

import { BOX, baseOf, GATE } from "../inside/sandbox/layout.ts";
import { ownCpuMs, threadCpuMs } from "../process/cpu-limit.ts";
import { BEAT } from "../protocol.ts";
import { type Account, type Accounts, NOBODY } from "./accounts.ts";
import { Alarms } from "./alarms.ts";
import type { Answers } from "./answers.ts";
import { CpuBudget } from "./cpu-budget.ts";
import type { CpuShare } from "./cpu-share.ts";
import type { Inbox } from "./inbox.ts";
import type { SandboxIsolate } from "./isolate.ts";
import type { SandboxLimits } from "./options.ts";
import type { Supply } from "./supply.ts";
import type { Tokens } from "./tokens.ts";

const WARM_UP_RECORDS = 1024; // a fresh isolate interprets and compiles what it will run fast later

/** The sandbox, as its door sees it. */
export interface DoorOwner {
  readonly accounts: Accounts;
  readonly answers: Answers;
  readonly inbox: Inbox;
  readonly share: CpuShare;
  readonly tokens: Tokens;
  readonly counts: { entries: number; records: number; bytesIn: number };
  readonly limits: SandboxLimits;
  readonly now: () => number;
  /** The code has been stopped before: it is entered on another thread, with the records of one account at a time. */
  readonly isWard: boolean;
  /** The builtin isolate may enter too, by the gate. */
  readonly hasGate: boolean;
  /** Where the supervisor sees that this thread is inside, and the number to write there. */
  readonly mark: { readonly words: Int32Array; readonly box: number };
  /** There may be something to enter for, outside of a flush. */
  mayWork(): void;
  /** There is something to enter for, as `mayWork`. */
  work(): void;
  /** Counts of the isolate are to be taken. */
  merge(): void;
  /** The isolate was stopped. `begun`: number of records in the block that it has begun with. */
  fault(what: string, error: unknown, begun?: number, account?: Account): void;
  /** Its entries take too much CPU. */
  slow(): void;
  /** An unhandled promise rejection. */
  uncaught(error: unknown): void;
}

/**
 * The way into the isolate of one sandbox, and the one place that knows who is inside: the builtin isolate (by the gate, which is
 * open while nothing else is), core on this thread, or core on other threads.
 *
 *   gate open ──a record or call for core──▶ closed ──nothing left, and no misbehaviour lately──▶ gate open
 */
export class Door {
  readonly #owner: DoorOwner;
  readonly #accounts: Accounts;
  readonly #answers: Answers;
  readonly #inbox: Inbox;
  readonly #share: CpuShare;
  readonly #tokens: Tokens;
  readonly #alarms: Alarms;
  readonly #now: () => number;
  readonly #beats: Int32Array;
  readonly #mark: number;
  #cpu: CpuBudget;
  #isolate: SandboxIsolate | undefined = undefined;
  /** Counts isolates, so that a late callback of an earlier one is recognized. */
  #build = 0;
  /** Number of calls into the isolate that run on other threads now. */
  #away = 0;
  /** They wait for those to end. */
  #untilBack: (() => void)[] = [];
  /** Tokens of the streams whose records are in the block and wait for an answer from this entry. */
  #asked: number[] = [];
  #due = false;
  #more = false;
  /** The latest entry was for due timers alone; the next one is for records, if there are any. */
  #isForTimers = false;
  #resting = false;
  #recordsOfBuild = 0;

  constructor(owner: DoorOwner) {
    this.#owner = owner;
    this.#accounts = owner.accounts;
    this.#answers = owner.answers;
    this.#inbox = owner.inbox;
    this.#share = owner.share;
    this.#tokens = owner.tokens;
    this.#now = owner.now;
    this.#alarms = new Alarms(
      owner.now,
      () => this.wake(),
      () => owner.merge(),
    );
    this.#beats = owner.mark.words;
    this.#mark = owner.mark.box;
    this.#cpu = new CpuBudget(owner.limits.cpuMs);
  }

  /** Undefined while it is being built. */
  get isolate(): SandboxIsolate | undefined {
    return this.#isolate;
  }
  /** Calls run on other threads. */
  get isAway(): boolean {
    return this.#away > 0;
  }
  /** No call runs on another thread any more. */
  async back(): Promise<void> {
    while (this.#away > 0) await new Promise<void>((resolve) => this.#untilBack.push(resolve));
  }

  // ---- isolates come and go

  /** It leads into this isolate from now on. */
  install(isolate: SandboxIsolate): void {
    this.#build++;
    this.#isolate = isolate;
    this.#cpu = new CpuBudget(this.#owner.limits.cpuMs);
    this.#recordsOfBuild = 0;
    isolate.gate[GATE.LIMIT_MS] = this.#owner.limits.cpuMs;
    this.collect();
  }

  /** Ends the isolate; its memory goes to the supply, unless another thread may still write there. */
  remove(supply: Supply): void {
    this.#build++;
    const isolate = this.#isolate;
    if (isolate !== undefined) {
      isolate.gate[GATE.OPEN] = -1;
      isolate.dispose();
      if (this.#away === 0) supply.giveMemory(isolate.memory);
    }
    this.#isolate = undefined;
    this.#away = 0;
    this.#tellBack();
    this.#alarms.reset();
    this.#asked.length = 0;
    this.#due = this.#more = false;
  }

  /** Nothing is entered any more. */
  end(): void {
    this.#alarms.end();
  }

  // ---- the gate

  /** Opens or closes the gate: open if core has nothing under way in the isolate and the package has not misbehaved lately. */
  openGate(now: number): void {
    const isolate = this.#isolate;
    if (isolate === undefined || !this.#owner.hasGate || isolate.gate[GATE.OPEN] === -1) return;
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
    const { counts, limits } = this.#owner;
    const now = this.#now();
    counts.entries += gate[GATE.ENTRIES]!;
    counts.records += gate[GATE.RECORDS]!;
    counts.bytesIn += gate[GATE.BYTES]!;
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
      this.#tokens.leftPending(token, now + limits.pauseMs);
    }
    gate[GATE.PENDING_COUNT] = 0;
    this.#alarms.forgetLazy();
    if (gate[GATE.FAULT] === 1) {
      gate[GATE.FAULT] = 0;
      // The gate has told the streams of that entry itself.
      this.#owner.fault("entry", isolate.stopped);
      return;
    }
    if (gate[GATE.SLOW] === 1) {
      gate[GATE.SLOW] = 0;
      if (this.#cpu.suspect(now)) this.#closeGate();
    }
    this.#cpu.rest(now);
    this.collect();
    this.#alarms.mergeSoon();
    // Records that the gate has not entered with are entered by core.
    if (pending > 0 && gate[GATE.COUNT] !== 0) this.#due = true;
  }

  /** The stream has ended, perhaps in the crossing in which the gate has left it pending. */
  withdraw(token: number): void {
    const gate = this.#isolate?.gate;
    const pending = gate?.[GATE.PENDING_COUNT] ?? 0;
    for (let k = 0; k < pending; k++)
      if (baseOf(gate![GATE.PENDING + k]!) === token) gate![GATE.PENDING + k] = 0;
  }

  // ---- what there is to enter for

  /** A record of this stream has come that waits for an answer. */
  ask(token: number): void {
    this.#asked.push(token);
    this.#closeGate();
  }

  /** Something has come that nobody waits for. */
  beLazy(): void {
    this.#alarms.beLazy();
  }

  wake(): void {
    this.#due = true;
    this.#owner.mayWork();
  }

  /** Asked after each crossing into the builtin isolate. */
  wants(): boolean {
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

  // ---- entering

  /** Enters the isolate once. */
  enter(): void {
    const isolate = this.#isolate;
    const inbox = this.#inbox;
    const { counts, isWard } = this.#owner;
    if (isolate === undefined || this.#away > 0) return;
    if (this.#answers.waits && !this.#answers.deliverKept()) return;
    const now = this.#now();
    if (this.#share.limited && this.#waitsForShare(now)) return;
    inbox.fill();
    isolate.times[BOX.NOW / 2] = now;
    this.#due = this.#more = false;
    this.#alarms.forgetLazy();
    const isCareful = isWard || (!isolate.isDebugged && this.#accounts.anySuspect(now));
    // Timers have an entry of their own then, so that nobody's promises go on beside those of another account.
    this.#isForTimers = isCareful && !this.#isForTimers && isolate.times[BOX.WAKE_AT / 2]! <= now;
    isolate.words[BOX.ALONE] = isCareful ? 1 : 0;
    const waiting = this.#isForTimers ? 0 : inbox.count;
    const account = isCareful && waiting > 0 ? inbox.accountAt(0) : NOBODY;
    const isSuspect = isWard || (isCareful && this.#accounts.isSuspect(account, now));
    const records =
      isCareful && waiting > 0
        ? inbox.alike(
            account,
            isSuspect ? undefined : (next) => this.#accounts.isSuspect(next, now),
          )
        : waiting;
    counts.entries++;
    counts.records += records;
    // What an earlier entry has left in the block counts with the last record of it.
    if (records === inbox.count) counts.bytesIn += inbox.used;
    if (isolate.isDebugged || isSuspect) {
      void this.#enterAside(isolate, records, account);
      return;
    }
    let uncaught: unknown;
    this.#cpu.begin(now);
    try {
      uncaught = this.#run(isolate, records);
    } catch (error) {
      this.#stopped(isolate, records, error);
      return;
    }
    if (isCareful) this.#accounts.succeeded(account, inbox.endsIn(records), now);
    this.#entered(records, now);
    if (uncaught !== undefined) this.#owner.uncaught(uncaught);
    this.#recordsOfBuild += Math.max(1, records);
    if (this.#cpu.end(records, this.#now()) && this.#recordsOfBuild > WARM_UP_RECORDS)
      this.#owner.slow();
  }

  /** Runs it on this thread. What that has taken is charged to the package's share, also where it was stopped. */
  #run(isolate: SandboxIsolate, records: number): unknown {
    const cpuBefore = this.#share.limited ? threadCpuMs() : 0;
    this.#beats[BEAT.INSIDE] = this.#mark;
    try {
      return isolate.run(records);
    } finally {
      this.#beats[BEAT.INSIDE] = 0;
      // Each entry is bounded by its time box, so a thread with a thousand entries in one turn must not look hung.
      this.#beats[BEAT.TURNS]!++;
      if (this.#share.limited) this.#share.spent(threadCpuMs() - cpuBefore);
    }
  }

  /** The same on another thread. */
  async #runAside(isolate: SandboxIsolate, records: number): Promise<unknown> {
    const began = this.#now();
    const cpuBefore = ownCpuMs();
    this.#beats[BEAT.ASIDE] = this.#mark;
    try {
      return await isolate.runAside(records);
    } finally {
      if (this.#beats[BEAT.ASIDE] === this.#mark) this.#beats[BEAT.ASIDE] = 0;
      // isolated-vm does not tell its threads' own CPU time: that of the whole process is the most that it can have been.
      this.#share.spent(Math.min(this.#now() - began, ownCpuMs() - cpuBefore));
    }
  }

  /** The package has used up its CPU share: its records wait. */
  #waitsForShare(now: number): boolean {
    const ms = this.#share.waitMs(now);
    if (ms === 0) return false;
    this.#resting = true;
    setTimeout(() => {
      this.#resting = false;
      this.wake();
    }, ms).unref();
    return true;
  }

  /** Enters on another thread: code that has hung lately delays only its own sandbox this way. */
  async #enterAside(isolate: SandboxIsolate, count: number, account: Account): Promise<void> {
    const build = this.#build;
    this.#leave();
    let uncaught: unknown;
    try {
      uncaught = await this.#runAside(isolate, count);
    } catch (error) {
      if (build === this.#build) this.#stopped(isolate, count, error, account);
      return;
    }
    if (build !== this.#build) return;
    const now = this.#now();
    this.#accounts.succeeded(account, this.#inbox.endsIn(count), now);
    this.#return();
    this.#entered(count, now);
    if (uncaught !== undefined) this.#owner.uncaught(uncaught);
    this.#owner.work();
  }

  #entered(records: number, now: number): void {
    this.#inbox.taken(records);
    this.collect();
    this.#alarms.mergeSoon();
    const asked = this.#asked;
    const { pauseMs } = this.#owner.limits;
    for (let k = 0; k < asked.length; k++) {
      const token = asked[k]!;
      if (this.#tokens.isWaiting(token)) this.#tokens.leftPending(token, now + pauseMs);
    }
    // Records that came while it ran on the other thread are in the backlog, those that were left out still in the block.
    asked.length = 0;
    if (this.#inbox.count > 0) this.#due = true;
    this.openGate(now);
  }

  /** The isolate was stopped in an entry with the first `count` records. `account`: the only one that these are charged to. */
  #stopped({ words }: SandboxIsolate, count: number, error: unknown, account = NOBODY): void {
    const begun = words[BOX.RAN] === 1 ? count : words[BOX.BEGUN]!;
    this.#owner.fault("entry", error, begun, account);
  }

  /** Takes the answers that lie in the block. */
  collect(): void {
    const isolate = this.#isolate;
    if (isolate === undefined) return;
    this.#more = isolate.words[BOX.MORE] === 1;
    this.#answers.collect(isolate.words, isolate.bytes);
    this.#alarms.wakeAt(isolate.times[BOX.WAKE_AT / 2]!);
  }

  // ---- calls on other threads

  /** See UsesPorts. */
  async aside<T>(
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
      this.#owner.fault(what, error);
      return failed(error);
    }
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
    this.#tellBack();
    return true;
  }

  #tellBack(): void {
    for (const resolve of this.#untilBack.splice(0)) resolve();
  }

  #comeBack(): void {
    if (!this.#return()) return;
    this.collect();
    this.openGate(this.#now());
    this.#owner.mayWork();
  }
}
