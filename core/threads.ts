import { closeSync, openSync, readSync } from "node:fs";
import { CellHeap } from "@tsproxy/sdk";
import { takeThread, threadName } from "./early-threads.ts";
import { DEFAULT_SIZES, type RingSizes, TURNS } from "./inside/ring.ts";
import { COUNTS_BYTES, giveBack, LEDGER_BYTES } from "./inside/shared-counts.ts";
import { THREAD_BITS } from "./isolate-numbers.ts";
import { lineMemory } from "./logs/line-buffer.ts";
import type { FromWorker, ToWorker, WorkerStart } from "./protocol.ts";
import { sandboxHeaps } from "./sandbox/cells.ts";
import { snapshotOf } from "./sandbox/image.ts";
import { GATHERING_BYTES } from "./sockets/gathering.ts";
import type { StartThread } from "./thread.ts";

/** Stats memory of a thread, enough for a large config; untouched pages cost nothing. */
const STATS_BYTES = 32 * 1024 * 1024;
const BEAT_BYTES = 64;
/** Memory for cells of rate limits and the like, shared by all threads; untouched pages cost nothing. */
const CELLS_BYTES = 16 * 1024 * 1024;

/** Starts the proxy's threads. `started` resolves once the proxy serves: work that only speeds up later changes waits for it. */
export function threadStarter(
  start: Pick<WorkerStart, "prelude" | "node" | "drain" | "fileFlush" | "marks">,
  started: Promise<void>,
): StartThread {
  const secret = randomSecret();
  const turns = new SharedArrayBuffer(TURNS * 4 + CELLS_BYTES);
  const shared = new SharedArrayBuffer(COUNTS_BYTES);
  const gathering = new SharedArrayBuffer(GATHERING_BYTES);
  const sizes = ringSizes(process.env.TSPROXY_RING);
  const counts = new Int32Array(turns);
  for (let k = 0; k < TURNS; k++) counts[k] = Math.floor(Math.random() * 2 ** 31);
  const cells = new CellHeap(turns, TURNS * 4);
  let snapshot: ArrayBuffer | undefined;
  let threads = 0;
  return (role, index, events) => {
    const memory = {
      stats: new SharedArrayBuffer(STATS_BYTES),
      beat: new SharedArrayBuffer(BEAT_BYTES),
      ledger: new SharedArrayBuffer(LEDGER_BYTES),
      lines: lineMemory(start.fileFlush),
    };
    const thread = ++threads;
    const own: WorkerStart = {
      ...start,
      ...memory,
      turns,
      counts: shared,
      gathering,
      secret,
      role,
      index,
      thread,
      sizes,
    };
    const worker = takeThread(role, index);
    worker.postMessage({ type: "start", start: own } satisfies ToWorker);
    let reason = "it ended";
    worker.on("message", (message: FromWorker) => {
      if (message.type !== "image_wanted") return events.onMessage(message);
      void started.then(() => {
        snapshot ??= snapshotOf(start.prelude.sandbox);
        worker.postMessage({ type: "image", snapshot } satisfies ToWorker);
      });
    });
    worker.on("error", (error: Error) => {
      reason = error.stack ?? error.message;
    });
    worker.on("exit", () => {
      giveBack(shared, memory.ledger);
      for (const heap of [cells, ...sandboxHeaps()]) heap.forget(thread << 16, THREAD_BITS);
      events.onExit(reason);
    });
    return {
      role,
      index,
      name: threadName(role, index),
      memory,
      post: (message) => worker.postMessage(message),
      heapSnapshot: () => worker.getHeapSnapshot(),
      kill: (why) => {
        reason = why;
        void worker.terminate();
      },
    };
  };
}

/** Reads `events,commands,segments,slots`. Tests run with the smallest ring that works: nothing may depend on its size. */
function ringSizes(text: string | undefined): RingSizes {
  const [events, commands, segments, slots] = (text ?? "").split(",").map(Number);
  if (!events || !commands || !segments || !slots) return DEFAULT_SIZES;
  return { events, commands, segments, slots };
}

/** 32 random bytes of the system in base64. Node's crypto would take 25 ms of the start to load. */
function randomSecret(): string {
  const bytes = Buffer.alloc(32);
  const source = openSync("/dev/urandom", "r");
  const n = readSync(source, bytes);
  closeSync(source);
  if (n < bytes.length) throw new Error("/dev/urandom gives no random bytes");
  return bytes.toString("base64");
}
