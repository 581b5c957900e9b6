import {
  Chunk,
  type DownstreamConnection,
  type NetworkChain,
  type NetworkFilter,
  stop,
} from "@tsproxy/sdk";
import { beforeEach, expect, test } from "vitest";
import type { SocketConnection } from "./connection.ts";
import { ConnectionTable } from "./connection-table.ts";
import { Io } from "./io.ts";
import { NetworkChainRun } from "./network-chain.ts";
import { COMMAND, createRing, WORD } from "./ring.ts";
import { TimerWheel } from "./timers.ts";

type Make = (connection: DownstreamConnection, chain: NetworkChain) => NetworkFilter;

const control = new Int32Array(createRing({ events: 64, commands: 64, segments: 4, slots: 2 }));
const memory = Buffer.from(control.buffer);
let io: Io;
let wheel: TimerWheel;
let table: ConnectionTable;
let faults: unknown[];
beforeEach(() => {
  io = new Io(control.buffer as SharedArrayBuffer);
  wheel = new TimerWheel(
    () => {},
    () => {},
  );
  faults = [];
  table = new ConnectionTable(io, wheel, (error) => faults.push(error));
  control[WORD.OUT_START] = control[WORD.SEGMENTS]! + control[WORD.SEGMENT_SIZE]!;
  control[WORD.OUT_END] = control[WORD.OUT_START]! + control[WORD.SEGMENT_SIZE]!;
  io.begin();
});

/** A connection with these filters; the test writes as the last one. */
function open(...makes: readonly Make[]): SocketConnection {
  const run: NetworkChainRun = new NetworkChainRun(
    table.connect(
      { ip: "192.0.2.1", port: 1 },
      { onData() {}, onEof() {}, onClosed() {} },
      { timeoutMs: 0 },
    ),
    0,
    () => {},
  );
  const slots = makes.map((create) => {
    const value = { create };
    const current = { value, number: 1, acquire() {}, release() {} };
    return { ref: { name: "", package: "", config: {} }, current };
  });
  run.connection.handler = run;
  run.start(slots as never);
  commands();
  return run.connection;
}

/** The commands since the last call: bytes of writes, and the names of other commands. */
function commands(): string[] {
  io.end();
  const said: string[] = [];
  for (let k = 0; k < io.commandCount; k++) {
    const i = (control[WORD.COMMANDS]! >> 2) + k * 4;
    const [op, , at, size] = [control[i], control[i + 1], control[i + 2]!, control[i + 3]!];
    if (op === COMMAND.WRITE) said.push(memory.toString("latin1", at, at + size));
    else said.push(Object.entries(COMMAND).find(([, code]) => code === op)![0]);
  }
  io.begin();
  return said;
}

const settled = async (): Promise<void> => {
  for (let k = 0; k < 10; k++) await undefined;
};

const write = (connection: DownstreamConnection, text: string): void => {
  const bytes = Buffer.from(text);
  connection.write(bytes, 0, bytes.length);
};

/** Puts its mark behind what it sees. */
const marks =
  (mark: string): Make =>
  () => ({
    onWrite: (chunk, endStream) => {
      chunk.replace(Buffer.from(`${chunk.text()}${mark}${endStream ? "." : ""}`));
    },
  });

test("the last filter sees what is written first, and FIN passes them all", () => {
  const connection = open(marks("a"), () => ({}), marks("c"));
  write(connection, "x");
  connection.end();
  expect(commands()).toEqual(["xcac.a.", "END"]);
});

test("what is put together in place passes the filters too", () => {
  const connection = open(marks("!"));
  const output = connection.reserve(8);
  output.memory.set(Buffer.from("hi"), output.at);
  output.at += 2;
  connection.commit(output);
  expect(commands()).toEqual(["hi!"]);
});

test("a promise holds back what follows, and the connection is blocked until it settles", async () => {
  let settle: (bytes: Uint8Array) => void = () => {};
  let asked = 0;
  const connection = open(() => ({
    onWrite: () => {
      if (asked++ > 0) return undefined;
      return new Promise<Uint8Array>((resolve) => {
        settle = resolve;
      });
    },
  }));
  const told: string[] = [];
  Object.assign(connection.handler, {
    onBlocked: () => told.push("blocked"),
    onDrained: () => told.push("drained"),
  });
  write(connection, "one ");
  write(connection, "two ");
  write(connection, "three");
  connection.close("flush");
  expect([commands(), connection.blocked, told]).toEqual([[], true, ["blocked"]]);
  settle(Buffer.from("1 "));
  await settled();
  expect(commands()).toEqual(["1 two three", "CLOSE"]);
  expect([connection.open, asked]).toEqual([false, 2]);
});

test("a filter that stops sends what it likes, past itself and before what it is asked about", () => {
  let own: NetworkChain | undefined;
  const connection = open(marks("a"), (_connection, chain) => {
    own = chain;
    return {
      onWrite: (chunk) => {
        chain.injectWrite(Buffer.from("<"));
        if (chunk.text() === "keep") return stop;
        return undefined;
      },
    };
  });
  write(connection, "x");
  write(connection, "keep");
  expect(commands()).toEqual(["<axa<a"]);
  own!.injectWrite(Buffer.from("late"), true);
  expect(commands()).toEqual(["latea.", "END"]);
});

test("a filter that throws, or whose promise is rejected or never settled, costs its connection", async () => {
  const answers: readonly (() => Promise<void>)[] = [
    () => {
      throw new Error("thrown");
    },
    () => Promise.reject(new Error("rejected")),
    () => new Promise(() => {}),
  ];
  for (const onWrite of answers) {
    const connection = open(() => ({ onWrite }));
    write(connection, "x");
    await settled();
    wheel.advance(wheel.now + 301_000);
    expect([commands(), connection.open]).toEqual([["CLOSE"], false]);
  }
  expect(faults.map((error) => (error as Error).message)).toEqual([
    "thrown",
    "rejected",
    "a filter's promise was pending for 300 s",
  ]);
});

test.each([
  ["null", null, "null; return nothing, stop or a promise"],
  ["a string", "x", '"x"; return nothing, stop or a promise'],
  ["a promise of a string", Promise.resolve("x"), '"x"; return nothing, stop or bytes'],
  ["a promise of null", Promise.resolve(null), "null; return nothing, stop or bytes"],
])(
  "a filter that answers %s costs its connection, which passes none of it on",
  async (_, answer, told) => {
    const writes = open(() => ({ onWrite: () => answer as never }));
    write(writes, "a");
    await settled();
    expect([commands(), writes.open]).toEqual([["CLOSE"], false]);
    const seen: string[] = [];
    const last = { onData: (chunk: Chunk) => void seen.push(chunk.text()) };
    const reads = open(
      () => ({ onData: () => answer as never }),
      () => last,
    );
    const bytes = Buffer.from("b");
    try {
      reads.handler.onData(new Chunk(bytes, 0, 1));
    } catch (error) {
      // The table of connections catches what a hook throws.
      reads.fail(error);
    }
    await settled();
    expect([reads.open, seen]).toEqual([false, []]);
    const message = `it returned ${told}`;
    expect(faults.map((error) => (error as Error).message)).toEqual([message, message]);
  },
);

test("a connection without such a filter writes as before", () => {
  const connection = open(() => ({}));
  write(connection, "x");
  expect(commands()).toEqual(["x"]);
});
