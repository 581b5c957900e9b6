import type { ChildProcess } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ownModule } from "./own-files.ts";
import { bytesOf } from "./packages/module-code.ts";
import {
  LOAD_MS,
  NEVER_LOADED,
  type Read,
  type ReadModule,
  type ReadsModules,
} from "./packages/module-reader.ts";
import type { Preludes } from "./packages/preludes.ts";
import { limitCpu } from "./process/cpu-limit.ts";
import { mainCpuMs } from "./process/thread-cpu.ts";
import type { Refusal } from "./protocol.ts";
import { isRunning, startProcess } from "./proxy-start.ts";
import type { WrittenChange } from "./reload/stage.ts";

export type TrialPreludes = Pick<Preludes, "sdk" | "reader" | "builtin" | "builtinSdk" | "regex">;

/** To the process (trial.ts), which answers each with `answer` or `failed`. */
export type Question =
  /** Answer: a Read. */
  | { readonly type: "read"; readonly module: ReadModule }
  /** Answer: a Rehearsal. `serving`: what serves, if this process does not know it. A module without code is the one read last. */
  | {
      readonly type: "prepare";
      readonly node: { readonly id: string; readonly cluster: string };
      readonly serving: WrittenChange | undefined;
      readonly change: WrittenChange;
    }
  /** Answer: refusals. `config`: the whole of it; `listeners`: JSON of those from the nth on. */
  | {
      readonly type: "extend";
      readonly config: string;
      readonly listeners: string;
      readonly nth: number;
    };
/** To the process, which answers none of these but `preludes`, with `ready`. */
export type Notice =
  | { readonly type: "preludes"; readonly preludes: TrialPreludes }
  | { readonly type: "warm" }
  | { readonly type: "commit" | "abort"; readonly generation: number }
  | { readonly type: "collect" };
/** From the process; Node's own messages, and those of modules that are loaded before, have other types. */
export type FromTrial =
  | { readonly type: "ready" }
  | { readonly type: "answer"; readonly value: unknown }
  | { readonly type: "failed"; readonly message: string; readonly stack: string };

export interface Rehearsal {
  readonly refusals: readonly Refusal[];
  /** JSON of the listeners that services bring along. */
  readonly services: string;
}

/**
 * CPU time for a module: the process itself stops what can be stopped after LOAD_MS by the clock, and, if it had less than half of
 * that time in CPU, tries it once more.
 */
const READ_MS = 1.5 * LOAD_MS;
/** How long to wait before a process that could not be started is tried again. */
const AGAIN_MS = 1_000;

/**
 * A process in which new code runs first, so that nothing that serves waits for it: nothing can stop some of V8's own functions,
 * like the product of two large BigInts, but the end of their process. It is started with the first question, and again after one
 * has ended it.
 */
export class TrialProcess implements ReadsModules {
  readonly #preludes: TrialPreludes;
  readonly #onTrouble: (message: string) => void;
  #child: ChildProcess | undefined;
  #session = 0;
  #disposed = false;
  #trouble = "";
  /** What the process has read last: it has the code. */
  #read: { readonly session: number; readonly filename: string } | undefined;
  /** One question at a time, so that it is known which one is not answered. */
  #last: Promise<unknown> = Promise.resolve();

  /** `onTrouble`: why there is no process; told once for each reason. */
  constructor(preludes: TrialPreludes, onTrouble: (message: string) => void = () => {}) {
    this.#preludes = preludes;
    this.#onTrouble = onTrouble;
  }

  async read(module: ReadModule): Promise<Read> {
    const limit = { ms: READ_MS, message: NEVER_LOADED };
    const question = (session: number): Question => {
      this.#read = { session, filename: module.filename };
      return { type: "read", module };
    };
    return (await this.ask(question, limit)) as Read;
  }

  /** To be asked while a question is put: the process has this module's code, which says its hash in its name. */
  knows(filename: string): boolean {
    return this.#read?.session === this.#session && this.#read.filename === filename;
  }

