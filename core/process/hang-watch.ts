import type { ThreadBeat } from "../options.ts";
import { silence } from "./thread-cpu.ts";

/** Milliseconds that a thread may be silent beyond its time box. */
const SILENCE_MS = 500;
/**
 * Part of its time box after which a thread inside a sandbox is suspect: an isolate that can be stopped has been by then (after
 * 312 ms).
 */
const SUSPICIOUS = 0.4;
/** A thread that sleeps inside a sandbox is suspect after this long: V8 ran out of memory there, and will never return. */
const ASLEEP_MS = 200;
/** Extra time for a suspect thread if the process has other workers, which serve until the standby process is ready. */
const STANDBY_MS = 5_000;
/** Time box of the main thread. It serves no traffic, and a large config may keep it busy this long. */
const MAIN_BOX_MS = 10_000;
const TICK_MS = 100;
/** The main thread is silent for so long before it is asked how much CPU time it has had. */
const LOOK_TICKS = 10;

export interface HangEvents {
  /** A thread has been inside this sandboxed package for longer than an isolate that can be stopped would be. */
  onSuspicion(who: string, inside: string): void;
  /** The suspect thread goes on. */
  onRelief(): void;
  onHang(who: string): void;
}

/**
 * Reports when a thread of the proxy, or its main thread, is silent for too long. A thread's silence is counted in beats of main,
 * and main's in our own ticks, so that no thread looks dead after the machine has stood still. Nor does a thread that waits for a
 * CPU (thread-cpu.ts), main included, unlike one that sleeps inside a sandbox.
 */
export class HangWatch {
  readonly #events: HangEvents;
  readonly #silent = new Map<
    string,
    { turns: number; beats: number; cpuMs: number; asleep: number }
  >();
  #guilty: string | undefined;
  #suspect: string | undefined;
  readonly #mainCpuMs: () => number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ticks = 0;
  /** CPU time of the main thread when it had been silent for LOOK_TICKS. */
  #cpuBefore: number | undefined = undefined;

  /** `mainCpuMs` tells how much CPU time the main thread has had by now. Undefined: nobody knows. */
  constructor(events: HangEvents, mainCpuMs: () => number | undefined = () => undefined) {
    this.#events = events;
    this.#mainCpuMs = mainCpuMs;
  }

  start(): void {
    this.#timer ??= setInterval(() => {
      if (++this.#ticks === LOOK_TICKS) this.#cpuBefore = this.#mainCpuMs();
      if (this.#ticks * TICK_MS > MAIN_BOX_MS + SILENCE_MS && this.#isMainSilent)
        this.#hang("the main thread");
    }, TICK_MS);
  }

  /** The main thread is silent beyond its box, by its CPU time too. */
  get #isMainSilent(): boolean {
    const cpuMs = this.#mainCpuMs();
    if (cpuMs === undefined || this.#cpuBefore === undefined) return true;
    const usedMs = LOOK_TICKS * TICK_MS + cpuMs - this.#cpuBefore;
    return silence(this.#ticks * TICK_MS, usedMs) > MAIN_BOX_MS + SILENCE_MS;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** The sandboxed package that a silent thread was inside at the last beat. Undefined: none. */
  get guilty(): string | undefined {
    return this.#guilty;
  }

  /** From now on to its next beat, the main thread may be silent for `ms` longer than usual. */
  onBusy(ms: number): void {
    this.#ticks = -ms / TICK_MS;
  }

  /** Called with each beat of the main thread, every 100 ms. */
  onBeat(threads: readonly ThreadBeat[]): void {
    this.#ticks = 0;
    this.#guilty = undefined;
    for (const beat of threads) {
      const isWorker = ({ name }: ThreadBeat) => name !== beat.name && name !== "control";
      this.#onBeatOf(beat, threads.some(isWorker));
    }
  }

  #onBeatOf(beat: ThreadBeat, hasOthers: boolean): void {
    const { name, turns, cpuMs = 0, boxMs, inside } = beat;
    const known = this.#silent.get(name);
    if (known?.turns !== turns) {
      this.#silent.set(name, { turns, beats: 0, cpuMs, asleep: 0 });
      if (this.#suspect !== name) return;
      this.#suspect = undefined;
      this.#events.onRelief();
      return;
    }
    if (inside !== undefined) this.#guilty = inside;
    const wallMs = ++known.beats * TICK_MS;
    known.asleep = beat.isAsleep === true ? known.asleep + 1 : 0;
    const asleepMs = known.asleep * TICK_MS;
    // A thread that sleeps does not wait for a CPU.
    const awakeMs = cpuMs === 0 ? wallMs : silence(wallMs, cpuMs - known.cpuMs);
    const silentMs = Math.max(awakeMs, asleepMs);
    const standbyMs = hasOthers && this.#suspect === name ? STANDBY_MS : 0;
    if (silentMs > boxMs + SILENCE_MS + standbyMs) this.#hang(name);
    else if (
      inside !== undefined &&
      this.#suspect === undefined &&
      (silentMs >= boxMs * SUSPICIOUS || asleepMs >= ASLEEP_MS)
    ) {
      this.#suspect = name;
      this.#events.onSuspicion(name, inside);
    }
  }

  #hang(who: string): void {
    this.stop();
    this.#events.onHang(who);
  }
}
