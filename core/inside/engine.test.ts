import {
  type Chunk,
  ConfigError,
  type Connection,
  type Definition,
  type DownstreamConnection,
  defineHttpFilter,
  defineNetworkFilter,
  defineService,
  type NetworkChain,
  type NetworkFilter,
  type SetupContext,
  stop,
  Type,
} from "@tsproxy/sdk";
import { expect, test } from "vitest";
import type { ListenerConfig, RuntimeConfig } from "../protocol.ts";
import { Engine } from "./engine.ts";
import { chunkMemory } from "./line-chunks.ts";
import { CLOSED_FLAG, COMMAND, createRing, EVENT, HOW, WORD } from "./ring.ts";
import { COUNTS_BYTES, LEDGER_BYTES } from "./shared-counts.ts";

/** Core's side of the ring, driven by a test: it pushes events and reads the engine's commands. */
class Driver {
  readonly ring: SharedArrayBuffer;
  readonly control: Int32Array;
  readonly memory: Buffer;
  readonly told: { name: string; value: Record<string, unknown> }[] = [];
  readonly engine: Engine;
  #input: number;
  #nextId = 100;
  #queue: number[][] = [];

  constructor(sizes = { events: 64, commands: 64, segments: 4, slots: 2 }) {
    this.ring = createRing(sizes);
    this.control = new Int32Array(this.ring);
    this.memory = Buffer.from(this.ring);
    this.#input = this.control[WORD.SEGMENTS]!;
    for (let k = 0; k < this.control[WORD.ID_COUNT]!; k++)
      this.control[(this.control[WORD.IDS]! >> 2) + k] = 1000 + k;
    this.engine = new Engine(
      this.ring,
      new SharedArrayBuffer(8 * 20_000),
      new SharedArrayBuffer(64),
      new SharedArrayBuffer(COUNTS_BYTES),
      new SharedArrayBuffer(LEDGER_BYTES),
      chunkMemory(),
      (name, text) => void this.told.push({ name, value: JSON.parse(text) }),
      { role: "worker", worker: 0, node: { id: "", cluster: "" } },
    );
  }

