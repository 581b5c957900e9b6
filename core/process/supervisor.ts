import type { DevEvent } from "../dev-events.ts";
import type { Log } from "../logs/log.ts";
import type { LogOptions } from "../logs/log-options.ts";
import type { RunOptions, Runtime, ToProxy } from "../options.ts";
import { type Served, serves } from "../reload/served.ts";
import { HeldSockets, type ListeningAt } from "./held-sockets.ts";
import { openMarks } from "./marks.ts";
import { onNpxEnded } from "./npx.ts";
import { type End, HELD, MARKS, ProxyProcess, type ProxyProgram } from "./proxy-process.ts";
import { Spare } from "./spare.ts";
import { ControlSocket, keepsConnections, Predecessor } from "./takeover.ts";

const BACK_OFF_MS = { first: 1_000, most: 60_000 } as const;
const CRASHES = { most: 5, withinMs: 60_000 } as const;
/** A proxy that is told to end drains for 5 s and gives its threads and logs 10 s more; after this long it is killed. */
const END_MS = 20_000;
/** How often to try to bind the control socket: the predecessor frees it at once, but a file system may be slow. */
const LISTEN_TIMES = 20;
const LISTEN_AGAIN_MS = 100;

/** How a process is to be started. */
export type ProcessRole = Required<
  Pick<RunOptions, "quarantined" | "standby" | "marks" | "held" | "succeeds">
>;

export interface SupervisorOptions extends Omit<ProxyProgram, "args" | "marks" | "held"> {
  readonly args: (role: ProcessRole) => readonly string[];
  /** How many workers a process has. Absent: one. */
  readonly workers?: number;
  readonly log: (message: string) => void;
  /** Called when a proxy serves for the first time. */
  readonly onFirstReady?: () => void;
  readonly onDev?: (event: DevEvent) => void;
  /** Milliseconds. Only tests set it. */
  readonly backOffMs?: { readonly first: number; readonly most: number };
  /** How long a process that has recovered may take to finish its connections once a standby serves in its place. */
  readonly drainTimeMs: number;
}

/** Runs the proxy under a supervisor, in the place of a predecessor if `takeover` is set. Answers the exit code. */
export async function superviseProxy(
  options: RunOptions,
  { node, flags, early }: Runtime,
): Promise<number> {
  const log = new LateLog(options.log);
  const { controlSocket: place, controlSocketMode: mode, parentShutdownMs } = options;
  const predecessor = options.takeover ? await Predecessor.find(place) : undefined;
  if (options.takeover && predecessor === undefined)
    log.info(
      "no proxy serves this config, so there is none to take over; one that serves another file is found by --base-id, where both have the same",
    );
  const supervisor = new Supervisor({
    early,
    args: (role) => [JSON.stringify({ ...options, takeover: predecessor !== undefined, ...role })],
    execPath: node,
    execArgv: flags,
    drainTimeMs: options.drainTimeMs,
    workers: options.concurrency,
    log: (message) => log.error(message),
    onFirstReady: () => void replace(),
  });
  let control: ControlSocket | undefined;
  const onRetire = (ms: number): void => {
    control?.leave();
    supervisor.retire(ms);
  };
  const listen = async (): Promise<void> => {
    for (let n = 0; n < LISTEN_TIMES && control === undefined; n++) {
      if (n > 0) await new Promise((resolve) => setTimeout(resolve, LISTEN_AGAIN_MS).unref());
      control = await ControlSocket.listen({ file: place, mode }, onRetire);
    }
    if (control === undefined)
      log.debug(`no proxy can take this one over: ${place} is taken, or cannot be made`);
  };
  const replace = async (): Promise<void> => {
    if (predecessor === undefined) return;
    log.info("serving; the proxy before drains");
    if (!keepsConnections())
      log.warn(
        "a connection that is being made while the proxy before closes its sockets can be reset; to keep it: sysctl -w net.ipv4.tcp_migrate_req=1",
      );
    // The predecessor frees the control socket as soon as it gets this.
    void predecessor.retire(parentShutdownMs).then(() => log.info("the proxy before has ended"));
    if (place !== "") await listen();
  };
  if (predecessor === undefined && place !== "") void listen();
  process.on("exit", () => control?.leave());
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"] as const)
    process.on(signal, () => supervisor.signal(signal));
  process.on("disconnect", () => supervisor.signal("SIGTERM"));
  onNpxEnded(() => supervisor.signal("SIGTERM"));
  const code = await supervisor.run();
  await log.written;
  return code;
}