  /**
   * `question` gets the number of the process that will answer. Rejects if it throws in there, ends the process, or is not answered
   * within the limit of CPU time, with its message.
   */
  ask(
    question: (session: number) => Question,
    limit: { readonly ms: number; readonly message: string },
  ): Promise<unknown> {
    const answer = this.#last.then(() => this.#ask(question, limit));
    this.#last = answer.catch(() => {});
    return answer;
  }

  /** After the questions so far, to the process that they have left. */
  tell(notice: Notice): void {
    this.#last = this.#last.then(() => {
      if (this.#isUsable(this.#child)) send(this.#child, notice);
    });
  }

  warm(): void {
    const warmed = this.#last.then(async () => send(await this.#running(), { type: "warm" }));
    this.#last = warmed.catch(() => {});
  }

  /** Ends the process until the next question. */
  rest(): void {
    this.#child?.kill("SIGKILL");
    this.#child = undefined;
  }

  /** Ends the process for good: questions are rejected from now on. */
  dispose(): void {
    this.#disposed = true;
    this.rest();
  }

  async #ask(
    question: (session: number) => Question,
    limit: { readonly ms: number; readonly message: string },
  ): Promise<unknown> {
    const child = await this.#running();
    return new Promise((resolve, reject) => {
      const end = () => {
        endLimit();
        child.off("exit", onExit).off("message", onMessage);
      };
      const fail = (message: string, stack = "") => {
        end();
        reject(Object.assign(new Error(message), { stack }));
      };
      const onExit = (code: number | null, signal: string | null) =>
        fail(`ended the process that tried it (${signal ?? `code ${code}`})`);
      const onMessage = (message: FromTrial) => {
        if (message.type === "failed") fail(message.message, message.stack);
        else if (message.type === "answer") {
          end();
          resolve(message.value);
        }
      };
      const onLate = () => {
        child.kill("SIGKILL");
        fail(limit.message);
      };
      const cpuMs = () => mainCpuMs(child.pid!) ?? performance.now();
      const endLimit = limitCpu(limit.ms, cpuMs, onLate);
      child.on("exit", onExit).on("message", onMessage);
      send(child, question(this.#session));
    });
  }

  /** Questions wait until there is a process: what keeps it from being started, like a lack of file descriptors, is not theirs. */
  async #running(): Promise<ChildProcess> {
    for (;;) {
      if (this.#disposed) throw new Error("was not tried, as the proxy ends");
      if (this.#isUsable(this.#child)) return this.#child;
      try {
        await this.#start();
        this.#trouble = "";
      } catch (error) {
        const { message } = error as Error;
        if (message !== this.#trouble)
          this.#onTrouble(`no process can be started to try changes in, so they wait: ${message}`);
        this.#trouble = message;
        await sleep(AGAIN_MS);
      }
    }
  }

  #isUsable(child: ChildProcess | undefined): child is ChildProcess {
    return isRunning(child) && !child.killed;
  }

  /**
   * Settles once the process can answer, for which it needs as long as the machine lets it, or was ended by `rest`, which may happen
   * from its first moment.
   */
  #start(): Promise<void> {
    const child = startProcess({
      main: fileURLToPath(ownModule("trial")),
      args: [],
      execPath: process.execPath,
      execArgv: process.execArgv,
      stdio: ["ignore", "ignore", "ignore", "ipc"],
      serialization: "advanced",
    });
    this.#child = child;
    this.#session++;
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code, signal) =>
        child.killed ? resolve() : reject(new Error(`it ended with ${signal ?? code}`)),
      );
      child.on("message", ({ type }: FromTrial) => type === "ready" && resolve());
      const { sdk, reader, builtin, builtinSdk, regex } = this.#preludes;
      const preludes = {
        sdk: bytesOf(sdk),
        reader: bytesOf(reader),
        builtin: bytesOf(builtin),
        builtinSdk: bytesOf(builtinSdk),
        regex: bytesOf(regex),
      };
      send(child, { type: "preludes", preludes });
    });
  }
}

function send(child: ChildProcess, message: Question | Notice): void {
  // A message to a process that has just ended fails; the end itself is told by its `exit`.
  child.send(message, () => {});
}
