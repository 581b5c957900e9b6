// Entry point of the process in which main has modules read (ReadingProcess): code that never comes back, or that V8 has no memory
// for, ends it and nothing else.
import { Worker } from "node:worker_threads";
import { ModuleReader, type ReadModule } from "./packages/module-reader.ts";
import type { FromReading, ToReading } from "./packages/reading-process.ts";

/** How often to look whether the parent process is still there: this one may hang when that one ends. */
const LOOK_MS = 500;
const END_WITH_PARENT = `
setInterval(() => {
  if (process.ppid !== ${process.ppid}) process.kill(process.pid, "SIGKILL");
}, ${LOOK_MS});`;

let reader: ModuleReader | undefined;
process.on("disconnect", () => process.exit());
process.on("message", (message: ToReading) => {
  switch (message.type) {
    case "preludes":
      reader = new ModuleReader(message.preludes);
      tell({ type: "ready" });
      break;
    case "warm":
      reader?.warm();
      break;
    case "read":
      tell(answer(message.module));
  }
});
new Worker(END_WITH_PARENT, { eval: true, execArgv: [], stdout: false }).unref();

function answer(module: ReadModule): FromReading {
  try {
    return { type: "told", told: reader!.read(module) };
  } catch (error) {
    const { message, stack = "" } = error as Error;
    return { type: "failed", message, stack };
  }
}

function tell(message: FromReading): void {
  process.send?.(message);
}
