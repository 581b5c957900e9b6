import { createHash } from "node:crypto";
import { once } from "node:events";
import type net from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { COMMAND, EVENT, HOW, RELAYED } from "../inside/ring.ts";
import { Bench } from "./bench.ts";

/** More than the kernel takes for a peer on the same machine that reads nothing. */
const MUCH = 32 << 20;

let bench: Bench;
beforeEach(async () => {
  bench = new Bench();
  await bench.open();
});
afterEach(() => bench.close());

async function read(client: net.Socket, size: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let got = 0; got < size; ) {
    const piece: Buffer | null = client.read();
    if (piece === null) await once(client, "readable");
    else {
      pieces.push(piece);
      got += piece.length;
    }
  }
  return Buffer.concat(pieces);
}

/** A different byte at each place, so that what is lost or moved changes the hash. */
function much(): Buffer {
  const words = new Uint32Array(MUCH / 4);
  for (let k = 0; k < words.length; k++) words[k] = Math.imul(k, 2654435761);
  return Buffer.from(words.buffer);
}
const hash = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

it("what tied connections read goes from one to the other, without an event, and is counted", async () => {
  const [one, other] = bench.ids as [number, number];
  bench.command(COMMAND.RELAY, one, other, 1);
  const before = performance.now();
  const events = bench.events.length;
  bench.clients[0]!.write("hello");
  expect(String(await read(bench.clients[1]!, 5))).toBe("hello");
  bench.clients[1]!.write("you too");
  expect(String(await read(bench.clients[0]!, 7))).toBe("you too");
  bench.clients[0]!.write("bye");
  expect(String(await read(bench.clients[1]!, 3))).toBe("bye");
  expect(bench.events.length).toBe(events);
  expect([bench.relayed(one, RELAYED.BYTES), bench.relayed(one, RELAYED.SIZE)]).toEqual([8, 3]);
  expect([bench.relayed(other, RELAYED.BYTES), bench.relayed(other, RELAYED.SIZE)]).toEqual([7, 7]);
  expect(bench.relayed(one, RELAYED.AT)).toBeGreaterThan(before);

  bench.command(COMMAND.RELAY, one, other, 0);
  bench.clients[0]!.write("again");
  await bench.until(() => bench.has(EVENT.DATA, one));
  expect(bench.data).toEqual(["again"]);
});

it("a connection is not read while the other takes nothing, and every byte arrives", async () => {
  const [one, other] = bench.ids as [number, number];
  bench.command(COMMAND.RELAY, one, other, 1);
  const bytes = much();
  let written = false;
  bench.clients[0]!.end(bytes, () => {
    written = true;
  });
  await bench.until(() => bench.has(EVENT.BLOCKED, other));
  bench.command(COMMAND.PAUSE, one);
  const taken = bench.relayed(one, RELAYED.BYTES);
  expect([written, taken < MUCH]).toEqual([false, true]);
  // Read from the other side meanwhile, the relay goes on that way.
  bench.clients[1]!.write("still here");
  expect(String(await read(bench.clients[0]!, 10))).toBe("still here");
  expect(bench.relayed(one, RELAYED.BYTES)).toBe(taken);

  const got = read(bench.clients[1]!, MUCH);
  await bench.until(() => bench.has(EVENT.DRAINED, other));
  expect(bench.relayed(one, RELAYED.BYTES)).toBe(taken);
  bench.command(COMMAND.RESUME, one);
  expect(hash(await got)).toBe(hash(bytes));
  await bench.until(() => bench.has(EVENT.EOF, one));
  bench.command(COMMAND.END, other);
  await once(bench.clients[1]!, "end");
  expect(bench.data).toEqual([]);
  for (const id of [one, other]) bench.command(COMMAND.CLOSE, id, HOW.ABORT);
  await bench.until(() => bench.has(EVENT.CLOSED, one) && bench.has(EVENT.CLOSED, other));
  expect(bench.sockets.free.slots).toBe(2);
});

it("back-pressure needs no word of the isolate", async () => {
  const [one, other] = bench.ids as [number, number];
  bench.command(COMMAND.RELAY, one, other, 1);
  const bytes = much();
  bench.clients[0]!.write(bytes);
  await bench.until(() => bench.has(EVENT.BLOCKED, other));
  const taken = bench.relayed(one, RELAYED.BYTES);
  for (const op of [COMMAND.PAUSE, COMMAND.RESUME]) bench.command(op, one);
  bench.clients[1]!.write("still here");
  await read(bench.clients[0]!, 10);
  expect(bench.relayed(one, RELAYED.BYTES)).toBe(taken);
  expect(hash(await read(bench.clients[1]!, MUCH))).toBe(hash(bytes));
});

it("small pieces that the kernel does not take stay as they were while others are relayed", async () => {
  const [one, other] = bench.ids as [number, number];
  bench.command(COMMAND.RELAY, one, other, 1);
  const [source, sink] = bench.clients as [net.Socket, net.Socket];
  let sent = "";
  const send = async (piece: string): Promise<void> => {
    source.write(piece);
    sent += piece;
    // What comes the other way is relayed from the same memory.
    while (bench.relayed(one, RELAYED.BYTES) < sent.length) {
      sink.write("?".repeat(500));
      await read(source, 500);
    }
  };
  for (let k = 0; !bench.has(EVENT.UNSENT, other); k++) await send(String(k).padEnd(12_000, "."));
  for (let k = 0; k < 100; k++) await send(`${k},`);
  expect(bench.has(EVENT.BLOCKED, other)).toBe(false);
  expect(hash(await read(sink, sent.length))).toBe(hash(Buffer.from(sent)));
});

it("bytes that are read while the two are being tied are told at once, before others can pass them", async () => {
  const [one, other] = bench.ids as [number, number];
  const { crossings } = bench;
  bench.fillInput();
  bench.answer(COMMAND.RELAY, one, other, 1);
  bench.clients[0]!.write("early");
  let told: Promise<readonly string[]> | undefined;
  await bench.until(() => {
    // The crossing that makes room for them ties the two. What is scheduled after it comes later than this.
    if (bench.crossings > crossings)
      told ??= new Promise((resolve) => setImmediate(() => resolve(bench.data)));
    return told !== undefined;
  });
  expect(await told).toEqual(["early"]);
});

it("after one of two has closed, what the other sends is for the isolate", async () => {
  const [one, other] = bench.ids as [number, number];
  bench.command(COMMAND.RELAY, one, other, 1);
  bench.clients[0]!.resetAndDestroy();
  await bench.until(() => bench.has(EVENT.CLOSED, one));
  bench.clients[1]!.write("anybody?");
  await bench.until(() => bench.has(EVENT.DATA, other));
  expect(bench.data).toEqual(["anybody?"]);
});

it("refuses to tie a connection to itself, or to one that is not there", () => {
  const [one] = bench.ids as [number, number];
  bench.command(COMMAND.RELAY, one, one, 1);
  bench.command(COMMAND.RELAY, one, 0x7f00_0000, 1);
  expect(bench.sockets.counts.refused).toBe(2);
});
