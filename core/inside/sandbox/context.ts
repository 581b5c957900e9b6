import type {
  Clusters,
  Connection,
  FileSink,
  Kind,
  Kinds,
  Log,
  LogFields,
  Regex,
  Runtime,
  SetupContext,
  SharedCount,
  Slot,
  Stats,
  Timer,
  Tls,
  Turns,
  UdpSocket,
} from "@tsproxy/sdk";
import {
  type CellSpec,
  type FetchInit,
  type FetchResponse,
  openPrivateCell,
  traced,
} from "@tsproxy/sdk";
import { configNameOf } from "../config-name.ts";
import { ScopedStats } from "../stats.ts";
import { compileRegex } from "./regexes.ts";
import type { Surroundings } from "./surroundings.ts";

/** One place in the config that uses the package. */
export interface SandboxUse {
  readonly id: number;
  readonly config: unknown;
  /** JSON pointer in the RuntimeConfig, for refusals. */
  readonly place: string;
  /** `cx.statPrefix`. Absent: "". */
  readonly statPrefix?: string;
  /** What the generation before it returned from its `onHandover` callback. */
  readonly previous?: unknown;
}

/** The `cx` of one setup in a sandbox. What would need another isolate throws. */
export class SandboxContext implements SetupContext {
  readonly role = "worker";
  readonly sandboxed = true;
  readonly worker: number;
  readonly node: { readonly id: string; readonly cluster: string; readonly address?: string };
  readonly log: Log;
  readonly stats: Stats;
  readonly runtime: Runtime;
  readonly previous: unknown;
  readonly statPrefix: string;
  readonly configName: string;
  readonly #around: Surroundings;
  readonly #place: string;
  readonly #disposers: (() => void)[] = [];
  /** Those that are armed: a filter may make one for each stream. */
  readonly #timers = new Set<Timer>();
  #handover: (() => unknown) | undefined = undefined;
  #disposed = false;

  constructor(around: Surroundings, { place, statPrefix = "", previous }: SandboxUse) {
    this.#place = place;
    this.statPrefix = statPrefix;
    this.configName = configNameOf(place);
    this.worker = around.worker;
    this.node = around.node;
    this.log = new SandboxLog(around);
    this.stats = new ScopedStats(around.stats, "");
    this.runtime = around.runtime;
    this.previous = previous;
    this.#around = around;
  }

  fetch(target: string, init?: FetchInit): Promise<FetchResponse> {
    return traced(this.#around.fetches.start(target, init));
  }

  now(): number {
    return this.#around.clock.now;
  }

  timer(onFired: () => void): Timer {
    const timer = this.#around.clock.timer(() => {
      this.#timers.delete(timer);
      if (!this.#disposed) onFired();
    });
    return new UseTimer(timer, this.#timers);
  }

  regex(pattern: string): Regex {
    return compileRegex(pattern);
  }

  onDispose(dispose: () => void): void {
    this.#disposers.push(dispose);
  }

  onHandover(state: () => unknown): void {
    this.#handover = state;
  }

  /** What this use leaves to the next generation: a JSON value. */
  handover(): unknown {
    return this.#handover?.();
  }

  dispose(): void {
    this.#disposed = true;
    for (const timer of this.#timers) timer.cancel();
    for (const dispose of this.#disposers.reverse()) {
      try {
        dispose();
      } catch (error) {
        this.#around.thrown(0, "onDispose", error);
      }
    }
  }

  get clusters(): Clusters {
    return unavailable("cx.clusters");
  }
  extension<K extends Kind>(): Slot<Kinds[K]> {
    return unavailable("cx.extension");
  }
  shipped<K extends Kind>(): Slot<Kinds[K]> {
    return unavailable("cx.shipped");
  }
  connect(): Connection {
    return unavailable("cx.connect");
  }
  udp(): UdpSocket {
    return unavailable("cx.udp");
  }
  adopt(): void {
    unavailable("cx.adopt");
  }
  cell<T>(name: string, spec: CellSpec<T>): T {
    const { cells } = this.#around;
    if (cells === undefined) return openPrivateCell(spec);
    const at = cells.acquire(`${this.#place} ${spec.kind} ${name}`, spec.bytes);
    if (at === undefined)
      throw new Error(`no shared memory is left for "${name}" (1 MiB a package)`);
    this.#disposers.push(() => cells.release(at));
    return spec.open(cells, at);
  }
  turns(): Turns {
    return unavailable("cx.turns");
  }
  sharedCount(): SharedCount {
    return unavailable("cx.sharedCount");
  }
  file(path: string): FileSink {
    return this.#around.files.open(path);
  }
  readFile(): string {
    return unavailable("cx.readFile");
  }
  watchFile(): void {
    unavailable("cx.watchFile");
  }
  get tls(): Tls {
    return unavailable("cx.tls");
  }
  publish(): void {
    unavailable("cx.publish");
  }
  retract(): void {
    unavailable("cx.retract");
  }
  child(): never {
    return unavailable("cx.child");
  }
  subscribeAll(): void {
    unavailable("cx.subscribeAll");
  }
  subscribe(): void {
    unavailable("cx.subscribe");
  }
  waitFor(): void {
    unavailable("cx.waitFor");
  }
  operation(): Promise<unknown> {
    return unavailable("cx.operation");
  }
}

/** A timer that its use cancels at its end. */
class UseTimer implements Timer {
  readonly #timer: Timer;
  readonly #armed: Set<Timer>;

  constructor(timer: Timer, armed: Set<Timer>) {
    this.#timer = timer;
    this.#armed = armed;
  }
  arm(ms: number): void {
    this.#timer.arm(ms);
    this.#armed.add(this.#timer);
  }
  cancel(): void {
    this.#timer.cancel();
    this.#armed.delete(this.#timer);
  }
  get armed(): boolean {
    return this.#timer.armed;
  }
}

function unavailable(what: string): never {
  throw new Error(`${what} is not available in a sandbox; mark the package "trusted"`);
}

class SandboxLog implements Log {
  readonly #around: Surroundings;

  constructor(around: Surroundings) {
    this.#around = around;
  }
  debug(message: string, fields: LogFields = {}): void {
    this.#around.log("debug", message, fields);
  }
  info(message: string, fields: LogFields = {}): void {
    this.#around.log("info", message, fields);
  }
  warn(message: string, fields: LogFields = {}): void {
    this.#around.log("warn", message, fields);
  }
  error(message: string, fields: LogFields = {}): void {
    this.#around.log("error", message, fields);
  }
}
