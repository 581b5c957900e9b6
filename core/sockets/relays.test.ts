import { createHash } from "node:crypto";
import { once } from "node:events";
import net from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { COMMAND, createRing, EVENT, HOW, indexOf, RELAYED, WORD } from "../inside/ring.ts";
import { Crossing } from "./crossing.ts";
import { Sockets } from "./sockets.ts";
import { onAccepted } from "./stream-handle.ts";

/** More than the kernel takes for a peer on the same machine that reads nothing. */
const MUCH = 32 << 20;

/** A worker with two clients. The test is its isolate: it sees the events, and its commands are run at once. */
class Bench {
  readonly events: { readonly kind: number; readonly id: number; readonly text: string }[] = [];
  readonly ids: number[] = [];
  readonly clients: net.Socket[] = [];
  readonly sockets: Sockets;
  readonly #words: Int32Array;
  readonly #crossing: Crossing;
  readonly #server = net.createServer();
  #onEvent: () => void = () => {};
  #commands: number[] = [];

  constructor() {
    const ring = createRing({ events: 8, commands: 8, segments: 2, slots: 2 });
    this.#words = new Int32Array(ring);
    this.#crossing = new Crossing(ring, (count) => this.#run(count));
    this.sockets = new Sockets(this.#crossing, (error) => {
      throw error;
    });
  }

  async open(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    onAccepted(this.#server, (handle) => this.sockets.take("l", handle));
    const { port } = this.#server.address() as net.AddressInfo;
    for (let k = 0; k < 2; k++) {
      const client = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
      client.on("error", () => {});
      this.clients.push(client);
      await this.until(() => this.ids.length > k);
    }
  }

  #run(count: number): number {
    const words = this.#words;
    for (let i = words[WORD.EVENTS]! >> 2, k = 0; k < count; k++, i += 4) {
      const [kind, id, at, size] = [words[i]!, words[i + 1]!, words[i + 2]!, words[i + 3]!];
      if (kind === EVENT.ACCEPTED) this.ids.push(id);
      const text = kind === EVENT.DATA ? this.#crossing.text(at, size) : "";
      this.events.push({ kind, id, text });
    }
    words.set(this.#commands, words[WORD.COMMANDS]! >> 2);
    words[WORD.CONSUMED] = count;
    words[WORD.AGAIN] = 0;
    words[WORD.WAKE_IN] = -1;
    const commands = this.#commands.length / 4;
    this.#commands = [];
    this.#onEvent();
    return commands;
  }

  command(op: number, id: number, a = 0, b = 0): void {
    this.#commands.push(op, id, a, b);
    this.#crossing.poke();
  }

  /** Settles once this holds; looks at every crossing. */
  until(holds: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#onEvent = () => {
        if (holds()) resolve();
      };
      this.#onEvent();
    });
  }

  has(kind: number, id: number): boolean {
    return this.events.some((event) => event.kind === kind && event.id === id);
  }

  get data(): string[] {
    return this.events.filter(({ kind }) => kind === EVENT.DATA).map(({ text }) => text);
  }

  relayed(id: number, cell: number): number {
    const at = (this.#words[WORD.RELAYED]! >> 3) + indexOf(id) * RELAYED.CELLS;
    return new Float64Array(this.#words.buffer)[at + cell]!;
  }

  close(): void {
    for (const client of this.clients) client.destroy();
    this.sockets.destroy();
    this.#server.close();
  }
}

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
