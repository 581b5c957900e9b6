import { type ChildProcess, fork } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { DevEvent } from "./dev-events.ts";
import type { Log } from "./log.ts";
import type { LogOptions } from "./log-options.ts";
import type { RunOptions, Runtime, ThreadBeat, ToProxy, ToSupervisor } from "./options.ts";
import { ownModule } from "./own-files.ts";
import { ControlSocket, Predecessor } from "./takeover.ts";
import { silence } from "./thread-cpu.ts";

/** How long a thread may be silent beyond its time box. */
const SILENCE_MS = 500;
/** Main does no traffic; a large config may keep it this long. */
const MAIN_BOX_MS = 10_000;
const BACK_OFF_MS = { first: 1_000, most: 60_000 } as const;
const CRASHES = { most: 5, withinMs: 60_000 } as const;
/** The proxy drains for 5 s and gives its threads 2 s more; past this it hangs. */
const END_MS = 10_000;
/** A predecessor leaves its place at once; a file system may take its time. */
const LISTEN_TIMES = 20;
const LISTEN_AGAIN_MS = 100;

/**
 * glibc keeps a heap for each thread, eight a core, of which most is free (12 MiB with one worker); V8 allocates little there. And
 * once a large block was freed it takes others of that size, rings among them, from those heaps as well, where nothing is given
 * back (14 MiB).
 */
const ALLOCATOR = { MALLOC_ARENA_MAX: "2", MALLOC_MMAP_THRESHOLD_: "262144" } as const;

export interface SupervisorOptions {
  /** Module of the proxy, its arguments, and the flags of its Node. */
  readonly main: string;
  /** `quarantined`: sandboxed packages that a process has ended in. */
  readonly args: (quarantined: readonly string[]) => readonly string[];
  readonly execPath?: string;
  readonly execArgv: readonly string[];
  readonly log: (message: string) => void;
  /** A proxy serves for the first time. */
  readonly onFirstReady?: () => void;
  /** Its stderr, line by line; undefined: it writes to ours. */
  readonly onLine?: (line: string) => void;
  /** The same of its stdout. */
  readonly onOutput?: (line: string) => void;
  readonly onDev?: (event: DevEvent) => void;
  /** Milliseconds, for tests. */
  readonly backOffMs?: { readonly first: number; readonly most: number };
}

export async function superviseProxy(
  options: RunOptions,
  { node, flags }: Runtime,
): Promise<number> {
  const log = new LateLog(options.log);
  const { controlSocket: place, parentShutdownMs } = options;
  const predecessor = options.takeover ? await Predecessor.find(place) : undefined;
  if (options.takeover && predecessor === undefined)
    log.info("no proxy serves this config, so there is none to take over");
  const main = fileURLToPath(ownModule("main"));
  const supervisor = new Supervisor({
    main,
    args: (quarantined) => [
      JSON.stringify({ ...options, takeover: predecessor !== undefined, quarantined }),
    ],
    execPath: node,
    execArgv: flags,
    log: (message) => log.error(message),
    onFirstReady: () => void replace(),
  });
  let control: ControlSocket | undefined;
  const onRetire = (ms: number): void => {
    control?.leave();
    supervisor.send({ type: "retire", ms });
  };
  const listen = async (): Promise<void> => {
    for (let n = 0; n < LISTEN_TIMES && control === undefined; n++) {
      if (n > 0) await new Promise((resolve) => setTimeout(resolve, LISTEN_AGAIN_MS).unref());
      control = await ControlSocket.listen(place, onRetire);
    }
    if (control === undefined)
      log.debug(`no proxy can take this one over: ${place} is taken, or cannot be made`);
  };
  const replace = async (): Promise<void> => {
    if (predecessor === undefined) return;
    log.info("serving; the proxy before drains");
    // Its place is free as soon as it has heard of it.
    void predecessor.retire(parentShutdownMs).then(() => log.info("the proxy before has ended"));
    if (place !== "") await listen();
  };
  if (predecessor === undefined && place !== "") void listen();
  process.on("exit", () => control?.leave());
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"] as const)
    process.on(signal, () => supervisor.signal(signal));
  process.on("disconnect", () => supervisor.signal("SIGTERM"));
  const code = await supervisor.run();
  await log.written;
  return code;
}

/** Is opened when there is something to say, which is seldom: 6 MiB and 15 ms of each start. */
class LateLog {
  readonly #options: LogOptions;
  #log: Log | undefined;
  /** Settles when all lines have been handed to the log, which writes them at the process's end at the latest. */
  written: Promise<void> = Promise.resolve();

  constructor(options: LogOptions) {
    this.#options = options;
  }

  info(message: string): void {
    this.#say("info", message);
  }
  debug(message: string): void {
    this.#say("debug", message);
  }
  error(message: string): void {
    this.#say("error", message);
  }

  #say(level: "info" | "debug" | "error", message: string): void {
    this.written = this.written.then(async () => {
      const { openLog } = await import("./log.ts");
      this.#log ??= openLog(this.#options).log;
      this.#log[level](message);
    });
  }
}

