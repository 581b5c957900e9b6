import type { ChildProcess } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { ownModule } from "../own-files.ts";
import { isRunning, startProcess } from "../proxy-start.ts";
import { LOAD_MS, NEVER_LOADED, type ReadModule, type ReadsModules } from "./module-reader.ts";
import type { Preludes } from "./preludes.ts";

/** To the process (reading.ts). It answers `preludes` with `ready`, and each `read` with `told` or `failed`. */
export type ToReading =
  | { readonly type: "preludes"; readonly preludes: Pick<Preludes, "sdk" | "reader"> }
  | { readonly type: "warm" }
  | { readonly type: "read"; readonly module: ReadModule };
/** From the process; Node's own messages, and those of modules that are loaded before, have other types. */
export type FromReading =
  | { readonly type: "ready" }
  | { readonly type: "told"; readonly told: string }
  | { readonly type: "failed"; readonly message: string; readonly stack: string };

/** Beyond LOAD_MS, after which the process itself stops what can be stopped. */
const GRACE_MS = 1_000;
/** How long to wait before a process that could not be started is tried again. */
const AGAIN_MS = 1_000;

/**
 * Reads modules in a process of its own, since nothing can stop some of V8's own functions, like the product of two large BigInts,
 * but the end of their process. It is started with the first module, and again after one has ended it.
 */
export class ReadingProcess implements ReadsModules {
  readonly #preludes: Pick<Preludes, "sdk" | "reader">;
  readonly #onTrouble: (message: string) => void;
  #child: ChildProcess | undefined;
  #trouble = "";
  /** One module at a time, so that it is known which one does not come back. */
  #last: Promise<unknown> = Promise.resolve();

  /** `onTrouble`: why there is no process; told once for each reason. */
  constructor(
    preludes: Pick<Preludes, "sdk" | "reader">,
    onTrouble: (message: string) => void = () => {},
  ) {
    this.#preludes = preludes;
    this.#onTrouble = onTrouble;
  }

  read(module: ReadModule): Promise<string> {
    const told = this.#last.then(() => this.#read(module));
    this.#last = told.catch(() => {});
    return told;
  }

  warm(): void {
    const warmed = this.#last.then(async () => send(await this.#running(), { type: "warm" }));
    this.#last = warmed;
  }

  dispose(): void {
    this.#child?.kill("SIGKILL");
    this.#child = undefined;
  }

  async #read(module: ReadModule): Promise<string> {
    const child = await this.#running();
    return new Promise((resolve, reject) => {
      const end = () => {
        clearTimeout(timer);
        child.off("exit", onExit).off("message", onMessage);
      };
      const fail = (message: string, stack = "") => {
        end();
        reject(Object.assign(new Error(message), { stack }));
      };
      const onExit = (code: number | null, signal: string | null) =>
        fail(`ended the process that read it (${signal ?? `code ${code}`})`);
      const onMessage = (message: FromReading) => {
        if (message.type === "failed") fail(message.message, message.stack);
        else if (message.type === "told") {
          end();
          resolve(message.told);
        }
      };
      const timer = setTimeout(() => {
        child.kill("SIGKILL");
        fail(NEVER_LOADED);
      }, LOAD_MS + GRACE_MS);
      child.on("exit", onExit).on("message", onMessage);
      send(child, { type: "read", module });
    });
  }

  /** Modules wait until there is a process: what keeps it from being started, like a lack of file descriptors, is not theirs. */
  async #running(): Promise<ChildProcess> {
    for (;;) {
      if (isRunning(this.#child) && !this.#child.killed) return this.#child;
      try {
        this.#child = await this.#started();
        this.#trouble = "";
      } catch (error) {
        const { message } = error as Error;
        if (message !== this.#trouble)
          this.#onTrouble(`no process can be started to read filters in, so they wait: ${message}`);
        this.#trouble = message;
        await sleep(AGAIN_MS);
      }
    }
  }

  /** Settles once the process can read: until then it needs as long as the machine lets it. */
  #started(): Promise<ChildProcess> {
    const child = startProcess({
      main: fileURLToPath(ownModule("reading")),
      args: [],
      execPath: process.execPath,
      execArgv: process.execArgv,
      stdio: ["ignore", "ignore", "ignore", "ipc"],
      serialization: "advanced",
    });
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code, signal) => reject(new Error(`it ended with ${signal ?? code}`)));
      child.on("message", ({ type }: FromReading) => type === "ready" && resolve(child));
      send(child, { type: "preludes", preludes: this.#preludes });
    });
  }
}

function send(child: ChildProcess, message: ToReading): void {
  // A message to a process that has just ended fails; the end itself is told by its `exit`.
  child.send(message, () => {});
}
