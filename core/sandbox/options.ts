import type { HookMask } from "../inside/sandbox/layout.ts";
import type { Watchdog } from "../isolate.ts";
import type { SandboxMarks } from "../process/marks.ts";
import type { Account } from "./accounts.ts";
import type { SandboxIsolate, Source } from "./isolate.ts";
import type { StatsSink } from "./stats.ts";
import type { Supply } from "./supply.ts";

export interface SandboxLimits {
  /**
   * Time box of one entry, by the clock. A smaller one stops honest filters on a busy machine: with twice as many busy threads as
   * cores, 100 ms did so once in 20,000 requests. A filter that hangs delays others so long once; then it gets another thread, and
   * half of the time.
   */
  readonly timeoutMs: number;
  /** CPU time of one entry, per 64 records in it. Three longer entries in 10 s that take ten times as much in all are a fault. */
  readonly cpuMs: number;
  /** How long a hook's promise may stay pending. */
  readonly pauseMs: number;
  /** Quota of heap and buffers. More than this at two checks in a row, a second apart, is a fault. */
  readonly quotaMb: number;
}
export const DEFAULT_LIMITS: SandboxLimits = {
  timeoutMs: 250,
  cpuMs: 5,
  pauseMs: 10_000,
  quotaMb: 64,
};

export interface SandboxFault {
  readonly package: string;
  readonly reason: string;
  readonly stack: string;
  /** The use that it is charged to, as in a Refusal: `path` is that of a per-route config. Absent: nobody knows. */
  readonly place?: string;
  readonly path?: string;
  /** For so long the use, or the whole package, is in its failure policy. */
  readonly openMs?: number;
}

/** What is different in a ward. Nobody debugs there, and what setup tells is known already. */
export interface WardOptions {
  readonly mark?: NonNullable<SandboxOptions["mark"]>;
  onFetch?(text: string, bytes: Buffer): void;
  /** New streams of this account go there from now on (true) or no longer. */
  onConfined(account: Account, isConfined: boolean): void;
}

export interface SandboxOptions {
  readonly package: string;
  readonly module: Source;
  readonly supply: Supply;
  readonly watchdog: Watchdog;
  readonly worker: number;
  readonly node: { readonly id: string; readonly cluster: string; readonly address?: string };
  /** The worker's shared memory, which records and their ranges lie in. */
  readonly memory: Buffer;
  /** Reserves room in `memory`, at a multiple of 8, valid until the events of this flush are handled. -1: there is none now. */
  place(size: number): number;
  /** Pushes the event of an answer. For core's own answers `size` is -STATUS. */
  onVerdict(token: number, at: number, size: number): void;
  /** There is something to enter for, outside of a flush. */
  onWork(): void;
  onFault(fault: SandboxFault): void;
  /** `serves`: the line is about traffic. False: it comes from setup, and the sandboxes of all workers may log the same line. */
  onLog(
    level: string,
    message: string,
    fields: Readonly<Record<string, unknown>>,
    serves: boolean,
  ): void;
  /** Lines for a file. Whether the package may write there is the caller's to check. */
  onLines?(path: string, text: string): void;
  /** Called after setup: the filters of this use read only these parts of their streams (a mask of HOOK bits). */
  onReads?(use: number, mask: HookMask): void;
  /** Called after the setup of a balancer: JSON of its ToldPolicy. */
  onPolicy?(use: number, told: string): void;
  /** A filter calls `fetch`: JSON of a FetchMessage, and the body; answers come by `reply`. "": the isolate has ended. */
  onFetch?(text: string, bytes: Buffer): void;
  /** An isolate has loaded its code and is about to be set up: debuggers attach now. */
  readonly onMade?: (isolate: SandboxIsolate) => Promise<void>;
  /** There is a new isolate, with a gate for the builtin isolate to enter by. Absent: only core enters it. */
  readonly onGate?: (isolate: SandboxIsolate) => void;
  readonly stats: StatsSink;
  readonly limits?: Partial<SandboxLimits>;
  /** For streams that cannot be handled: `closed` fails them, `open` lets them skip the filter. */
  readonly failurePolicy?: "closed" | "open";
  /** Share of one CPU that the sandbox may use. Absent: 1. */
  readonly cpuShare?: number;
  /** The package has hung or ended a process: it is never entered, and the failure policy answers. */
  readonly quarantined?: boolean;
  /** Where the supervisor sees that this thread is inside the sandbox: the thread's beat words, and the number to write. */
  readonly mark?: { readonly words: Int32Array; readonly box: number };
  /** Told of each call into the isolate. */
  readonly marks?: SandboxMarks | undefined;
  /** V8 ran out of memory during a call on another thread, which will never come back. The process should be replaced. */
  onLost?(): void;
  /**
   * Of the ward: the sandbox in which places go on whose code was stopped (ward.ts). Absent: they go on in this one, as those of
   * balancers do, who are asked by the gate and nowhere else.
   */
  readonly ward?: WardOptions;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}
