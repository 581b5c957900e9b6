import { Chunk, type ConnectionHandler, type NetworkFilter, type Relay } from "@tsproxy/sdk";
import { beforeEach, expect, test } from "vitest";
import type { SocketConnection } from "./connection.ts";
import { ConnectionTable } from "./connection-table.ts";
import { Io } from "./io.ts";
import { NetworkChainRun } from "./network-chain.ts";
import { COMMAND, createRing, indexOf, RELAYED, WORD } from "./ring.ts";
import { TimerWheel } from "./timers.ts";

const ring = createRing({ events: 8, commands: 64, segments: 2, slots: 2 });
const control = new Int32Array(ring);
const cells = new Float64Array(ring, control[WORD.RELAYED]!);
const ADDRESS = { ip: "192.0.2.1", port: 1 };
let wheel: TimerWheel;
let io: Io;
let table: ConnectionTable;
let told: string[];
let faults: unknown[];
beforeEach(() => {
  io = new Io(ring);
  wheel = new TimerWheel(
    (error) => faults.push(error),
    () => {},
  );
  table = new ConnectionTable(io, wheel, (error) => faults.push(error));
  told = [];
  faults = [];
  for (let k = 0; k < control[WORD.ID_COUNT]!; k++)
    control[(control[WORD.IDS]! >> 2) + k] = 100 + k;
  control[WORD.OUT_START] = control[WORD.SEGMENTS]! + control[WORD.SEGMENT_SIZE]!;
  control[WORD.OUT_END] = control[WORD.OUT_START]! + control[WORD.SEGMENT_SIZE]!;
  io.begin();
});

/** Ends the crossing and begins the next. Answers the commands about relays. */
function relayCommands(): string[] {
  io.end();
  const said: string[] = [];
  for (let k = 0; k < io.commandCount; k++) {
    const [op, id, other, on] = control.subarray((control[WORD.COMMANDS]! >> 2) + k * 4);
    if (op === COMMAND.RELAY) said.push(`${id} ${other} ${on === 1 ? "on" : "off"}`);
  }
  io.begin();
  return said;
}

function established(handler: Partial<ConnectionHandler> = {}): SocketConnection {
  const nobody = { onData() {}, onEof() {}, onClosed() {} };
  const connection = table.connect(ADDRESS, { ...nobody, ...handler }, { timeoutMs: 0 });
  table.turn((_, call) => call());
  connection.onConnected(ADDRESS);
  return connection;
}

const teller = (name: string): Partial<ConnectionHandler> => ({
  onRelayed: (bytes, size, at) => told.push(`${name} ${bytes} ${size} ${at}`),
  onClosed: () => told.push(`${name} closed`),
});

/** The last filter of a client's chain hands it over. */
function handOver(
  upstream: SocketConnection,
  ...before: NetworkFilter[]
): { client: SocketConnection; relay: Relay | undefined } {
  const client = established();
  const run = new NetworkChainRun(client, 0, () => {});
  let relay: Relay | undefined;
  const last = {
    ...teller("client"),
    onClose: () => told.push("client closed"),
    onConnect: () => {},
  } as NetworkFilter;
  const make = (create: (c: unknown, chain: never) => NetworkFilter) => {
    const value = { create };
    const current = { value, number: 1, acquire() {}, release() {} };
    return { ref: { name: "", package: "", config: {} }, current };
  };
  const slots = before.map((filter) => make(() => filter));
  const lastSlot = make((_, chain: { relay(u: SocketConnection): Relay | undefined }) => {
    last.onConnect = () => {
      relay = chain.relay(upstream);
    };
    return last;
  });
  client.handler = run;
  run.start([...slots, lastSlot] as never);
  return { client, relay };
}

/** Plays core: it has passed on a read of `size` bytes. */
function passOn(connection: SocketConnection, size: number, at: number): void {
  const i = indexOf(connection.id) * RELAYED.CELLS;
  cells[i + RELAYED.BYTES]! += size;
  cells[i + RELAYED.SIZE] = size;
  cells[i + RELAYED.AT] = at;
}