/** Node aborts where the system gives it no thread or no memory, and mostly says so in its own words only. */
function helpOf(reason: string): string {
  return reason.endsWith("SIGABRT")
    ? "; see that it may have enough threads and memory (ulimit -u and -v, pids.max and memory.max of its cgroup)"
    : "";
}

/** A log that is opened with its first line. Most starts write none, and save 6 MiB and 15 ms. */
class LateLog {
  readonly #options: LogOptions;
  #log: Log | undefined;
  /** Settles when all lines have been passed to the log, which writes them when the process ends, at the latest. */
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
  warn(message: string): void {
    this.#say("warn", message);
  }
  error(message: string): void {
    this.#say("error", message);
  }

  #say(level: "info" | "debug" | "warn" | "error", message: string): void {
    this.written = this.written.then(async () => {
      const { openLog } = await import("../logs/log.ts");
      this.#log ??= (await openLog(this.#options)).log;
      this.#log[level](message);
    });
  }
}

/** A process that is started while the one that serves seems to hang. */
interface Standby {
  readonly proxy: ProxyProcess;
  /** The package that the other process seems to hang in: the standby does not enter it. */
  readonly guilty: string;
  /** Why the other process has to go, to follow "the proxy" in a sentence. */
  reason: string;
  /** The standby was told to serve: it takes the other process's place even if that one recovers. */
  isToServe: boolean;
  /** The other process has recovered since: it need not be killed, and may finish its connections. */
  isRelieved: boolean;
}

