import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import type { DevEvent } from "../dev-events.ts";
import type { ToProxy, ToSupervisor } from "../options.ts";
import { isRunning, startProcess } from "../proxy-start.ts";
import type { ServedChange } from "../reload/served.ts";
import { HangWatch } from "./hang-watch.ts";
import type { ListeningAt } from "./held-sockets.ts";
import { takeMarks } from "./marks.ts";
import { mainCpuMs } from "./thread-cpu.ts";

/** A Node program to run, and what to do with its output. */
export interface ProxyProgram {
  /** The file to run. Undefined: the proxy (boot.ts). */
  readonly main?: string | undefined;
  readonly args: readonly string[];
  /** A process of the program that already waits for its arguments. If it is absent or has ended, another one is started. */
  readonly early?: ChildProcess | undefined;
  readonly execPath?: string | undefined;
  readonly execArgv: readonly string[];
  /** A file for its Marks, which it gets as descriptor MARKS. */
  readonly marks?: number | undefined;
  /** Listening sockets, which it gets as its descriptors from HELD on. */
  readonly held?: readonly number[] | undefined;
  /** Called with each line of its stderr. Undefined: it writes to ours. */
  readonly onLine?: ((line: string) => void) | undefined;
  /** The same for its stdout. */
  readonly onOutput?: ((line: string) => void) | undefined;
}

/** Standard input, output and error come before it, and the channel for messages. */
export const MARKS = 4;
export const HELD = 5;

export interface ProxyEvents {
  /** The process serves. */
  onReady(): void;
  /** The process is a standby that has set everything up and waits. */
  onPrepared(): void;
  /** The process listens at these TCP sockets now. */
  onListening(sockets: readonly ListeningAt[]): void;
  /** The process has begun to shut down because it was asked to. */
  onStopping(): void;
  /** What the process serves has changed. */
  onServing(change: ServedChange): void;
  onDev(event: DevEvent): void;
  /** One of its threads seems to hang inside this sandboxed package. */
  onSuspicion(guilty: string): void;
  /** That thread goes on. */
  onRelief(): void;
  /** A sandbox of this package has taken one of its threads along. */
  onLost(guilty: string): void;
  /** It has reloaded, and does not enter these packages, which ended processes before it. */
  onQuarantined(packages: readonly string[]): void;
}

export interface End {
  /** Undefined: a signal has ended it, or it could not be started. */
  readonly code: number | undefined;
  /** Why it ended, to follow "the proxy" in a sentence. */
  readonly reason: string;
  /** The sandboxed package that it hung or ended in. */
  readonly guilty: string | undefined;
  /** The sandboxed packages that it was inside when it ended, as its marks tell. Undefined: it made none. */
  readonly marked: ReadonlySet<string> | undefined;
  /** Somebody else has killed it: the kernel, for want of memory, or an operator. */
  readonly isKilled: boolean;
}

/** Starts a process of that program. */
export function startProgram({ onLine, onOutput, marks, held = [], ...program }: ProxyProgram) {
  const { execPath = process.execPath } = program;
  const to = (reader: unknown) => (reader === undefined ? "inherit" : "pipe");
  return startProcess({
    ...program,
    execPath,
    stdio: ["inherit", to(onOutput), to(onLine), "ipc", marks ?? "ignore", ...held],
  });
}

/** One process of the proxy, which is killed when it hangs. */
export class ProxyProcess {
  readonly #child: ChildProcess;
  readonly #watch: HangWatch;
  readonly #marks: number | undefined;
  #listening: readonly ListeningAt[] | undefined;
  /** The silent thread, and the sandboxed package that it is inside. */
  #hung: { readonly who: string; readonly guilty: string | undefined } | undefined;
  /** Resolves when the process has ended, or could not be started. */
  readonly ended: Promise<End>;
  /** Resolves when the process has ended or is told to retire, whichever comes first. */
  readonly over: Promise<End | "retired">;
  #onRetired!: (how: "retired") => void;
  /** Signals that wait until the process serves. */
  readonly #held = new Set<NodeJS.Signals>();
  #isReady = false;

