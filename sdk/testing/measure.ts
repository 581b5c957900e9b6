/** Globals that a test may find in Node, and does not find in an isolate. */
interface TestGlobals {
  readonly gc?: () => void;
  readonly process?: { memoryUsage(): { heapUsed: number; arrayBuffers: number } };
}

/** Bytes that `run` left in use after a garbage collection. Always 0 without Node's --expose-gc. */
export async function grown(run: () => Promise<void>): Promise<number> {
  const { gc, process } = globalThis as TestGlobals;
  const used = (): number => {
    if (gc === undefined || process === undefined) return 0;
    // Twice, since memory of buffers that the first call frees is subtracted only in the second.
    gc();
    gc();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = used();
  await run();
  return used() - before;
}

/** Makes Math.random give the same numbers in each `run`, so that results can be compared. */
export async function withSeededRandom<T>(run: () => Promise<T>): Promise<T> {
  const { random } = Math;
  let state = 1;
  Math.random = () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return state / 0x80000000;
  };
  try {
    return await run();
  } finally {
    Math.random = random;
  }
}
