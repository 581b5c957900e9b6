import { once } from "node:events";
import { afterEach, beforeEach, expect, it } from "vitest";
import { COMMAND, EVENT, SOCKET_ERRORS } from "../inside/ring.ts";
import { Bench } from "./bench.ts";

let bench: Bench;
beforeEach(async () => {
  bench = new Bench();
  await bench.open();
});
afterEach(() => bench.close());

const errorOf = (id: number) =>
  SOCKET_ERRORS[bench.events.find((event) => event.kind === EVENT.CLOSED && event.id === id)!.size];

it("a write that fails at once leaves the memory to the other commands of its flush", async () => {
  const [one, other] = bench.ids as [number, number];
  bench.command(COMMAND.PAUSE, one);
  bench.clients[0]!.resetAndDestroy();
  const { output } = bench;
  const { segments } = bench.sockets.free;
  bench.answer(COMMAND.WRITE, one, output, 5);
  bench.command(COMMAND.WRITE, other, output, 5);
  expect([bench.output, bench.sockets.free.segments]).toEqual([output, segments]);
  await Promise.all([
    bench.until(() => bench.has(EVENT.CLOSED, one)),
    once(bench.clients[1]!, "data"),
  ]);
  expect(errorOf(one)).toBe("ECONNRESET");
});

it("a connection that broke off is told with the error of its read, whatever was written after it", async () => {
  const [one, other] = bench.ids as [number, number];
  // Both are seen in one poll phase; the crossing after it comes before the close is told.
  bench.clients[0]!.resetAndDestroy();
  bench.clients[1]!.write("x");
  bench.answer(COMMAND.WRITE, one, bench.output, 5);
  await bench.until(() => bench.has(EVENT.CLOSED, one));
  expect(bench.has(EVENT.DATA, other)).toBe(true);
  expect(errorOf(one)).toBe("ECONNRESET");
});

it("connections that always have more to read take no more than their share of a turn of the event loop", async () => {
  const CHUNK = Buffer.alloc(8 << 20);
  for (const client of bench.clients) client.write(CHUNK);
  const read = () =>
    bench.events.reduce((sum, { kind, size }) => sum + (kind === EVENT.DATA ? size : 0), 0);
  let most = 0;
  for (let before = 0; before < 2 * CHUNK.length; ) {
    await new Promise(setImmediate);
    const now = read();
    most = Math.max(most, now - before);
    before = now;
  }
  expect(most).toBeLessThan(3 << 20);
});