  constructor(program: ProxyProgram, events: ProxyEvents) {
    const { early, onLine, onOutput, marks } = program;
    const child = isRunning(early) ? early : startProgram(program);
    this.#child = child;
    this.#marks = marks;
    if (child === early) this.send({ type: "run", args: program.args });
    if (onOutput && child.stdout) createInterface({ input: child.stdout }).on("line", onOutput);
    if (onLine && child.stderr) createInterface({ input: child.stderr }).on("line", onLine);
    const hangEvents = {
      onSuspicion: (who: string, guilty: string) => {
        this.#hung = { who, guilty };
        events.onSuspicion(guilty);
      },
      onRelief: () => events.onRelief(),
      onHang: (who: string) => {
        this.#hung = { who, guilty: this.#watch.guilty };
        this.kill();
      },
    };
    this.#watch = new HangWatch(hangEvents, () => mainCpuMs(child.pid ?? 0));
    this.#listen(events);
    this.ended = this.#end();
    const retired = new Promise<"retired">((resolve) => {
      this.#onRetired = resolve;
    });
    this.over = Promise.race([this.ended, retired]);
  }

  #listen(events: ProxyEvents): void {
    this.#child.on("message", (message: ToSupervisor) => {
      switch (message.type) {
        case "ready":
          this.#isReady = true;
          for (const signal of this.#held) this.#child.kill(signal);
          this.#held.clear();
          this.#watch.start();
          events.onReady();
          break;
        case "prepared":
          events.onPrepared();
          break;
        case "stopping":
          events.onStopping();
          break;
        case "listening":
          this.#listening = message.sockets;
          events.onListening(message.sockets);
          break;
        case "serving":
          events.onServing(message.change);
          break;
        case "dev":
          events.onDev(message.event);
          break;
        case "lost":
          events.onLost(message.package);
          break;
        case "quarantined":
          events.onQuarantined(message.packages);
          break;
        case "busy":
          this.#watch.onBusy(message.ms);
          break;
        case "beat":
          this.#watch.onBeat(message.threads);
      }
    });
  }

  #end(): Promise<End> {
    return new Promise((resolve) => {
      this.#child.on("error", ({ message }) =>
        resolve({
          code: undefined,
          reason: `could not be started: ${message}`,
          guilty: undefined,
          marked: undefined,
          isKilled: false,
        }),
      );
      this.#child.on("exit", (code, signal) => {
        this.#watch.stop();
        const died = signal === null ? `ended with code ${code}` : `was ended by ${signal}`;
        const hung = this.#killed ? this.#hung : undefined;
        const reason = hung === undefined ? died : `hung (${hung.who} was silent) and was killed`;
        const { guilty } = hung ?? this.#watch;
        const marks = this.#marks === undefined ? undefined : takeMarks(this.#marks);
        // A crash inside a sandbox is a signal. A process that ends itself does so for a reason of core's own.
        const marked = signal === null ? undefined : marks;
        const isKilled = signal === "SIGKILL" && !this.#killed;
        resolve({ code: code ?? undefined, reason, guilty, marked, isKilled });
      });
    });
  }

  /** The sockets at which it has told that it listens. Undefined: it has told nothing. */
  get listening(): readonly ListeningAt[] | undefined {
    return this.#listening;
  }

  /** It serves. */
  get isReady(): boolean {
    return this.#isReady;
  }

  send(message: ToProxy): void {
    // A message to a process that has just ended fails; the end itself is told by its `exit`.
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  /** Sends a signal. SIGHUP and SIGUSR1 wait until the process serves: until then it would end, or open Node's debugger. */
  signal(signal: NodeJS.Signals): void {
    if (!this.#isReady && (signal === "SIGHUP" || signal === "SIGUSR1")) this.#held.add(signal);
    else this.#child.kill(signal);
  }

  /** Called once another process serves in its place. It may finish its connections for `ms`, and is killed `graceMs` later. */
  retire(ms: number, graceMs: number): void {
    this.send({ type: "retire", ms });
    const timer = setTimeout(() => this.kill(), ms + graceMs);
    timer.unref();
    void this.ended.then(() => clearTimeout(timer));
    this.#onRetired("retired");
  }

  #killed = false;
  /** Ends the process with SIGKILL. */
  kill(): void {
    this.#killed = true;
    this.#child.kill("SIGKILL");
  }
}
