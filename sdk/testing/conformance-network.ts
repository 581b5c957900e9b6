import { Chunk, latin1Decode, latin1Encode } from "../bytes.ts";
import {
  type CloseEvent,
  type NetworkFilter,
  type NetworkFilterFactory,
  stop,
} from "../network.ts";
import { everyChunking } from "./chunkings.ts";
import { type ConformanceCheck, type FreshUse, ODD_BYTES } from "./conformance.ts";
import { TestConnection } from "./connection.ts";
import type { TestContext } from "./context.ts";
import { grown, withSeededRandom } from "./measure.ts";

type Use = FreshUse<NetworkFilterFactory>;

const CLOSED: CloseEvent = { by: "remote", phase: "connected", timeout: false, error: undefined };
const MIB = 1024 * 1024;

export function networkConformance(fresh: Use): ConformanceCheck[] {
  return [
    { name: "throws at no odd bytes", run: () => takesOddBytes(fresh) },
    { name: "survives a close in every hook", run: () => survivesCloses(fresh) },
    { name: "leaves nothing behind when connections close", run: () => leavesNothing(fresh) },
    { name: "bounds what it keeps of a connection", run: () => boundsBuffers(fresh) },
    { name: "comes to the same however bytes are cut", run: () => takesEveryCut(fresh) },
  ];
}

/** One connection through one filter: keeps what later filters would get. */
class Peer {
  readonly connection = new TestConnection();
  readonly filter: NetworkFilter;
  passed = "";
  error: unknown = undefined;
  #kept = "";
  #closed = false;

  constructor(factory: NetworkFilterFactory) {
    const resumeReading = (): void => {
      this.passed += this.#kept;
      this.#kept = "";
    };
    this.filter = factory.create(this.connection, { resumeReading });
  }

  async connect(): Promise<void> {
    try {
      await this.filter.onConnect?.();
    } catch (error) {
      this.error = error;
    }
  }

  /** Does not wait for a promise longer than others take: what hangs is the filter's affair until the close. */
  async send(text: string, endStream = false): Promise<void> {
    if (!this.connection.open) return;
    // Lent, as a socket's memory is.
    const memory = latin1Encode(`..${text}..`);
    const chunk = new Chunk(memory, 2, memory.length - 2);
    try {
      const result = this.filter.onData?.(chunk, endStream);
      if (result === stop) this.#kept += text;
      else if (result instanceof Promise) {
        chunk.replace(chunk.copy());
        memory.fill(0x21);
        void result.then(
          (bytes) => this.#pass(bytes ?? chunk.copy()),
          (error) => {
            this.error = error;
          },
        );
      } else this.#pass(chunk.copy());
    } catch (error) {
      this.error = error;
    }
    memory.fill(0x21);
    for (let k = 0; k < 8; k++) await Promise.resolve();
  }

  #pass(bytes: Uint8Array): void {
    this.passed += latin1Decode(bytes, 0, bytes.length);
  }

  async wait(cx: TestContext): Promise<void> {
    for (let k = 0; k < 24; k++) {
      cx.clock.advance(5000);
      for (let n = 0; n < 20; n++) await Promise.resolve();
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.connection.open = false;
    this.filter.onClose?.(CLOSED);
  }

  mustNotFail(where: string): void {
    const { error } = this;
    if (error === undefined) return;
    throw new Error(`${where}: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
  }
}

async function takesOddBytes(fresh: Use): Promise<void> {
  for (const odd of ["", ...ODD_BYTES]) {
    const { cx, value } = fresh();
    const peer = new Peer(value);
    await peer.connect();
    await peer.send(odd);
    await peer.send("", true);
    await peer.wait(cx);
    peer.mustNotFail(JSON.stringify(odd.slice(0, 20)));
    peer.close();
  }
}

async function survivesCloses(fresh: Use): Promise<void> {
  const steps: readonly ((peer: Peer) => unknown)[] = [
    (peer) => peer.connect(),
    (peer) => peer.send("GET / HTTP/1.1\r\n"),
    (peer) => peer.filter.onBlocked?.(),
    (peer) => peer.filter.onDrained?.(),
    (peer) => peer.filter.onDrain?.({ immediate: false, closes: () => true }),
    (peer) => peer.filter.onAgain?.(),
    (peer) => peer.send("\r\n", true),
  ];
  for (let count = 0; count <= steps.length; count++)
    for (const isSettled of [false, true]) {
      const { cx, value } = fresh();
      const peer = new Peer(value);
      for (const step of steps.slice(0, count)) {
        const result = step(peer);
        if (isSettled) await result;
      }
      peer.close();
      await peer.wait(cx);
      peer.mustNotFail(`closed after ${count} of ${steps.length} events`);
    }
}

async function leavesNothing(fresh: Use): Promise<void> {
  const { cx, value } = fresh();
  const after = async (connections: number): Promise<Map<string, number>> => {
    for (let k = 0; k < connections; k++) {
      const peer = new Peer(value);
      await peer.connect();
      if (k % 2 === 0) await peer.send("hello\r\n");
      peer.close();
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
  const peer = new Peer(fresh().value);
  await peer.connect();
  const text = "x".repeat(64 * 1024);
  const feed = async (chunks: number): Promise<void> => {
    for (let k = 0; k < chunks; k++) {
      // A client that is paused sends nothing.
      if (peer.connection.pauses > 0) return;
      await peer.send(text);
      peer.passed = "";
      peer.connection.take();
    }
  };
  await feed(16);
  const bytes = await grown(() => feed(384));
  peer.mustNotFail("much data");
  if (bytes > 12 * MIB)
    throw new Error(`24 MiB went by, and ${Math.round(bytes / MIB)} MiB of memory with it`);
  peer.close();
}

async function takesEveryCut(fresh: Use): Promise<void> {
  await everyChunking("GET /a\r\n", (chunks) =>
    withSeededRandom(async () => {
      const { cx, value } = fresh();
      const peer = new Peer(value);
      await peer.connect();
      for (const chunk of chunks) await peer.send(chunk);
      await peer.wait(cx);
      peer.mustNotFail(`cut as ${JSON.stringify(chunks)}`);
      const { passed, connection } = peer;
      const result = { passed, written: connection.take(), closed: connection.closed };
      peer.close();
      // After a close nobody is owed the bytes before it: how many went by depends on the cuts.
      return result.closed === undefined ? result : { closed: result.closed };
    }),
  );
}
