// Entry point of the process in which main has new code tried (TrialProcess): code that never comes back, or that V8 has no memory
// for, ends it and nothing else.
import { Worker } from "node:worker_threads";
import { ModuleReader, type ReadModule } from "./packages/module-reader.ts";
import { CanaryIsolate } from "./reload/canary-isolate.ts";
import type { WrittenChange } from "./reload/stage.ts";
import type { FromTrial, Notice, Question, Rehearsal, TrialPreludes } from "./trial-process.ts";

/** How often to look whether the parent process is still there: this one may hang when that one ends. */
const LOOK_MS = 500;
const END_WITH_PARENT = `
setInterval(() => {
  if (process.ppid !== ${process.ppid}) process.kill(process.pid, "SIGKILL");
}, ${LOOK_MS});`;

let preludes: TrialPreludes;
let reader: ModuleReader;
let canary: CanaryIsolate | undefined;
/** The module read last: new code is read and then set up, and need not come twice. */
let read: ReadModule | undefined;
let node = { id: "", cluster: "" };
process.on("disconnect", () => process.exit());
process.on("message", (message: Question | Notice) => {
  switch (message.type) {
    case "preludes":
      preludes = message.preludes;
      reader = new ModuleReader(preludes);
      tell({ type: "ready" });
      break;
    case "warm":
      reader.warm();
      break;
    case "commit":
      canary?.commit(message.generation);
      reader.renew();
      break;
    case "abort":
      canary?.abort(message.generation);
      reader.renew();
      break;
    case "collect":
      canary?.collectGarbage();
      break;
    default:
      tell(attempt(message));
  }
});
new Worker(END_WITH_PARENT, { eval: true, execArgv: [], stdout: false }).unref();

function attempt(question: Question): FromTrial {
  try {
    return { type: "answer", value: answer(question) };
  } catch (error) {
    const { message, stack = "" } = error as Error;
    return { type: "failed", message, stack };
  }
}

function answer(question: Question): unknown {
  switch (question.type) {
    case "read":
      read = question.module;
      return reader.read(read);
    case "prepare":
      return rehearsed(question);
    case "extend":
      return canary!.extend(question.config, question.listeners, question.nth);
  }
}

function rehearsed(question: Extract<Question, { type: "prepare" }>): Rehearsal {
  node = question.node;
  canary ??= new CanaryIsolate({ prelude: preludes, node: () => node, sandboxed: "left out" });
  if (question.serving !== undefined) canary.adopt(withCode(question.serving));
  const refusals = canary.prepare(withCode(question.change));
  return { refusals, services: refusals.length > 0 ? "[]" : canary.serviceListeners() };
}

function withCode(change: WrittenChange): WrittenChange {
  const modules = change.modules.map((module) =>
    module.code === "" && module.filename === read?.filename
      ? { ...module, code: read.code }
      : module,
  );
  return { ...change, modules };
}

function tell(message: FromTrial): void {
  process.send?.(message);
}
