import { BOX, GATE } from "../inside/sandbox/layout.ts";
import { type Account, type Accounts, NOBODY } from "./accounts.ts";
import { SandboxLost } from "./aside.ts";
import type { FaultReports } from "./fault-reports.ts";
import type { SandboxIsolate } from "./isolate.ts";

/** The sandbox, as its faults see it. */
export interface FaultsOwner {
  readonly accounts: Accounts;
  readonly reports: FaultReports;
  readonly counts: { faults: number; thrown: number };
  readonly cpuMs: number;
  readonly now: () => number;
  /** Undefined: it is being built. */
  readonly isolate: SandboxIsolate | undefined;
  /** A thread of isolated-vm's sleeps for good. */
  onLost(): void;
  /** That account's code was stopped: it goes on in the ward, if there is one. */
  confine(account: Account): void;
  /** The isolate is lost. `begun`: number of records in the block that it has begun with. */
  lose(begun: number): void;
  /** A new one is built, `ms` from now. */
  rebuildIn(ms: number): void;
}

/** What the code in one sandbox has done wrong: whom it is charged to, whether it costs the isolate, and who is told. */
export class Faults {
  readonly #owner: FaultsOwner;
  readonly #accounts: Accounts;
  readonly #reports: FaultReports;

  constructor(owner: FaultsOwner) {
    this.#owner = owner;
    this.#accounts = owner.accounts;
    this.#reports = owner.reports;
  }

  /** Called when an entry by the gate has ended with a promise rejection that no code has handled. */
  uncaughtByGate(message: string, stack: string): void {
    const { isolate } = this.#owner;
    if (isolate === undefined) return;
    // The isolate was stopped while its promise callbacks ran. The fault is handled after the crossing.
    if (isolate.disposed) isolate.gate[GATE.FAULT] = 1;
    else this.uncaught(Object.assign(new Error(message), { stack }));
  }

  uncaught(error: unknown): void {
    this.#owner.counts.thrown++;
    this.#reports.uncaught(error, this.#owner.now());
  }

  /** Notes a fault that failed no stream. For 10 s the sandbox runs on another thread, where it delays only its own streams. */
  slow(): void {
    const { cpuMs, counts, now } = this.#owner;
    const error = new Error(`entries of more than ${cpuMs} ms of CPU, again and again`);
    const { all } = this.#accounts.fault(NOBODY, now());
    if (all > 0) {
      this.#lose("cpu", error, { own: all, all });
      return;
    }
    counts.faults++;
    this.#reports.charged("cpu", error, NOBODY, 0, "; it runs on a thread of its own for 10 s");
  }

  /** `begun`: number of records in the block that the isolate has begun with. */
  fault(what: string, error: unknown, begun = 0, account = NOBODY): void {
    // A setup that is refused is made no further use of.
    if (error instanceof SandboxLost && what !== "setup") this.#owner.onLost();
    const words = this.#owner.isolate?.words;
    const use = words?.[BOX.USE] ?? 0;
    const charged = use > 0 ? { use, part: words![BOX.PART]! } : account;
    const backOff = this.#accounts.fault(charged, this.#owner.now());
    if (what === "entry" && charged.use > 0) this.#owner.confine(charged);
    this.#lose(what, error, backOff, begun, charged);
  }

  /** The setup of this use has failed that went well before: it is left alone for a while. */
  rests(use: number, error: unknown): void {
    if (error instanceof SandboxLost) this.#owner.onLost();
    this.#owner.counts.faults++;
    const restMs = this.#accounts.rest(use, this.#owner.now());
    this.#reports.charged("rebuild", error, { use, part: 0 }, restMs);
  }

  #lose(
    what: string,
    error: unknown,
    backOff: { readonly own: number; readonly all: number },
    begun = 0,
    account = NOBODY,
  ): void {
    this.#owner.lose(begun);
    this.#owner.counts.faults++;
    this.#reports.charged(what, error, account, Math.max(backOff.own, backOff.all));
    this.#owner.rebuildIn(backOff.all);
  }
}
