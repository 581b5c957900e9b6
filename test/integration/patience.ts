/** How long a thing that should happen may take on a machine that is busy with something else. */
export const PATIENCE_MS = 120_000;
/** So long before a test is ended for its time (`--testTimeout`) it tells what it waits for. */
const TELL_MS = 5_000;

let testEnds = Number.POSITIVE_INFINITY;

/** How long to wait from now on: PATIENCE_MS, or as long as the test has. */
export function patienceMs(): number {
  return Math.max(0, Math.min(PATIENCE_MS, testEnds - TELL_MS - performance.now()));
}

/** `timeoutMs`: what it is given; 0: any time. Answers what to call at its end. */
export function onTestBegan(timeoutMs: number): () => void {
  testEnds = performance.now() + (timeoutMs || Number.POSITIVE_INFINITY);
  return () => {
    testEnds = Number.POSITIVE_INFINITY;
  };
}