/**
 * Keeps one proxy process alive.
 *
 *   start ──ready──> serving ──crash, hang──> back off 1-60 s ──> start
 *     └─exit before its first ready: end      └─exit 0: end       five crashes in a minute: end
 */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #crashes: number[] = [];
  #child: ChildProcess | undefined;
  #stopAsked = false;
  #wakeUp: (() => void) | undefined;
  #wasReady = false;
  readonly #quarantined = new Set<string>();

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /** A proxy has served. */
  get ready(): boolean {
    return this.#wasReady;
  }

  /** The exit code for this process. */
  async run(): Promise<number> {
    let backOffMs: number = this.#backOff.first;
    for (;;) {
      const started = performance.now();
      const { code, reason, guilty } = await this.#serve();
      if (code === 0) return 0;
      if (this.#stopAsked) return code ?? 0;
      if (!this.#wasReady) return code ?? 1;
      const now = performance.now();
      if (now - started > CRASHES.withinMs) backOffMs = this.#backOff.first;
      this.#crashes.push(now);
      if (this.#crashes.filter((at) => now - at < CRASHES.withinMs).length >= CRASHES.most) {
        this.#options.log(`the proxy ${reason}; five times within a minute, so this is the end`);
        return 1;
      }
      if (guilty !== undefined && !this.#quarantined.has(guilty)) {
        this.#quarantined.add(guilty);
        this.#options.log(
          `the proxy ${reason} inside the filter ${guilty}; starting it again at once, and the filter's failure policy answers in its place until its code is another one`,
        );
        continue;
      }
      this.#options.log(`the proxy ${reason}; starting it again in ${backOffMs / 1000} s`);
      await this.#sleep(backOffMs);
      if (this.#stopAsked) return 0;
      backOffMs = Math.min(backOffMs * 2, this.#backOff.most);
    }
  }

  signal(signal: NodeJS.Signals): void {
    if (signal === "SIGTERM" || signal === "SIGINT") {
      this.#stopAsked = true;
      this.#wakeUp?.();
      setTimeout(() => this.#child?.kill("SIGKILL"), END_MS).unref();
    }
    this.#child?.kill(signal);
  }

  send(message: ToProxy): void {
    if (this.#child?.connected) this.#child.send(message);
  }

  get #backOff() {
    return this.#options.backOffMs ?? BACK_OFF_MS;
  }

  #serve(): Promise<{ code: number | undefined; reason: string; guilty: string | undefined }> {
    const { main, args, execPath = process.execPath, execArgv } = this.#options;
    const { onLine, onOutput, onDev } = this.#options;
    const to = (reader: unknown) => (reader === undefined ? "inherit" : "pipe");
    const child = fork(main, args([...this.#quarantined]), {
      execPath,
      execArgv: [...execArgv],
      env: { ...ALLOCATOR, ...process.env },
      stdio: ["inherit", to(onOutput), to(onLine), "ipc"],
    });
    this.#child = child;
    if (onOutput && child.stdout) createInterface({ input: child.stdout }).on("line", onOutput);
    if (onLine && child.stderr) createInterface({ input: child.stderr }).on("line", onLine);
    let hung: string | undefined;
    const watch = new HangWatch((who) => {
      hung = who;
      child.kill("SIGKILL");
    });
    child.on("message", (message: ToSupervisor) => {
      if (message.type === "ready") {
        if (!this.#wasReady) this.#options.onFirstReady?.();
        this.#wasReady = true;
        watch.start();
      } else if (message.type === "stopping") this.#stopAsked = true;
      else if (message.type === "dev") onDev?.(message.event);
      else watch.onBeat(message.threads);
    });
    return new Promise((resolve) => {
      child.on("error", (error) =>
        resolve({
          code: 1,
          reason: `could not be started: ${error.message}`,
          guilty: undefined,
        }),
      );
      child.on("exit", (code, signal) => {
        watch.stop();
        const died = signal === null ? `ended with code ${code}` : `was ended by ${signal}`;
        const reason = hung === undefined ? died : `hung (${hung} was silent) and was killed`;
        resolve({ code: code ?? undefined, reason, guilty: watch.guilty });
      });
    });
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wakeUp = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

const TICK_MS = 100;

/**
 * Tells when a thread of the proxy, or its main thread, is silent for too long. Silence of a thread is counted in beats of
 * main, and silence of main in our own ticks: a machine that stands still for a while makes nobody look dead. A thread that waits
 * for a CPU does not look dead either (thread-cpu.ts).
 */
export class HangWatch {
  readonly #onHang: (who: string) => void;
  readonly #silent = new Map<string, { turns: number; beats: number; cpuMs: number }>();
  #guilty: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ticks = 0;

  constructor(onHang: (who: string) => void) {
    this.#onHang = onHang;
  }

  start(): void {
    this.#timer ??= setInterval(() => {
      if (++this.#ticks * TICK_MS > MAIN_BOX_MS + SILENCE_MS) this.#hang("the main thread");
    }, TICK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** The sandboxed package that a thread was inside, and silent, when it was heard of last. */
  get guilty(): string | undefined {
    return this.#guilty;
  }

  onBeat(threads: readonly ThreadBeat[]): void {
    this.#ticks = 0;
    this.#guilty = undefined;
    for (const { name, turns, cpuMs = 0, boxMs, inside } of threads) {
      const known = this.#silent.get(name);
      if (known?.turns !== turns) {
        this.#silent.set(name, { turns, beats: 0, cpuMs });
        continue;
      }
      if (inside !== undefined) this.#guilty = inside;
      const wallMs = ++known.beats * TICK_MS;
      const silentMs = cpuMs === 0 ? wallMs : silence(wallMs, cpuMs - known.cpuMs);
      if (silentMs > boxMs + SILENCE_MS) this.#hang(name);
    }
  }

  #hang(who: string): void {
    this.stop();
    this.#onHang(who);
  }
}
