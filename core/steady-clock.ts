/** How often the two clocks are read, one after the other; a reading that was interrupted in between gives a smaller offset. */
const READINGS = 5;

/**
 * Milliseconds to add to this thread's `performance.now()` to get a clock that all threads share. (`performance.timeOrigin` is
 * not exact enough: it is wrong for a thread that was interrupted while it read the time of day.)
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
/** Converts a value of this thread's `performance.now()` to that clock. */
export const steadyAt = (now: number): number => OFFSET + now;
