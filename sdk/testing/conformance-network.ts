import type { NetworkFilterFactory } from "../network.ts";
import { everyChunking } from "./chunkings.ts";
import { type ConformanceCheck, type FreshUse, ODD_BYTES } from "./conformance.ts";
import type { TestContext } from "./context.ts";
import { grown, withSeededRandom } from "./measure.ts";
import { TestChain } from "./network.ts";

type Use = FreshUse<NetworkFilterFactory>;

const MIB = 1024 * 1024;

/** The checks that every network filter has to pass. */
export function networkConformance(fresh: Use): ConformanceCheck[] {
  return [
    { name: "throws at no odd bytes", run: () => takesOddBytes(fresh) },
    { name: "survives a close in every hook", run: () => survivesCloses(fresh) },
    { name: "leaves nothing behind when connections close", run: () => leavesNothing(fresh) },
    { name: "bounds what it keeps of a connection", run: () => boundsBuffers(fresh) },
    { name: "comes to the same however bytes are cut", run: () => takesEveryCut(fresh) },
  ];
}

/** Moves the clock on by two minutes, in which promises settle and timers fire. */
async function advance(chain: TestChain, cx: TestContext): Promise<void> {
  for (let k = 0; k < 24; k++) {
    cx.clock.advance(5000);
    await chain.settled();
  }
}

function mustNotFail({ error }: TestChain, where: string): void {
  if (error === undefined) return;
  throw new Error(`${where}: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
}

async function takesOddBytes(fresh: Use): Promise<void> {
  for (const odd of ["", ...ODD_BYTES]) {
    const { cx, value } = await fresh();
    const chain = new TestChain(cx, value).connect();
    await chain.fromClient(odd).fromServer(odd).settled();
    await chain.fromClient("", true).fromServer("", true).settled();
    await advance(chain, cx);
    mustNotFail(chain, JSON.stringify(odd.slice(0, 20)));
    chain.close();
  }
}

async function survivesCloses(fresh: Use): Promise<void> {
  const steps: readonly ((chain: TestChain) => unknown)[] = [
    (chain) => chain.connect(),
    (chain) => chain.fromClient("GET / HTTP/1.1\r\n"),
    (chain) => chain.fromServer("HTTP/1.1 200 OK\r\n"),
    (chain) => chain.filter.onBlocked?.(),
    (chain) => chain.filter.onDrained?.(),
    (chain) => chain.filter.onDrain?.({ immediate: false, closes: () => true }),
    (chain) => chain.filter.onAgain?.(),
    (chain) => chain.fromServer("\r\n", true),
    (chain) => chain.fromClient("\r\n", true),
  ];
  for (let count = 0; count <= steps.length; count++)
    for (const isSettled of [false, true]) {
      const { cx, value } = await fresh();
      const chain = new TestChain(cx, value);
      for (const step of steps.slice(0, count)) {
        step(chain);
        if (isSettled) await chain.settled();
      }
      chain.close();
      await advance(chain, cx);
      mustNotFail(chain, `closed after ${count} of ${steps.length} events`);
    }
}

async function leavesNothing(fresh: Use): Promise<void> {
  const { cx, value } = await fresh();
  const after = async (connections: number): Promise<Map<string, number>> => {
    for (let k = 0; k < connections; k++) {
      const chain = new TestChain(cx, value).connect();
      if (k % 2 === 0) chain.fromClient("hello\r\n").fromServer("welcome\r\n");
      await chain.settled();
      chain.close();
    }
    const left = new Map([["timers", cx.clock.armed]]);
    for (const name of cx.stats.gauges) left.set(`gauge ${name}`, cx.stats.value(name));
    return left;
  };
  const before = await after(12);
  for (const [name, count] of await after(36))
    if (count >= (before.get(name) ?? 0) + 12)
      throw new Error(
        `36 connections have closed and left more: ${name}, ${before.get(name) ?? 0} before, ${count} now`,
      );
}

async function boundsBuffers(fresh: Use): Promise<void> {
  for (const from of ["fromClient", "fromServer"] as const) {
    const { cx, value } = await fresh();
    const chain = new TestChain(cx, value).connect();
    await chain.settled();
    const text = "x".repeat(64 * 1024);
    const feed = async (chunks: number): Promise<void> => {
      for (let k = 0; k < chunks; k++) {
        // A peer that is paused, or gone, sends nothing.
        const { open, pauses } = chain.connection;
        if (!open || pauses > 0 || chain.waiting) return;
        await chain[from](text).settled();
        chain.passed = "";
        chain.connection.take();
      }
    };
    await feed(16);
    const bytes = await grown(() => feed(384));
    mustNotFail(chain, "much data");
    if (bytes > 12 * MIB)
      throw new Error(`24 MiB went by, and ${Math.round(bytes / MIB)} MiB of memory with it`);
    chain.close();
  }
}

async function takesEveryCut(fresh: Use): Promise<void> {
  await everyChunking("GET /a\r\n", (chunks) =>
    withSeededRandom(async () => {
      const { cx, value } = await fresh();
      const chain = new TestChain(cx, value).connect();
      await chain.settled();
      for (const chunk of chunks) await chain.fromClient(chunk).settled();
      for (const chunk of chunks) await chain.fromServer(chunk).settled();
      await advance(chain, cx);
      mustNotFail(chain, `cut as ${JSON.stringify(chunks)}`);
      const { passed, connection } = chain;
      const result = { passed, written: connection.take(), closed: connection.closed };
      chain.close();
      // If the filter has closed the connection, only that is compared: how many bytes went by before depends on the cuts.
      return result.closed === undefined ? result : { closed: result.closed };
    }),
  );
}
