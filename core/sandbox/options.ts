import type { HookMask } from "../inside/sandbox/layout.ts";
import type { Watchdog } from "../isolate.ts";
import type { SandboxIsolate, Source } from "./isolate.ts";
import type { StatsSink } from "./stats.ts";
import type { Supply } from "./supply.ts";

export interface SandboxLimits {
  /**
   * Wall clock of one entry. Small boxes kill honest filters on a busy machine: with twice as many threads that want to run as
   * cores, 100 ms did so once in 20,000 requests. A filter that hangs takes it from others once; then it runs aside.
   */
  readonly timeoutMs: number;
  /** CPU of one entry, for each 64 records in it; three entries in 10 s that take ten times as much together are a fault. */
  readonly cpuMs: number;
  /** How long a hook's promise may stay pending. */
  readonly pauseMs: number;
  /** Heap and buffers; past this at two looks in a row is a fault. */
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
  /** Offset of room in it (a multiple of 8) that lasts until the events of this flush are handled; -1: none for now. */
  place(size: number): number;
  /** An event for the chain. `size` is negative for core's own answer, -STATUS. */
  onVerdict(token: number, at: number, size: number): void;
  /** There is work outside of a flush. */
  onWork(): void;
  onFault(fault: SandboxFault): void;
  onLog(level: string, message: string, fields: Readonly<Record<string, unknown>>): void;
  /** Lines for a file; whether it may write there is not known yet. */
  onLines?(path: string, text: string): void;
  /** Filters of this use read no more than these parts of their streams. */
  onReads?(use: number, mask: HookMask): void;
  /** What the balancer of this use says of itself: JSON of a ToldPolicy. */
  onPolicy?(use: number, told: string): void;
  /** JSON of a FetchMessage and its bytes: the sandbox asks a cluster, and `reply` brings answers. "": it is gone. */
  onFetch?(text: string, bytes: Buffer): void;
  /** An isolate has its code and is about to be set up: debuggers bind to it. */
  readonly onMade?: (isolate: SandboxIsolate) => Promise<void>;
  /** It has an isolate, which the chain may enter while its gate is open. Absent: core alone enters it. */
  readonly onGate?: (isolate: SandboxIsolate) => void;
  readonly stats: StatsSink;
  readonly limits?: Partial<SandboxLimits>;
  /** While it cannot be entered: `closed` fails streams, `open` lets them pass it by. */
  readonly failurePolicy?: "closed" | "open";
  /** Of one CPU. Absent: 1. */
  readonly cpuShare?: number;
  /** It is never entered: the failure policy answers. */
  readonly quarantined?: boolean;
  /** Where others see that this thread is inside: the words of its beat, and what it writes there. */
  readonly mark?: { readonly words: Int32Array; readonly box: number };
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}