  event(kind: number, id: number, a = 0, b = 0): void {
    this.#queue.push([kind, id, a, b]);
  }
  text(kind: number, id: number, text: string): void {
    this.memory.write(text, this.#input, "latin1");
    this.event(kind, id, this.#input, text.length);
    this.#input += text.length;
  }
  accept(listener = "l", from = "192.0.2.1"): number {
    const id = this.#nextId++;
    this.text(EVENT.ACCEPTED, id, `${listener}|${from}|4000|127.0.0.1|80`);
    return id;
  }

  pass(ms: number): void {
    new Float64Array(this.ring)[WORD.NOW / 2]! += ms;
  }

  /** Runs crossings until the engine asks for no more; answers the commands as readable words. */
  run(): string[] {
    const commands: string[] = [];
    for (let turn = 0; turn < 1000; turn++) {
      const n = Math.min(this.#queue.length, this.control[WORD.EVENT_COUNT]!);
      const at = this.control[WORD.EVENTS]! >> 2;
      for (let k = 0; k < n; k++)
        for (let j = 0; j < 4; j++) this.control[at + k * 4 + j] = this.#queue[k]![j]!;
      this.control[WORD.OUT_START] =
        this.control[WORD.SEGMENTS]! + this.control[WORD.SEGMENT_SIZE]!;
      this.control[WORD.OUT_END] = this.control[WORD.OUT_START]! + this.control[WORD.SEGMENT_SIZE]!;
      const count = this.engine.run(n);
      this.#queue.splice(0, this.control[WORD.CONSUMED]!);
      for (let k = 0; k < count; k++)
        commands.push(this.#word((this.control[WORD.COMMANDS]! >> 2) + k * 4));
      if (this.#queue.length === 0 && this.control[WORD.AGAIN] === 0) {
        this.#input = this.control[WORD.SEGMENTS]!;
        return commands;
      }
    }
    throw new Error("the engine never comes to rest");
  }

  #word(i: number): string {
    const [op, id, a, b] = [
      this.control[i]!,
      this.control[i + 1]!,
      this.control[i + 2]!,
      this.control[i + 3]!,
    ];
    if (op === COMMAND.WRITE) return `write ${id} ${this.memory.toString("latin1", a, a + b)}`;
    if (op === COMMAND.CONNECT) return `connect ${id} ${this.memory.toString("latin1", a, a + b)}`;
    if (op === COMMAND.CLOSE) return `close ${id} ${Object.keys(HOW)[a]}`;
    const name = Object.entries(COMMAND)
      .find(([, code]) => code === op)?.[0]
      .toLowerCase();
    return `${name} ${id}`;
  }

  prepare(
    config: RuntimeConfig | undefined,
    packages: Record<string, Definition> = {},
    generation = 1,
  ) {
    for (const [name, definition] of Object.entries(packages)) this.engine.define(name, definition);
    return this.engine.prepare(generation, Object.keys(packages), [], config);
  }
  go(
    config: RuntimeConfig | undefined,
    packages: Record<string, Definition> = {},
    generation = 1,
  ): void {
    expect(this.prepare(config, packages, generation)).toEqual([]);
    this.engine.generations.commit({ ms: 1000, immediate: true });
  }
}

const listener = (
  filters: readonly [string, unknown][],
  over: Partial<ListenerConfig> = {},
): ListenerConfig => ({
  name: "l",
  statPrefix: "127.0.0.1_80",
  address: { ip: "127.0.0.1", port: 80 },
  direction: "UNSPECIFIED",
  listenerFilters: [],
  listenerFiltersTimeoutMs: 15_000,
  continueOnListenerFiltersTimeout: false,
  filterChains: [
    {
      name: "",
      match: {},
      filters: filters.map(([name, config]) => ({ name, package: `network/${name}`, config })),
    },
  ],
  defaultFilterChain: undefined,
  perConnectionBufferLimitBytes: 1 << 20,
  backlog: 128,
  source: "",
  ...over,
});
/** Waits until all settled promises have called back. */
const settled = async () => {
  for (let k = 0; k < 10; k++) await undefined;
};
const world = (
  listeners: ListenerConfig[],
  services: RuntimeConfig["services"] = [],
): RuntimeConfig => ({
  listeners,
  services,
  node: { id: "", cluster: "" },
});

/** A filter that writes back what it receives, behind a prefix from its config. */
const prefixer = (version: string) =>
  defineNetworkFilter({
    name: "prefixer",
    terminal: true,
    config: Type.Object({ prefix: Type.String() }),
    setup: (config) => {
      if (config.prefix === "bad") throw new ConfigError("prefix", "bad is not a prefix");
      return {
        create: (connection: DownstreamConnection) => ({
          onData: (chunk: Chunk) => {
            const bytes = Buffer.from(`${version}${config.prefix}${chunk.text()}`);
            connection.write(bytes, 0, bytes.length);
          },
        }),
      };
    },
  }) as Definition;

test("a new version of a package serves new connections, and the open one finishes on the old", () => {
  const driver = new Driver();
  driver.go(world([listener([["prefixer", { prefix: ":" }]])]), {
    "network/prefixer": prefixer("1"),
  });
  const old = driver.accept();
  driver.run();
  driver.go(undefined, { "network/prefixer": prefixer("2") }, 2);
  const fresh = driver.accept();
  driver.run();
  driver.text(EVENT.DATA, old, "a");
  driver.text(EVENT.DATA, fresh, "b");
  expect(driver.run()).toEqual([`write ${old} 1:a`, `write ${fresh} 2:b`]);
});

test("what has come in time is heard before the timers that are due, however late the crossing is", () => {
  const patient = defineNetworkFilter({
    name: "patient",
    terminal: true,
    config: Type.Object({}),
    setup: (_config, cx) => ({
      create(connection: DownstreamConnection) {
        const late = cx.timer(() => connection.close("abort"));
        late.arm(100);
        return {
          onData(chunk: Chunk) {
            late.cancel();
            connection.write(chunk.memory, chunk.at, chunk.end);
          },
        };
      },
    }),
  }) as Definition;
  const driver = new Driver();
  driver.go(world([listener([["patient", {}]])]), { "network/patient": patient });
  const [prompt, silent] = [driver.accept(), driver.accept()];
  driver.run();
  driver.pass(60_000);
  driver.text(EVENT.DATA, prompt, "here");
  expect(driver.run().sort()).toEqual([`close ${silent} ABORT`, `write ${prompt} here`]);
});

test("an IPv4 client of an IPv6 socket has its IPv4 address", () => {
  const teller = defineNetworkFilter({
    name: "teller",
    terminal: true,
    config: Type.Object({}),
    setup: () => ({
      create: (connection: DownstreamConnection) => ({
        onData: () => {
          const bytes = Buffer.from(connection.remoteAddress.ip);
          connection.write(bytes, 0, bytes.length);
        },
      }),
    }),
  }) as Definition;
  const driver = new Driver();
  driver.go(world([listener([["teller", {}]])]), { "network/teller": teller });
  const clients = ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "::ffff:0:1"];
  const ids = clients.map((from) => driver.accept("l", from));
  driver.run();
  for (const id of ids) driver.text(EVENT.DATA, id, "?");
  expect(driver.run().map((command) => command.split(" ").at(-1))).toEqual([
    "192.0.2.1",
    "192.0.2.1",
    "2001:db8::1",
    "::ffff:0:1",
  ]);
});

test("a setup that throws is refused with package, place and path, and nothing changes", () => {
  const driver = new Driver();
  driver.go(world([listener([["prefixer", { prefix: ":" }]])]), {
    "network/prefixer": prefixer("1"),
  });
  const refusals = driver.prepare(world([listener([["prefixer", { prefix: "bad" }]])]), {}, 2);
  expect(refusals).toEqual([
    {
      package: "network/prefixer",
      place: "/listeners/0/filterChains/0/filters/0/config",
      path: "prefix",
      message: "bad is not a prefix",
      stack: "",
    },
  ]);
  driver.engine.generations.commit({ ms: 1000, immediate: true });
  const id = driver.accept();
  driver.text(EVENT.DATA, id, "x");
  expect(driver.run()).toEqual([`write ${id} 1:x`]);
});

test("an aborted preparation leaves no trace and the next one works", () => {
  const driver = new Driver();
  driver.go(world([listener([["prefixer", { prefix: ":" }]])]), {
    "network/prefixer": prefixer("1"),
  });
  expect(driver.prepare(undefined, { "network/prefixer": prefixer("2") }, 2)).toEqual([]);
  driver.engine.generations.abort();
  driver.go(undefined, { "network/prefixer": prefixer("3") }, 3);
  const id = driver.accept();
  driver.text(EVENT.DATA, id, "x");
  expect(driver.run()).toEqual([`write ${id} 3:x`]);
});

test("the old generation is disposed when its last connection has ended, not before", () => {
  const driver = new Driver();
  const disposed: string[] = [];
  const counted = (version: string) =>
    defineNetworkFilter({
      name: "counted",
      config: Type.Object({}),
      setup: (_config, cx) => {
        cx.onDispose(() => disposed.push(version));
        return { create: () => ({}) };
      },
    }) as Definition;
  driver.go(world([listener([["counted", {}]])]), { "network/counted": counted("1") });
  const id = driver.accept();
  driver.run();
  driver.go(undefined, { "network/counted": counted("2") }, 2);
  expect(disposed).toEqual([]);
  driver.event(EVENT.CLOSED, id);
  expect(driver.run()).toEqual([`release ${id}`]);
  expect(disposed).toEqual(["1"]);
  driver.go(undefined, { "network/counted": counted("3") }, 3);
  expect(disposed).toEqual(["1", "2"]);
});

test("a filter that can take another config in place keeps its connections, and the rest drain", () => {
  const driver = new Driver();
  const drained: string[] = [];
  const named = (reconfigurable: boolean) =>
    defineNetworkFilter({
      name: "named",
      config: Type.Object({ name: Type.String() }),
      setup: (config) => {
        let name = config.name;
        return {
          create: (connection: DownstreamConnection): NetworkFilter => ({
            onData: () => {
              const bytes = Buffer.from(name);
              connection.write(bytes, 0, bytes.length);
            },
            onDrain: () => drained.push(name),
          }),
          ...(reconfigurable && {
            reconfigure: (next: unknown) => () => {
              name = (next as { name: string }).name;
            },
          }),
        };
      },
    }) as Definition;
  driver.go(world([listener([["named", { name: "a" }]])]), { "network/named": named(true) });
  const id = driver.accept();
  driver.run();
  driver.go(world([listener([["named", { name: "b" }]])]), {}, 2);
  driver.text(EVENT.DATA, id, "?");
  expect(driver.run()).toEqual([`write ${id} b`]);
  expect(drained).toEqual([]);
  driver.go(world([]), {}, 3);
  expect(drained).toEqual(["b"]);
});

test("what setups wait for holds the preparation back, and nothing else does", async () => {
  const driver = new Driver();
  let settle = () => {};
  const waiting = defineService({
    name: "waiting",
    runs: "everywhere",
    config: Type.Object({}),
    setup: (_config, cx) => {
      cx.waitFor(
        new Promise<void>((resolve) => {
          settle = resolve;
        }),
        "a promise",
      );
      return {};
    },
  }) as Definition;
  driver.prepare(world([], [{ package: "service/waiting", config: {} }]), {
    "service/waiting": waiting,
  });
  await Promise.resolve();
  expect(driver.told.some((t) => t.name === "prepared")).toBe(false);
  settle();
  await settled();
  expect(driver.told.at(-1)).toEqual({ name: "prepared", value: { generation: 1 } });
});

test("state passes from one generation to the next by handover", () => {
  const driver = new Driver();
  const seen: unknown[] = [];
  const keeper = (version: number) =>
    defineService({
      name: "keeper",
      config: Type.Object({}),
      setup: (_config, cx) => {
        seen.push(cx.previous);
        cx.onHandover(() => ({ from: version }));
        return {};
      },
    }) as Definition;
  driver.go(world([], [{ package: "service/keeper", config: {} }]), {
    "service/keeper": keeper(1),
  });
  driver.go(undefined, { "service/keeper": keeper(2) }, 2);
  expect(seen).toEqual([undefined, { from: 1 }]);
});

/** A filter that collects what it sees; `behave` decides what it returns. */
const scripted = (
  log: string[],
  behave: (text: string, chain: NetworkChain) => ReturnType<NonNullable<NetworkFilter["onData"]>>,
) =>
  defineNetworkFilter({
    name: "scripted",
    config: Type.Object({}),
    setup: () => ({
      create: (_connection, chain) => ({
        onData: (chunk, end) => {
          log.push(`first ${chunk.text()}${end ? " end" : ""}`);
          return behave(chunk.text(), chain);
        },
      }),
    }),
  }) as Definition;
const sink = (log: string[]) =>
  defineNetworkFilter({
    name: "sink",
    terminal: true,
    config: Type.Object({}),
    setup: () => ({
      create: () => ({
        onConnect: () => void log.push("sink connects"),
        onData: (chunk, end) => void log.push(`sink ${chunk.text()}${end ? " end" : ""}`),
      }),
    }),
  }) as Definition;

test("a filter that stops keeps later ones from the bytes until it resumes, and the order holds", () => {
  const driver = new Driver();
  const log: string[] = [];
  let held: NetworkChain | undefined;
  driver.go(
    world([
      listener([
        ["scripted", {}],
        ["sink", {}],
      ]),
    ]),
    {
      "network/scripted": scripted(log, (text, chain) => {
        if (text !== "a") return undefined;
        held = chain;
        return stop;
      }),
      "network/sink": sink(log),
    },
  );
  const id = driver.accept();
  driver.text(EVENT.DATA, id, "a");
  driver.text(EVENT.DATA, id, "b");
  driver.event(EVENT.EOF, id);
  expect(driver.run()).toEqual([]);
  expect(log).toEqual(["sink connects", "first a"]);
  held!.resumeReading();
  expect(driver.run()).toEqual([]);
  expect(log).toEqual([
    "sink connects",
    "first a",
    "sink a",
    "first b",
    "sink b",
    "first  end",
    "sink  end",
  ]);
});

test("while the chain is stopped reading goes on until the listener's limit is kept", () => {
  const driver = new Driver();
  const log: string[] = [];
  let held: NetworkChain | undefined;
  const scripts = scripted(log, (text, chain) => {
    if (text !== "123") return undefined;
    held = chain;
    return stop;
  });
  const filters: [string, object][] = [
    ["scripted", {}],
    ["sink", {}],
  ];
  driver.go(world([listener(filters, { perConnectionBufferLimitBytes: 8 })]), {
    "network/scripted": scripts,
    "network/sink": sink(log),
  });
  const id = driver.accept();
  driver.text(EVENT.DATA, id, "123");
  driver.text(EVENT.DATA, id, "4567");
  expect(driver.run()).toEqual([]);
  driver.text(EVENT.DATA, id, "8");
  expect(driver.run()).toEqual([`pause ${id}`]);
  held!.resumeReading();
  expect(driver.run()).toEqual([`resume ${id}`]);
  expect(log.filter((line) => line.startsWith("sink"))).toEqual([
    "sink connects",
    "sink 123",
    "sink 4567",
    "sink 8",
  ]);
});

test("a promise stops the chain, and a rejected one closes the connection", async () => {
  const driver = new Driver();
  const log: string[] = [];
  driver.go(
    world([
      listener([
        ["scripted", {}],
        ["sink", {}],
      ]),
    ]),
    {
      "network/scripted": scripted(log, (text) =>
        text === "ok" ? Promise.resolve() : Promise.reject(new Error("no")),
      ),
      "network/sink": sink(log),
    },
  );
  const id = driver.accept();
  driver.text(EVENT.DATA, id, "ok");
  driver.run();
  expect(log.at(-1)).toBe("first ok");
  await settled();
  driver.run();
  expect(log.at(-1)).toBe("sink ok");
  driver.text(EVENT.DATA, id, "bad");
  driver.run();
  await settled();
  expect(driver.run()).toEqual([`close ${id} ABORT`]);
});

test("a filter that throws costs its own connection only", () => {
  const driver = new Driver();
  driver.go(world([listener([["thrower", {}]])]), {
    "network/thrower": defineNetworkFilter({
      name: "thrower",
      config: Type.Object({}),
      setup: () => ({
        create: (connection) => ({
          onData: (chunk) => {
            if (chunk.text() === "throw") throw new Error("on purpose");
            connection.write(chunk.memory, chunk.at, chunk.end);
          },
        }),
      }),
    }) as Definition,
  });
  const [a, b] = [driver.accept(), driver.accept()];
  driver.text(EVENT.DATA, a, "throw");
  driver.text(EVENT.DATA, b, "fine");
  expect(driver.run().sort()).toEqual([`close ${a} ABORT`, `write ${b} fine`]);
  expect(driver.told.find((t) => t.name === "fault")?.value.reason).toBe("on purpose");
});

test("far more output than the ring holds arrives whole and in order", () => {
  const driver = new Driver({ events: 8, commands: 8, segments: 2, slots: 2 });
  const big = Buffer.alloc(1_000_000, "0123456789");
  driver.go(world([listener([["flood", {}]])]), {
    "network/flood": defineNetworkFilter({
      name: "flood",
      config: Type.Object({}),
      setup: () => ({
        create: (connection) => ({
          onData: () => {
            connection.write(big, 0, big.length);
            connection.close("flush");
          },
        }),
      }),
    }) as Definition,
  });
  const id = driver.accept();
  driver.text(EVENT.DATA, id, "go");
  const commands = driver.run();
  const written = commands
    .filter((c) => c.startsWith("write"))
    .map((c) => c.slice(`write ${id} `.length));
  expect(written.join("") === big.toString()).toBe(true);
  expect(commands.at(-1)).toBe(`close ${id} FLUSH`);
});

test("output stops while the socket is blocked and goes on when it has drained", () => {
  const driver = new Driver();
  let connection: DownstreamConnection | undefined;
  driver.go(world([listener([["holder", {}]])]), {
    "network/holder": defineNetworkFilter({
      name: "holder",
      config: Type.Object({}),
      setup: () => ({
        create: (c) => {
          connection = c;
          return {};
        },
      }),
    }) as Definition,
  });
  const id = driver.accept();
  driver.event(EVENT.BLOCKED, id);
  driver.run();
  expect(connection!.blocked).toBe(true);
  const bytes = Buffer.from("late");
  const before = connection!.bytesSent;
  connection!.write(bytes, 0, 4);
  expect(driver.run()).toEqual([]);
  driver.event(EVENT.DRAINED, id);
  expect(driver.run()).toEqual([`write ${id} late`]);
  expect(connection!.bytesSent - before).toBe(4);
  expect(connection!.blocked).toBe(false);
});

test("a closed connection waits for a peer that takes its bytes, however slowly, and is aborted if it takes none", () => {
  const driver = new Driver({ events: 8, commands: 8, segments: 2, slots: 2 });
  const clock = new Float64Array(driver.ring, WORD.NOW * 4, 1);
  const connections: DownstreamConnection[] = [];
  driver.go(world([listener([["holder", {}]])]), {
    "network/holder": defineNetworkFilter({
      name: "holder",
      config: Type.Object({}),
      setup: () => ({
        create: (connection) => {
          connections.push(connection);
          return {};
        },
      }),
    }) as Definition,
  });
  const [slow, stuck] = [driver.accept(), driver.accept()];
  for (const id of [slow, stuck]) driver.event(EVENT.BLOCKED, id);
  driver.run();
  for (const connection of connections) {
    connection.write(new Uint8Array(600_000), 0, 600_000);
    connection.close("flush");
  }
  expect(driver.run()).toEqual([]);
  driver.event(EVENT.DRAINED, slow);
  // The ring takes eight events at a time: some bytes are written before this socket is blocked again.
  for (let k = 0; k < 7; k++) driver.event(EVENT.BLOCKED, stuck);
  driver.event(EVENT.BLOCKED, slow);
  clock[0]! += 50_000;
  const said = driver.run();
  clock[0]! += 20_000;
  said.push(...driver.run());
  expect(said.filter((command) => command.startsWith("close"))).toEqual([`close ${stuck} ABORT`]);
  driver.event(EVENT.DRAINED, slow);
  expect(driver.run().at(-1)).toBe(`close ${slow} FLUSH`);
});

test("a hundred connections opened in one turn all get an id in time", () => {
  const driver = new Driver({ events: 8, commands: 8, segments: 2, slots: 2 });
  driver.go(world([listener([["dialler", {}]])]), {
    "network/dialler": defineNetworkFilter({
      name: "dialler",
      config: Type.Object({}),
      setup: (_config, cx) => ({
        create: () => ({
          onConnect: () => {
            for (let k = 0; k < 100; k++) {
              cx.connect(
                { ip: "192.0.2.7", port: k },
                { onData: () => {}, onEof: () => {}, onClosed: () => {} },
                { timeoutMs: 0 },
              );
            }
          },
        }),
      }),
    }) as Definition,
  });
  // Ids are offered by core in each crossing; the driver offers the same ones again, which is enough to count.
  driver.accept();
  const connects = driver.run().filter((c) => c.startsWith("connect"));
  expect(new Set(connects.map((c) => c.split("|")[1])).size).toBe(100);
});

test("who counts sockets is told of a close when core has closed, others in the turn that closes", () => {
  const driver = new Driver();
  const told: string[] = [];
  const made: Connection[] = [];
  const dial = (cx: SetupContext, name: string, awaitsClose: boolean) =>
    cx.connect(
      { ip: "192.0.2.7", port: 80 },
      { onData: () => {}, onEof: () => {}, onClosed: ({ by }) => void told.push(`${name} ${by}`) },
      { timeoutMs: 0, awaitsClose },
    );
  driver.go(world([listener([["dialler", {}]])]), {
    "network/dialler": defineNetworkFilter({
      name: "dialler",
      config: Type.Object({}),
      setup: (_config, cx) => ({
        create: () => ({
          onConnect: () => void made.push(dial(cx, "counted", true), dial(cx, "other", false)),
        }),
      }),
    }) as Definition,
  });
  driver.accept();
  const [counted] = driver.run().filter((command) => command.startsWith("connect"));
  const id = Number(counted!.split(" ")[1]);
  for (const connection of made) connection.close("flush");
  expect(driver.run()).toContain(`close ${id} FLUSH`);
  expect(told).toEqual(["other local"]);
  driver.event(EVENT.CLOSED, id, CLOSED_FLAG.LOCAL);
  driver.run();
  expect(told).toEqual(["other local", "counted local"]);
});

test("a package of another kind is refused by name", () => {
  const driver = new Driver();
  const http = defineHttpFilter({
    name: "x",
    config: Type.Object({}),
    setup: () => () => ({}),
  }) as Definition;
  const refusals = driver.prepare(world([listener([["x", {}]])]), { "network/x": http });
  expect(refusals[0]!.message).toBe('no network package "network/x"');
});

test("who writes again the moment that all is written gets in line again", () => {
  const driver = new Driver();
  let left = 12;
  const flood = defineNetworkFilter({
    name: "flood",
    config: Type.Object({}),
    setup: () => ({
      create: (connection: DownstreamConnection): NetworkFilter => {
        const pour = () => {
          while (left > 0 && !connection.blocked) {
            left--;
            connection.write(new Uint8Array(100_000), 0, 100_000);
          }
        };
        return { onData: pour, onDrained: pour };
      },
    }),
  }) as Definition;
  driver.go(world([listener([["flood", {}]])]), { "network/flood": flood });
  const id = driver.accept();
  driver.text(EVENT.DATA, id, "?");
  const written = driver.run().reduce((sum, command) => sum + command.split(" ")[2]!.length, 0);
  expect(written).toBe(1_200_000);
});
