import { type ChildProcess, fork } from "node:child_process";
import { createInterface } from "node:readline";
import type { DevEvent } from "./dev-events.ts";
import { HangWatch } from "./hang-watch.ts";
import type { ToProxy, ToSupervisor } from "./options.ts";

/**
 * glibc keeps a heap for each thread, eight a core, of which most is free (12 MiB with one worker); V8 allocates little there. And
 * once a large block was freed it takes others of that size, rings among them, from those heaps as well, where nothing is given
 * back (14 MiB).
 */
const ALLOCATOR = { MALLOC_ARENA_MAX: "2", MALLOC_MMAP_THRESHOLD_: "262144" } as const;

/** A program of Node, and where what it writes goes. */
export interface ProxyProgram {
  readonly main: string;
  readonly args: readonly string[];
  readonly execPath?: string | undefined;
  readonly execArgv: readonly string[];
  /** Its stderr, line by line; undefined: it writes to ours. */
  readonly onLine?: ((line: string) => void) | undefined;
  /** The same of its stdout. */
  readonly onOutput?: ((line: string) => void) | undefined;
}

export interface ProxyEvents {
  /** It serves. */
  onReady(): void;
  /** A standby has set everything up, and waits. */
  onPrepared(): void;
  /** It was asked to end. */
  onStopping(): void;
  onDev(event: DevEvent): void;
  /** It seems to hang inside this sandboxed package. */
  onSuspicion(guilty: string): void;
  onRelief(): void;
}

export interface End {
  readonly code: number | undefined;
  /** What is said of it behind "the proxy". */
  readonly reason: string;
  /** The sandboxed package that it hung or ended in. */
  readonly guilty: string | undefined;
}

/** One process of the proxy. It is killed when it hangs. */
export class ProxyProcess {
  readonly #child: ChildProcess;
  readonly #watch: HangWatch;
  /** Who is silent, and inside what. */
  #hung: { readonly who: string; readonly guilty: string | undefined } | undefined;
  readonly ended: Promise<End>;

  constructor({ main, args, onLine, onOutput, ...program }: ProxyProgram, events: ProxyEvents) {
    const { execPath = process.execPath, execArgv } = program;
    const to = (reader: unknown) => (reader === undefined ? "inherit" : "pipe");
    const child = fork(main, args, {
      execPath,
      execArgv: [...execArgv],
      env: { ...ALLOCATOR, ...process.env },
      stdio: ["inherit", to(onOutput), to(onLine), "ipc"],
    });
    this.#child = child;
    if (onOutput && child.stdout) createInterface({ input: child.stdout }).on("line", onOutput);
    if (onLine && child.stderr) createInterface({ input: child.stderr }).on("line", onLine);
    this.#watch = new HangWatch({
      onSuspicion: (who, guilty) => {
        this.#hung = { who, guilty };
        events.onSuspicion(guilty);
      },
      onRelief: () => events.onRelief(),
      onHang: (who) => {
        this.#hung = { who, guilty: this.#watch.guilty };
        this.kill();
      },
    });
    this.#listen(events);
    this.ended = this.#end();
  }

  #listen(events: ProxyEvents): void {
    this.#child.on("message", (message: ToSupervisor) => {
      switch (message.type) {
        case "ready":
          this.#watch.start();
          events.onReady();
          break;
        case "prepared":
          events.onPrepared();
          break;
        case "stopping":
          events.onStopping();
          break;
        case "dev":
          events.onDev(message.event);
          break;
        case "beat":
          this.#watch.onBeat(message.threads);
      }
    });
  }

  #end(): Promise<End> {
    return new Promise((resolve) => {
      this.#child.on("error", ({ message }) =>
        resolve({ code: 1, reason: `could not be started: ${message}`, guilty: undefined }),
      );
      this.#child.on("exit", (code, signal) => {
        this.#watch.stop();
        const died = signal === null ? `ended with code ${code}` : `was ended by ${signal}`;
        const hung = this.#killed ? this.#hung : undefined;
        const reason = hung === undefined ? died : `hung (${hung.who} was silent) and was killed`;
        const { guilty } = hung ?? this.#watch;
        resolve({ code: code ?? undefined, reason, guilty });
      });
    });
  }

  send(message: ToProxy): void {
    if (this.#child.connected) this.#child.send(message);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  #killed = false;
  /** At once, for it hangs or is not wanted. */
  kill(): void {
    this.#killed = true;
    this.#child.kill("SIGKILL");
  }
}