test("core is asked to relay once, and to stop when one of the two is closed", () => {
  const upstream = established();
  const { client, relay } = handOver(upstream);
  expect(relay).toBeDefined();
  expect(relayCommands()).toEqual([`${upstream.id} ${client.id} on`]);
  client.close("flush");
  expect(relayCommands()).toEqual([`${upstream.id} ${client.id} off`]);
  upstream.close("flush");
  expect(relayCommands()).toEqual([]);
});

test.each([
  ["reads", { onData() {} }],
  ["writes", { onWrite() {} }],
])("a filter before the last that sees %s goes on seeing them", (_, filter) => {
  expect(handOver(established(), filter).relay).toBeUndefined();
  expect(relayCommands()).toEqual([]);
});

test("a filter that sees neither is no hindrance", () => {
  expect(handOver(established(), { onConnect() {} }).relay).toBeDefined();
});

test("an encrypted connection is not relayed, nor one that is closing, nor one that is relayed already", () => {
  const encrypted = established();
  encrypted.startTls("{}", new Uint8Array(0));
  const closing = established();
  closing.closeDelayed(1000);
  const taken = established();
  handOver(taken);
  for (const upstream of [encrypted, closing, taken])
    expect(handOver(upstream).relay).toBeUndefined();
});

test("while bytes are kept for one of the two, core relays nothing that could come before them", () => {
  const upstream = established();
  const { client } = handOver(upstream);
  relayCommands();
  // They were read before the relay began, and find no room.
  const bytes = new Uint8Array(control[WORD.SEGMENT_SIZE]! + 1);
  upstream.write(bytes, 0, bytes.length);
  expect(relayCommands()).toEqual([`${upstream.id} ${client.id} off`]);
  for (let crossing = 0; crossing < 9 && upstream.keeps; crossing++) {
    table.turn((_, call) => call());
    if (upstream.keeps) expect(relayCommands()).toEqual([]);
  }
  expect(relayCommands()).toEqual([`${upstream.id} ${client.id} on`]);
});

test("both sides are told what has passed once a second, when asked, and before they are closed", () => {
  const upstream = established(teller("upstream"));
  const { client, relay } = handOver(upstream);
  passOn(client, 100, 5);
  passOn(client, 20, 6);
  wheel.advance(1010);
  expect(told).toEqual(["upstream 0 0 0", "client 120 20 6"]);
  expect([client.bytesReceived, client.bytesSent]).toEqual([120, 0]);
  expect([upstream.bytesReceived, upstream.bytesSent]).toEqual([0, 120]);
  wheel.advance(3000);
  expect(told.splice(0)).toHaveLength(2);

  passOn(upstream, 7, 3001);
  relay!.settle();
  relay!.settle();
  expect(told.splice(0)).toEqual(["upstream 7 7 3001", "client 0 20 6"]);

  passOn(upstream, 8, 3002);
  upstream.onClosed(false, "ECONNRESET", false);
  expect(told.splice(0)).toEqual(["upstream 8 8 3002", "client 0 20 6", "upstream closed"]);
  expect(client.bytesSent).toBe(15);
});

test("what a connection had relayed does not count for the next of its index", () => {
  const upstream = established();
  passOn(upstream, 1000, 1);
  const { relay } = handOver(upstream);
  passOn(upstream, 3, 2);
  relay!.settle();
  expect(upstream.bytesReceived).toBe(3);
});

test("a hook that throws costs its connection, and the other is told still", () => {
  const upstream = established({
    onRelayed() {
      throw new Error("odd");
    },
  });
  const { client, relay } = handOver(upstream);
  passOn(client, 1, 1);
  relay!.settle();
  expect([upstream.open, client.open, faults.map(String)]).toEqual([false, true, ["Error: odd"]]);
  expect(told).toEqual(["client 1 1 1"]);
});

test("a relayed connection still brings its handler what core cannot pass on", () => {
  let got = 0;
  const upstream = established({
    onData: (chunk) => {
      got += chunk.length;
    },
  });
  handOver(upstream);
  upstream.onData(new Chunk(new Uint8Array(5), 0, 5));
  expect([got, upstream.bytesReceived]).toEqual([5, 5]);
});
