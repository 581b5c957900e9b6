import type { ThreadBeat } from "./options.ts";
import { silence } from "./thread-cpu.ts";

/** How long a thread may be silent beyond its time box. */
const SILENCE_MS = 500;
/** Part of its time box after which a thread inside a sandbox is suspect: one that can be stopped has been by then (after 312 ms). */
const SUSPICIOUS = 0.4;
/** A standby may take so much longer where the process has other workers: they serve until it is ready. */
const STANDBY_MS = 5_000;
/** Main does no traffic; a large config may keep it this long. */
const MAIN_BOX_MS = 10_000;
const TICK_MS = 100;

export interface HangEvents {
  /** A thread has been inside this sandboxed package for longer than an isolate that can be stopped. */
  onSuspicion(who: string, inside: string): void;
  /** It turns again. */
  onRelief(): void;
  onHang(who: string): void;
}

/**
 * Tells when a thread of the proxy, or its main thread, is silent for too long. Silence of a thread is counted in beats of
 * main, and silence of main in our own ticks: a machine that stands still for a while makes nobody look dead. A thread that waits
 * for a CPU does not look dead either (thread-cpu.ts).
 */
export class HangWatch {
  readonly #events: HangEvents;
  readonly #silent = new Map<string, { turns: number; beats: number; cpuMs: number }>();
  #guilty: string | undefined;
  #suspect: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ticks = 0;

  constructor(events: HangEvents) {
    this.#events = events;
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
    for (const beat of threads) {
      const isWorker = ({ name }: ThreadBeat) => name !== beat.name && name !== "control";
      this.#onBeatOf(beat, threads.some(isWorker));
    }
  }

  #onBeatOf({ name, turns, cpuMs = 0, boxMs, inside }: ThreadBeat, hasOthers: boolean): void {
    const known = this.#silent.get(name);
    if (known?.turns !== turns) {
      this.#silent.set(name, { turns, beats: 0, cpuMs });
      if (this.#suspect !== name) return;
      this.#suspect = undefined;
      this.#events.onRelief();
      return;
    }
    if (inside !== undefined) this.#guilty = inside;
    const wallMs = ++known.beats * TICK_MS;
    const silentMs = cpuMs === 0 ? wallMs : silence(wallMs, cpuMs - known.cpuMs);
    const standbyMs = hasOthers && this.#suspect === name ? STANDBY_MS : 0;
    if (silentMs > boxMs + SILENCE_MS + standbyMs) this.#hang(name);
    else if (
      inside !== undefined &&
      this.#suspect === undefined &&
      silentMs >= boxMs * SUSPICIOUS
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
