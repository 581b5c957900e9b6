import { limitCpu, ownCpuMs } from "../process/cpu-limit.ts";
import type { SandboxMarks } from "../process/marks.ts";

/** V8 ran out of memory inside a call on another thread. That thread sleeps from then on, and the isolate can never be entered. */
export class SandboxLost extends Error {
  constructor() {
    super("it ran out of memory, and took a thread along");
  }
}

/** The calls into one isolate that run on threads of isolated-vm's now. */
export class CallsAside {
  /** Ends the isolate. */
  readonly #stop: () => void;
  /** Undefined: the process keeps none, or the isolate has no package yet. */
  marks: SandboxMarks | undefined = undefined;
  readonly #running = new Map<Promise<unknown>, (error: Error) => void>();
  #isLost = false;

  constructor(stop: () => void) {
    this.#stop = stop;
  }

  /**
   * Answers what the call answers. Rejects with SandboxLost if it will never answer, and ends the isolate after `limitMs` of CPU time:
   * that of the whole process, as isolated-vm does not tell its threads' own.
   */
  async run<T>(begin: () => Promise<T>, limitMs?: number): Promise<T> {
    if (this.#isLost) throw new SandboxLost();
    const leave = this.marks?.leaveAlone();
    const call = begin();
    const given = Promise.withResolvers<never>();
    this.#running.set(call, given.reject);
    const onLate = () => {
      given.reject(new Error(`it was stopped: no return within ${limitMs} ms`));
      this.#stop();
    };
    const endLimit = limitMs === undefined ? undefined : limitCpu(limitMs, ownCpuMs, onLate);
    try {
      return await Promise.race([call, given.promise]);
    } finally {
      endLimit?.();
      leave?.();
      this.#running.delete(call);
    }
  }

  /** Called by isolated-vm, on the thread that has made the isolate, unless that is the one which sleeps now. */
  readonly onLost = (): void => {
    this.#isLost = true;
    for (const reject of this.#running.values()) reject(new SandboxLost());
  };

  /** Resolves when all present calls have ended. */
  async ended(): Promise<void> {
    await Promise.allSettled(this.#running.keys());
  }
}
