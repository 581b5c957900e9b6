/** How often two clocks are read one after the other: whoever is interrupted between them is told apart by the others. */
const READINGS = 5;

/**
 * What to add to this thread's `performance.now()` for the milliseconds of a clock that all threads share. (`timeOrigin` reads the
 * time of day when the thread starts: threads differ by as long as each was interrupted there.)
 */
function steadyOffset(): number {
  let offset = Number.NEGATIVE_INFINITY;
  for (let k = 0; k < READINGS; k++) {
    const shared = Number(process.hrtime.bigint()) / 1e6;
    offset = Math.max(offset, shared - performance.now());
  }
  return offset;
}

const OFFSET = steadyOffset();

/** Milliseconds of a clock that all threads of the process share. */
export const steadyNow = (): number => OFFSET + performance.now();
/** The same of a moment of this thread's `performance.now()`. */
export const steadyAt = (now: number): number => OFFSET + now;
