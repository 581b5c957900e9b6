import type { Readable } from "node:stream";
import type { FromWorker, ToWorker } from "./protocol.ts";

/** A worker thread or the control thread, as main sees it. */
export interface Thread {
  readonly role: "worker" | "control";
  readonly index: number;
  /** `worker 0`, `control`. */
  readonly name: string;
  readonly memory: ThreadMemory;
  post(message: ToWorker): void;
  /** A snapshot of the heap of its Node isolate, as JSON that DevTools opens. */
  heapSnapshot?(): Promise<Readable>;
  /** Ends the thread at once. `reason`: as in `onExit`. */
  kill(reason: string): void;
}

/** Memory of a thread that main reads: its stats and its beat (BEAT), its ledger, and lines for files. */
export interface ThreadMemory {
  readonly stats: SharedArrayBuffer;
  readonly beat: SharedArrayBuffer;
  /** How many of each shared count the thread holds. */
  readonly ledger: SharedArrayBuffer;
  readonly lines: SharedArrayBuffer;
}

export interface ThreadEvents {
  onMessage(message: FromWorker): void;
  /** Called exactly once, when the thread has ended. `reason`: what it died of. */
  onExit(reason: string): void;
}

export type StartThread = (
  role: "worker" | "control",
  index: number,
  events: ThreadEvents,
) => Thread;
