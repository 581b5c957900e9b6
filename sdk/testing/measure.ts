/** What of Node may be there in a test; inside an isolate nothing of it is. */
interface TestGlobals {
  readonly gc?: () => void;
  readonly process?: { memoryUsage(): { heapUsed: number; arrayBuffers: number } };
}

/** Bytes that `run` left in use, rubbish not counted. 0 where nobody can tell: it takes Node with --expose-gc. */
export async function grown(run: () => Promise<void>): Promise<number> {
  const { gc, process } = globalThis as TestGlobals;
  const used = (): number => {
    if (gc === undefined || process === undefined) return 0;
    // The second one sees what the first has freed of buffers.
    gc();
    gc();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = used();
  await run();
  return used() - before;
}

/** Math.random gives the same numbers in each `run`: code that rolls dice can be compared. */
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
