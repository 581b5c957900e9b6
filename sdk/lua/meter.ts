// Hot path: counts every turn of a loop and every call.

/** Thrown to end a program, for example because its time is used up; no `pcall` catches it. */
export class Stopped {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

/** A program looks at the clock once in this many turns of loops and calls. */
const TICKS = 1 << 14;
/** Most bytes of the tables that one run makes; those no longer in use count too, since that is not known. */
const SPACE_MAX = 32 * 1024 * 1024;

/** The counts of the run in progress: an isolate runs one program at a time. */
export const meter = { ticks: 0, space: 0, text: 0, deadline: 0, runMs: 0 };
let spaceBefore = 0;

/** Bytes of all tables and texts that this isolate's programs have made: at most that much can be kept from run to run. */
export function bytesMade(): number {
  return spaceBefore + meter.space + meter.text;
}

/** Called when a run begins, which may take `runMs`. */
export function startMeter(runMs: number): void {
  meter.ticks = 0;
  spaceBefore += meter.space;
  meter.space = 0;
  meter.deadline = 0;
  meter.runMs = runMs;
}

/**
 * Called once in TICKS turns. Throws Stopped past a limit, and leaves `ticks` as it is, so that each further turn calls it again:
 * on a full stack a Stopped may be lost to a stack overflow, which the program could catch.
 */
export function tick(): void {
  if (meter.space > SPACE_MAX)
    throw new Stopped(`script made tables of more than ${SPACE_MAX >> 20} MiB`);
  const now = Date.now();
  if (meter.deadline === 0) meter.deadline = now + meter.runMs;
  else if (now > meter.deadline) throw new Stopped(`script ran for more than ${meter.runMs} ms`);
  meter.ticks = 0;
}

/** Called when a library function has made a text of `size` bytes. */
export function madeText(size: number): void {
  meter.text += size;
  spend(size >> 6);
}

/** Counts `count` turns, for loops in library functions. */
export function spend(count: number): void {
  meter.ticks += count;
  if (meter.ticks > TICKS) tick();
}
