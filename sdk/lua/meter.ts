// Hot path: every turn of a loop and every call counts here.

/** The program has used up its time: no `pcall` catches this. */
export class Stopped {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

/** How often a program looks at the clock: so many turns of loops and calls. */
const TICKS = 1 << 14;
/** What tables may take that one run makes, bytes; whether they are still in use is not known. */
const SPACE_MAX = 32 * 1024 * 1024;

/** One program runs at a time. */
export const meter = { ticks: 0, space: 0, text: 0, deadline: 0, runMs: 0 };
let spaceBefore = 0;

/** Bytes that programs of this isolate have made, ever: who keeps something from run to run keeps no more than that. */
export function bytesMade(): number {
  return spaceBefore + meter.space + meter.text;
}

/** A run begins, which may take so long. */
export function startMeter(runMs: number): void {
  meter.ticks = 0;
  spaceBefore += meter.space;
  meter.space = 0;
  meter.deadline = 0;
  meter.runMs = runMs;
}

/**
 * Called once in TICKS. Who is to stop stays so: each further turn comes back here. A stop may get lost on a stack that is full,
 * where the program would catch an overflow in its place and go on.
 */
export function tick(): void {
  if (meter.space > SPACE_MAX)
    throw new Stopped(`script made tables of more than ${SPACE_MAX >> 20} MiB`);
  const now = Date.now();
  if (meter.deadline === 0) meter.deadline = now + meter.runMs;
  else if (now > meter.deadline) throw new Stopped(`script ran for more than ${meter.runMs} ms`);
  meter.ticks = 0;
}

/** A function of the library has made a text of that size. */
export function madeText(size: number): void {
  meter.text += size;
  spend(size >> 6);
}

/** For loops of the library: `count` turns. */
export function spend(count: number): void {
  meter.ticks += count;
  if (meter.ticks > TICKS) tick();
}