/**
 * Keeps one proxy process alive.
 *
 *   start ──ready──> serving ──crash, hang──> back off 0, 1, 2, … 60 s ──> start
 *     └─exit before its first ready: end      └─exit 0: end       five crashes in a minute: end
 *
 * The process that is started after one has died has its listening sockets from the first moment on (HeldSockets). After the first
 * crash whose cause nobody knows it need not even be started: it waits as a Spare. It begins with what was Served, so that a broken
 * save that lies on disk is refused like any other.
 *
 * From that crash on, processes keep Marks: the next one tells which sandboxed packages it was inside.
 * If that is one, it is quarantined: its failure policy answers until its code or config changes. Of several, that one is which the next
 * crash has in common with this one; so too where somebody else has killed the process, which may be inside any filter at that moment.
 *
 * A process that seems to hang inside a sandboxed package gets a standby, which sets up all but this package. Meanwhile the
 * process may recover, and its other threads may serve. The standby binds beside it before it is killed, so that no client is
 * refused. The same is done for a process that has lost a thread of isolated-vm's to a sandbox: it serves as before, and then
 * finishes its connections.
 *
 *   serving ──suspicion──> standby is started ──prepared──> is told to serve ──ready──> the hanging process is killed
 *                             │                                │                          (or it was killed before, as it hung)
 *                             └─the thread goes on:            └─the thread goes on ──ready──> the process drains
 *                               the standby is killed
 */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #crashes: number[] = [];
  #proxy: ProxyProcess | undefined;
  #standby: Standby | undefined;
  /** Processes that finish their connections while another one serves. */
  readonly #retired = new Set<ProxyProcess>();
  #stopAsked = false;
  #wakeUp: (() => void) | undefined;
  #wasReady = false;
  /** The first process, if it was started early. Undefined once `#start` has used it. */
  #startedEarly: ProxyProgram["early"];
  #quarantined = new Set<string>();
  /** A process has died, and nobody knows inside which package. */
  #hasCrashed = false;
  #spare: Spare | undefined;
  /** The packages, one of which has ended each of the last processes. */
  #suspects: ReadonlySet<string> = new Set();
  /** The sockets at which the last process that died has listened. */
  #left: readonly ListeningAt[] = [];
  /** What is served, for the next process. Undefined: nothing yet. */
  #served: Served | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#startedEarly = options.early;
  }

  /** True once a proxy has served. */
  get ready(): boolean {
    return this.#wasReady;
  }

  /** Runs proxies until one ends for good. Answers the exit code for this process. */
  async run(): Promise<number> {
    try {
      return await this.#untilTheEnd();
    } finally {
      this.#dropSpare();
    }
  }

  async #untilTheEnd(): Promise<number> {
    let backOffMs: number = this.#backOff.first;
    for (;;) {
      const started = performance.now();
      const proxy = (this.#proxy ??= this.#start());
      const end = await proxy.over;
      this.#proxy = undefined;
      if (end === "retired") {
        this.#proxy = this.#succeed();
        continue;
      }
      this.#left = proxy.listening ?? this.#left;
      const { code, reason } = end;
      if (code === 0 || this.#stopAsked || !this.#wasReady) {
        this.#dropStandby();
        // One that ends itself has said why.
        if (code === undefined && !this.#stopAsked)
          this.#options.log(`the proxy ${reason} before it served${helpOf(reason)}`);
        return code ?? (this.#stopAsked ? 0 : 1);
      }
      // A package that was quarantined before can only have ended another process with other code or config, so no back-off is needed.
      const guilty = this.#guiltyOf(end);
      if (guilty !== undefined) {
        this.#quarantined.add(guilty);
        this.#options.log(
          `the proxy ${reason} inside the filter ${guilty}; another one takes its place at once, and the filter's failure policy answers until its code or config is another one`,
        );
        this.#proxy = this.#takeStandby(guilty);
        continue;
      }
      this.#dropStandby();
      this.#hasCrashed = true;
      const now = performance.now();
      if (now - started > CRASHES.withinMs) backOffMs = this.#backOff.first;
      this.#crashes.push(now);
      const crashes = this.#crashes.filter((at) => now - at < CRASHES.withinMs).length;
      if (crashes >= CRASHES.most) {
        this.#options.log(`the proxy ${reason}; five times within a minute, so this is the end`);
        return 1;
      }
      if (crashes === 1) {
        this.#options.log(
          `the proxy ${reason}; starting it again at once; if that was in a filter, it will be known the next time`,
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
      this.#onStopAsked();
      this.#wakeUp?.();
      this.#dropStandby();
      setTimeout(() => this.#proxy?.signal("SIGKILL"), END_MS).unref();
    }
    this.#proxy?.signal(signal);
    for (const proxy of this.#retired) proxy.signal(signal);
  }

  send(message: ToProxy): void {
    this.#proxy?.send(message);
  }

  /** Another proxy serves in the place of this one, which may finish its connections for `ms`. */
  retire(ms: number): void {
    // It has crashed and is to be started again, or starts: it has no connections, and must not serve beside the other one.
    if (this.#proxy?.isReady !== true) {
      this.signal("SIGTERM");
      return;
    }
    this.#onStopAsked();
    this.#dropStandby();
    this.send({ type: "retire", ms });
  }

  get #backOff() {
    return this.#options.backOffMs ?? BACK_OFF_MS;
  }

  /** The package that the process hung or ended in. Undefined: nobody knows. */
  #guiltyOf({ guilty, marked, isKilled }: End): string | undefined {
    const known = guilty ?? this.#standby?.guilty;
    if (known !== undefined && !isKilled) return known;
    const inside = new Set(marked);
    if (known !== undefined) inside.add(known);
    if (inside.size === 0) return undefined;
    const common = [...inside].filter((name) => this.#suspects.has(name));
    const suspects = common.length > 0 ? common : [...inside];
    const isKnown = suspects.length === 1 && (common.length === 1 || !isKilled);
    this.#suspects = new Set(isKnown ? [] : suspects);
    return isKnown ? suspects[0] : undefined;
  }

  /** Starts a proxy. `without`: as a standby that does not enter this package. */
  #start(without?: string): ProxyProcess {
    const isStandby = without !== undefined;
    const quarantined = new Set([...this.#quarantined, ...(isStandby ? [without] : [])]);
    // A standby binds beside the process that it replaces.
    const spare = isStandby ? undefined : this.#spare;
    if (spare !== undefined) this.#spare = undefined;
    const marks = spare === undefined && this.#hasCrashed ? openMarks() : spare?.marks;
    const sockets = spare?.sockets ?? new HeldSockets(isStandby ? [] : this.#left);
    const early = spare?.child ?? this.#startedEarly;
    this.#startedEarly = undefined;
    const args = this.#options.args({
      quarantined: [...quarantined],
      standby: isStandby,
      marks: marks === undefined ? undefined : MARKS,
      held: sockets.from(HELD),
      succeeds: this.#served !== undefined,
    });
    sockets.listen();
    try {
      return this.#run({ ...this.#options, early, args, marks, held: sockets.fds });
    } finally {
      sockets.close();
    }
  }

  #run(program: ProxyProgram): ProxyProcess {
    const proxy: ProxyProcess = new ProxyProcess(program, {
      onReady: () => this.#onReady(proxy),
      onPrepared: () => this.#onPrepared(proxy),
      onListening: (sockets) => this.#keepSpare(sockets),
      onStopping: () => {
        if (!this.#retired.has(proxy)) this.#onStopAsked();
      },
      onServing: (change) => {
        if (!this.#retired.has(proxy)) this.#served = serves(this.#served, change);
      },
      onDev: (event) => this.#options.onDev?.(event),
      onSuspicion: (guilty) => this.#onSuspicion(proxy, guilty),
      onRelief: () => this.#onRelief(proxy),
      onLost: (guilty) => this.#onLost(proxy, guilty),
      onQuarantined: (packages) => {
        if (proxy === this.#proxy) this.#quarantined = new Set(packages);
      },
    });
    if (this.#served !== undefined) proxy.send({ type: "served", served: this.#served });
    return proxy;
  }

  #onReady(proxy: ProxyProcess): void {
    if (!this.#wasReady) this.#options.onFirstReady?.();
    this.#wasReady = true;
    if (proxy !== this.#standby?.proxy) return;
    if (this.#standby.isRelieved) this.#retire();
    else this.#proxy?.kill();
  }

  #onStopAsked(): void {
    this.#stopAsked = true;
    this.#dropSpare();
  }

  // ---- the spare

  /** Keeps one with the sockets of the process that serves: those that it has given up must be free for others. */
  #keepSpare(listening: readonly ListeningAt[]): void {
    // Only the proxy itself (boot.ts) waits for its arguments.
    const isUseful = this.#hasCrashed && !this.#stopAsked && this.#options.main === undefined;
    if (!isUseful || this.#spare?.isFor(listening)) return;
    this.#dropSpare();
    this.#spare = new Spare(this.#options, this.#options.workers ?? 1, listening);
  }

  #dropSpare(): void {
    this.#spare?.drop();
    this.#spare = undefined;
  }

  // ---- the standby

  #onSuspicion(proxy: ProxyProcess, guilty: string): void {
    if (proxy !== this.#proxy || this.#stopAsked) return;
    if (this.#standby !== undefined) {
      this.#standby.isRelieved = false;
      return;
    }
    this.#standBy(guilty, "was silent for too long");
  }

  /**
   * The process goes on without the package, but a thread of isolated-vm's and some memory are gone until another one serves. A
   * standby for another package, which may recover, makes way for one without this package, which certainly is to blame.
   */
  #onLost(proxy: ProxyProcess, guilty: string): void {
    if (proxy !== this.#proxy || this.#stopAsked) return;
    this.#quarantined.add(guilty);
    if (this.#standby !== undefined && this.#standby.guilty !== guilty) this.#dropStandby();
    const reason = "ran out of memory";
    const standby = this.#standby ?? this.#standBy(guilty, reason);
    standby.isToServe = standby.isRelieved = true;
    standby.reason = reason;
  }

  #standBy(guilty: string, reason: string): Standby {
    const standby: Standby = {
      proxy: this.#start(guilty),
      guilty,
      reason,
      isToServe: false,
      isRelieved: false,
    };
    this.#standby = standby;
    void standby.proxy.ended.then(() => {
      if (this.#standby === standby) this.#standby = undefined;
    });
    return standby;
  }

  #onPrepared(proxy: ProxyProcess): void {
    if (proxy === this.#standby?.proxy) this.#standby.isToServe = true;
    proxy.send({ type: "serve" });
  }

  #onRelief(proxy: ProxyProcess): void {
    if (proxy !== this.#proxy || this.#standby === undefined) return;
    if (this.#standby.isToServe) this.#standby.isRelieved = true;
    else this.#dropStandby();
  }

  /**
   * Called when the standby serves and the process that it replaces has recovered, or can go on for a while: that one may finish its
   * connections.
   */
  #retire(): void {
    const proxy = this.#proxy;
    if (proxy === undefined) return;
    this.#retired.add(proxy);
    void proxy.ended.then(() => this.#retired.delete(proxy));
    proxy.retire(this.#options.drainTimeMs, END_MS);
  }

  /** Takes the standby that serves in the place of a retired process. Undefined: it has ended meanwhile. */
  #succeed(): ProxyProcess | undefined {
    if (this.#standby === undefined) return undefined;
    const { guilty, reason } = this.#standby;
    this.#quarantined.add(guilty);
    this.#options.log(
      `the proxy ${reason} inside the filter ${guilty}; another one serves, and the filter's failure policy answers until its code or config is another one; the one before finishes its connections`,
    );
    return this.#takeStandby(guilty);
  }

  #takeStandby(guilty: string): ProxyProcess | undefined {
    if (this.#standby?.guilty !== guilty) this.#dropStandby();
    const proxy = this.#standby?.proxy;
    this.#standby = undefined;
    return proxy;
  }

  #dropStandby(): void {
    this.#standby?.proxy.kill();
    this.#standby = undefined;
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
