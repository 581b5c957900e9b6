/** Operations of `crypto.subtle` that have begun and not ended: Node carries them out on other threads, so no number of microtasks will do. */
const underWay = new Set<Promise<unknown>>();
/** A filter may start the next operation when one has ended; a test that waits for more of them in a row than this never ends. */
const ROUNDS = 1000;

watch();

/** Waits for all operations of `crypto.subtle` of this isolate, and lets what waits for them go on. */
export async function cryptoSettled(goOn: () => Promise<void>): Promise<void> {
  for (let k = 0; underWay.size > 0 && k < ROUNDS; k++) {
    await Promise.allSettled([...underWay]);
    await goOn();
  }
}

/** Notes each operation while it is under way. */
function watch(): void {
  const methods = Object.getPrototypeOf(crypto.subtle) as Record<string, unknown>;
  for (const [name, { value: call }] of Object.entries(Object.getOwnPropertyDescriptors(methods))) {
    if (typeof call !== "function" || name === "constructor") continue;
    const noted = function (this: unknown, ...args: unknown[]): unknown {
      const result = call.apply(this, args) as unknown;
      if (!(result instanceof Promise)) return result;
      const ended = (): void => void underWay.delete(result);
      underWay.add(result);
      result.then(ended, ended);
      return result;
    };
    Object.defineProperty(methods, name, { value: noted, configurable: true, writable: true });
  }
}
