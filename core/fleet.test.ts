import { readFileSync } from "node:fs";
import { expect, test, vi } from "vitest";
import { Fleet, type FleetEvents } from "./fleet.ts";
import {
  BEAT,
  type FromWorker,
  type ListenerConfig,
  type RuntimeConfig,
  socketName,
  type ToWorker,
} from "./protocol.ts";
import type { Change } from "./reload/stage.ts";
import type { Thread, ThreadEvents } from "./thread.ts";

/** A thread that answers as a worker does, unless a test takes over. */
class FakeThread implements Thread {
  readonly name: string;
  readonly memory = {
    stats: new SharedArrayBuffer(8),
    beat: new SharedArrayBuffer(64),
    ledger: new SharedArrayBuffer(4),
    lines: new SharedArrayBuffer(4),
  };
  /** All but the ends of socket pairs, which come whenever the system has made them. */
  readonly got: ToWorker[] = [];
  readonly role: "worker" | "control";
  readonly index: number;
  readonly events: ThreadEvents;
  answer: (message: ToWorker) => FromWorker | undefined = usually;

  constructor(role: "worker" | "control", index: number, events: ThreadEvents) {
    this.role = role;
    this.index = index;
    this.events = events;
    this.name = `${role} ${index}`;
  }
  post(message: ToWorker): void {
    if ("fd" in message) return;
    this.got.push(message);
    const answer = this.answer(message);
    if (answer !== undefined) queueMicrotask(() => this.events.onMessage(answer));
  }
  kill(reason: string): void {
    this.events.onExit(reason);
  }
  types(): string[] {
    return this.got.map((message) => message.type);
  }
}

function usually(message: ToWorker): FromWorker | undefined {
  switch (message.type) {
    case "prepare":
      return { type: "prepared", generation: message.generation };
    case "commit":
      return { type: "committed", generation: message.generation };
    case "listen":
      return {
        type: "listening",
        listeners: message.listeners.map(({ name, address }) => ({
          name,
          address: { ...address, port: address.port === 0 ? 4321 : address.port },
        })),
      };
    case "drain":
      return { type: "drained" };
    default:
      return undefined;
  }
}

function fleetOf(concurrency: number, events: Partial<FleetEvents> = {}) {
  const threads: FakeThread[] = [];
  const fleet = new Fleet(
    (role, index, thread) => {
      threads.push(new FakeThread(role, index, thread));
      return threads.at(-1)!;
    },
    {
      onLog: () => {},
      onFault: () => {},
      onStats: () => {},
      onLines: () => {},
      onCall: async () => undefined,
      onLost: () => {},
      onStatsLost: () => {},
      ...events,
    },
    concurrency,
  );
  return { fleet, threads };
}

function change(generation: number, listeners: readonly ListenerConfig[] = []): Change {
  const config: RuntimeConfig = { listeners, services: [], node: { id: "", cluster: "" } };
  const code = `v${generation}`;
  const module = { package: "http/a", group: "builtin", code, filename: "a", hash: code };
  return { generation, modules: [module], removed: [], config };
}

function listener(name: string, port: number, thread?: "control"): ListenerConfig {
  return {
    name,
    address: { ip: "127.0.0.1", port },
    ...(thread && { thread }),
  } as unknown as ListenerConfig;
}

async function serve(fleet: Fleet, generation: number, listeners: readonly ListenerConfig[] = []) {
  expect(await fleet.prepare(change(generation, listeners))).toEqual([]);
  await fleet.commit(generation);
  return fleet.listen(listeners);
}

test("tells when a thread that was busy has come to rest", () => {
  const onRested = vi.fn();
  const { threads } = fleetOf(1, { onRested });
  threads[1]!.events.onMessage({ type: "rested" });
  expect(onRested).toHaveBeenCalledOnce();
});

test("a file that one thread watches is looked at for all threads", async () => {
  const { threads } = fleetOf(2);
  const path = import.meta.filename;
  threads[1]!.events.onMessage({ type: "watch_file", path, seen: "" });
  const bytes = readFileSync(path);
  await vi.waitFor(
    () => {
      for (const { got } of threads)
        expect(got).toMatchObject([{ type: "files_found", files: [{ path, bytes }] }]);
    },
    { timeout: 30_000 },
  );
});

test("a generation goes to all threads, and is ready when all are", async () => {
  const { fleet, threads } = fleetOf(2);
  await serve(fleet, 1);
  expect(threads.map((t) => t.name)).toEqual(["worker 0", "worker 1", "control 2"]);
  for (const thread of threads) expect(thread.types()).toEqual(["prepare", "commit"]);
});

test("a refusal is told while others still wait, for what the refusing thread would have said", async () => {
  const { fleet, threads } = fleetOf(1);
  threads[0]!.answer = () => ({ type: "staged", generation: 1, brought: "[]" });
  const refusal = { package: "http/a", message: "no", path: "", place: "", stack: "" };
  threads[1]!.answer = () => ({ type: "refused", generation: 1, refusals: [refusal] });
  expect(await fleet.prepare(change(1))).toEqual([refusal]);
});

test("listeners that services bring along are told once, and added on the control thread by its own numbers", async () => {
  const { fleet, threads } = fleetOf(1);
  const staged = JSON.stringify([{ name: "admin" }]);
  for (const thread of threads)
    thread.answer = (message) => {
      if (message.type !== "prepare") return usually(message);
      setImmediate(() => thread.events.onMessage({ type: "prepared", generation: 1 }));
      return { type: "staged", generation: 1, brought: staged };
    };
  expect(await fleet.prepare(change(1, [listener("front", 1)]), false)).toEqual([]);
  expect(threads[0]!.got[0]).toMatchObject({ type: "prepare", rehearsed: false });
  expect(fleet.serviceListeners()).toEqual([{ name: "admin" }]);

  const place = "/listeners/0/filterChains/0/filters/0/config";
  const refusal = { package: "", message: "no", path: "", place, stack: "" };
  threads[1]!.answer = () => ({ type: "refused", generation: 1, refusals: [refusal] });
  const { config } = change(1, [listener("front", 1), listener("admin", 2, "control")]);
  expect(await fleet.extend(config!, 1)).toEqual([
    { ...refusal, place: place.replace("/0", "/1") },
  ]);
  expect(threads[0]!.types()).toEqual(["prepare"]);
  expect(threads[1]!.got[1]).toMatchObject({ type: "extend", nth: 0 });
});

test("one refusal is everybody's, and an abort reaches all", async () => {
  const { fleet, threads } = fleetOf(2);
  const refusal = { package: "http/a", message: "no", path: "", place: "", stack: "" };
  threads[1]!.answer = (message) =>
    message.type === "prepare"
      ? { type: "refused", generation: 1, refusals: [refusal] }
      : undefined;
  expect(await fleet.prepare(change(1))).toEqual([refusal]);
  await fleet.abort(1);
  for (const thread of threads) expect(thread.types()).toEqual(["prepare", "abort"]);
});

test("each thread sets up the listeners it accepts for, and its refusals name them as the config does", async () => {
  const { fleet, threads } = fleetOf(1);
  const at = (place: string) => ({ package: "http/a", message: "no", path: "", place, stack: "" });
  threads[1]!.answer = (message) =>
    message.type === "prepare"
      ? {
          type: "refused",
          generation: 1,
          refusals: [at("/listeners/0/filterChains/0"), at("/services/0/config")],
        }
      : undefined;
  const listeners = [listener("a", 1), listener("b", 2), listener("admin", 3, "control")];
  const refusals = await fleet.prepare(change(1, listeners));
  expect(refusals.map(({ place }) => place)).toEqual([
    "/listeners/2/filterChains/0",
    "/services/0/config",
  ]);
  const set = threads.map(({ got }) =>
    got.flatMap((m) => (m.type === "prepare" ? m.config!.listeners.map((l) => l.name) : [])),
  );
  expect(set).toEqual([["a", "b"], ["admin"]]);
});

test("a thread that dies while it prepares refuses", async () => {
  const { fleet, threads } = fleetOf(1);
  threads[0]!.answer = () => undefined;
  const refusals = fleet.prepare(change(1));
  await Promise.resolve();
  threads[0]!.kill("killed");
  expect(await refusals).toMatchObject([{ message: "worker 0 died while it prepared" }]);
});

test("port 0 is bound by the first worker, and the others take its number", async () => {
  const { fleet, threads } = fleetOf(2);
  expect(await serve(fleet, 1, [listener("a", 0)])).toEqual([]);
  const ports = threads.map(({ got }) =>
    got.flatMap((m) => (m.type === "listen" ? m.listeners[0]!.address.port : [])),
  );
  expect(ports).toEqual([[0], [4321], []]);
  expect(fleet.bound).toEqual([{ name: "a", address: { ip: "127.0.0.1", port: 4321 } }]);
});

test("a listener keeps its sockets while its address stays, and only new ones are bound", async () => {
  const { fleet, threads } = fleetOf(1);
  await serve(fleet, 1, [listener("a", 0), listener("b", 1000)]);
  await serve(fleet, 2, [
    listener("a", 0),
    listener("b", 1001),
    listener("admin", 1002, "control"),
  ]);
  const bound = (k: number) =>
    threads[k]!.got.flatMap((m) => (m.type === "listen" ? m.listeners.map((l) => l.name) : []));
  expect(bound(0)).toEqual(["a", "b", "b"]);
  expect(bound(1)).toEqual(["admin"]);
  expect(fleet.bound.map(({ address }) => address.port)).toEqual([4321, 1001, 1002]);
});

test("an address that cannot be bound is named with its listener, and the others are bound", async () => {
  const { fleet, threads } = fleetOf(1);
  const second = { ip: "127.0.0.1", port: 1001 };
  const name = socketName("a", 1);
  const said = { code: "EADDRINUSE", message: "in use" };
  threads[0]!.answer = (message) =>
    message.type === "listen" && message.listeners[0]!.name === name
      ? { type: "listen_failed", name, ...said }
      : usually(message);
  const both = { ...listener("a", 1000), additionalAddresses: [second] };
  const failures = await serve(fleet, 1, [both, listener("b", 1002)]);
  expect(failures).toEqual([{ listener: "a", address: second, ...said }]);
  expect(fleet.bound.map(({ address }) => address.port)).toEqual([1000, 1002]);
});

test("what one thread publishes reaches the others, and those that come later", async () => {
  const { fleet, threads } = fleetOf(2);
  await serve(fleet, 1);
  threads[0]!.events.onMessage({ type: "publish", topic: "t", text: "1" });
  const published = (thread: FakeThread) => thread.got.filter((m) => m.type === "publish");
  expect(threads.slice(0, 3).map((t) => published(t).length)).toEqual([0, 1, 1]);
  threads[1]!.kill("killed");
  await vi.waitFor(() => expect(threads).toHaveLength(4), 120_000);
  expect(published(threads[3]!)).toEqual([{ type: "publish", topic: "t", text: "1" }]);
});

test("a thread that died comes back with what the others run, sockets included, before it takes part in a change", async () => {
  const lost: string[] = [];
  const { fleet, threads } = fleetOf(2, {
    onStatsLost: () => {},
    onLost: (thread, reason) => lost.push(`${thread.name}: ${reason}`),
  });
  await serve(fleet, 1, [listener("a", 0)]);
  threads[1]!.events.onExit("out of memory");
  expect(lost).toEqual(["worker 1: out of memory"]);
  await vi.waitFor(() => expect(threads).toHaveLength(4), 120_000);
  await serve(fleet, 2, [listener("a", 0)]);
  const [prepare] = threads[3]!.got;
  expect(prepare).toMatchObject({ type: "prepare", generation: 1, modules: [{ code: "v1" }] });
  expect(threads[3]!.types()).toEqual(["prepare", "commit", "listen", "prepare", "commit"]);
  expect(threads[3]!.got[2]).toMatchObject({ listeners: [{ address: { port: 4321 } }] });
});

test("answers a call of a thread, with its failure if it fails", async () => {
  const { threads } = fleetOf(1, {
    onLines: () => {},
    onCall: async (name) => {
      if (name === "core.quit") return "bye";
      throw new Error("no such operation");
    },
  });
  threads[0]!.events.onMessage({ type: "call", call: 7, name: "core.quit", args: {} });
  threads[0]!.events.onMessage({ type: "call", call: 8, name: "core.other", args: {} });
  await vi.waitFor(() => expect(threads[0]!.got).toHaveLength(2), 120_000);
  expect(threads[0]!.got).toEqual([
    { type: "reply", call: 7, value: "bye", error: undefined },
    { type: "reply", call: 8, value: undefined, error: "no such operation" },
  ]);
});

test("gives a thread that sets something up a longer box", async () => {
  const { fleet, threads } = fleetOf(1);
  expect(fleet.boxes()[0]!.boxMs).toBe(20_000);
  await serve(fleet, 1);
  expect(fleet.boxes().map(({ boxMs }) => boxMs)).toEqual([1_000, 1_000]);
  threads[0]!.answer = () => undefined;
  void fleet.prepare(change(2));
  await vi.waitFor(() => expect(threads[0]!.types()).toHaveLength(3), 120_000);
  expect(fleet.boxes()[0]!.boxMs).toBe(20_000);
  threads[0]!.events.onMessage({ type: "prepared", generation: 2 });
});

test.each(["before", "during"])(
  "a thread that loses what it has prepared %s the commit sets it up again, and stays",
  async (when) => {
    const { fleet, threads } = fleetOf(1);
    await serve(fleet, 1);
    expect(await fleet.prepare(change(2))).toEqual([]);
    const thread = threads[0]!;
    const lost = { type: "refused", generation: 2, refusals: [] } as const;
    if (when === "before") thread.events.onMessage(lost);
    else
      thread.answer = () => {
        thread.answer = usually;
        return lost;
      };
    await fleet.commit(2);
    expect(thread.types().slice(-2)).toEqual(["prepare", "commit"]);
    expect(thread.got.at(-1)).toMatchObject({ generation: 2 });
    expect(threads).toHaveLength(2);
  },
);

test("a thread that loses a generation again and again is ended, and the reason is told", async () => {
  const lost: string[] = [];
  const { fleet, threads } = fleetOf(1, {
    onLost: (thread, reason) => lost.push(`${thread.name}: ${reason}`),
  });
  await serve(fleet, 1);
  expect(await fleet.prepare(change(2))).toEqual([]);
  const refusal = { package: "", message: "it hung", path: "", place: "", stack: "" };
  threads[0]!.answer = () => ({ type: "refused", generation: 2, refusals: [refusal] });
  await fleet.commit(2);
  expect(lost).toEqual(["worker 0: it could not take up generation 2: it hung"]);
});

test("a thread that went back to the code of before by itself gets the config that serves with the next code", async () => {
  const { fleet, threads } = fleetOf(1);
  await serve(fleet, 1);
  const reverted = { type: "fault", package: "http/a", reason: "hung", stack: "" } as const;
  threads[0]!.events.onMessage({ ...reverted, reverted: ["http/a"] });
  const code = { ...change(2), config: undefined };
  expect(await fleet.prepare(code)).toEqual([]);
  const configs = () => threads.map(({ got }) => (got.at(-1) as { config?: unknown }).config);
  expect(configs()).toEqual([expect.anything(), undefined]);
  await fleet.commit(2);
  expect(await fleet.prepare({ ...code, generation: 3 })).toEqual([]);
  expect(configs()).toEqual([undefined, undefined]);
});

test("a thread that went back by itself gets the code that the others have with the next code, whichever that is", async () => {
  const { fleet, threads } = fleetOf(1);
  await serve(fleet, 1);
  const fault = { type: "fault", package: "http/a", reason: "hung", stack: "" } as const;
  threads[0]!.events.onMessage({ ...fault, reverted: ["http/a"] });
  const { modules } = change(2);
  const other = { ...modules[0]!, package: "http/b" };
  expect(
    await fleet.prepare({ generation: 2, modules: [other], removed: [], config: undefined }),
  ).toEqual([]);
  const sent = threads.map(({ got }) =>
    (got.at(-1) as Change).modules.map((m) => [m.package, m.code]),
  );
  expect(sent).toEqual([
    [
      ["http/a", "v1"],
      ["http/b", "v2"],
    ],
    [["http/b", "v2"]],
  ]);
});

test("a thread that goes back by itself after it was asked to prepare sets the change up again, with what the others have", async () => {
  const { fleet, threads } = fleetOf(1);
  await serve(fleet, 1);
  const thread = threads[0]!;
  thread.answer = () => undefined;
  const { modules } = change(2);
  const other = { ...modules[0]!, package: "http/b" };
  const prepared = fleet.prepare({
    generation: 2,
    modules: [other],
    removed: [],
    config: undefined,
  });
  await vi.waitFor(() => expect(thread.types().at(-1)).toBe("prepare"), 120_000);
  const fault = { type: "fault", package: "http/a", reason: "hung", stack: "" } as const;
  thread.events.onMessage({ ...fault, reverted: ["http/a"] });
  thread.events.onMessage({ type: "prepared", generation: 2 });
  expect(await prepared).toEqual([]);
  thread.answer = usually;
  await fleet.commit(2);
  expect(thread.types().slice(-3)).toEqual(["prepare", "prepare", "commit"]);
  const again = thread.got.at(-2) as Change;
  expect(again.modules.map((module) => module.package)).toEqual(["http/a", "http/b"]);
  expect(again.config).toBeDefined();
});

test("a thread that is started again while listeners are bound listens at all of them", async () => {
  vi.useFakeTimers();
  try {
    const { fleet, threads } = fleetOf(2);
    await serve(fleet, 1, [listener("a", 1000)]);
    const config = [listener("a", 1000), listener("b", 1001), listener("c", 1002)];
    // The first worker answers nothing for "c" until another thread is there.
    let answer = () => {};
    threads[0]!.answer = (message) => {
      if (message.type !== "listen" || message.listeners[0]!.name !== "c") return usually(message);
      answer = () => threads[0]!.events.onMessage(usually(message)!);
      return undefined;
    };
    const served = serve(fleet, 2, config);
    await vi.advanceTimersByTimeAsync(0);
    threads[1]!.events.onExit("it ended");
    await vi.advanceTimersByTimeAsync(1_000);
    answer();
    expect(await served).toEqual([]);
    const names = threads[3]!.got.flatMap((m) =>
      m.type === "listen" ? m.listeners.map((l) => l.name) : [],
    );
    expect(names).toEqual(["a", "b", "c"]);
  } finally {
    vi.useRealTimers();
  }
});

test("a thread that waits for a CPU is waited for while it sets up and binds", async () => {
  vi.useFakeTimers();
  try {
    const { fleet, threads } = fleetOf(1);
    const thread = threads[0]!;
    thread.answer = (message) => {
      const answer = usually(message);
      if (answer !== undefined) setTimeout(() => thread.events.onMessage(answer), 50_000);
      return undefined;
    };
    const served = serve(fleet, 1, [listener("a", 1000)]);
    await vi.advanceTimersByTimeAsync(200_000);
    expect(await served).toEqual([]);
  } finally {
    vi.useRealTimers();
  }
});

test("a thread that dies while it binds a listener is no failure of the listener", async () => {
  vi.useFakeTimers();
  try {
    const { fleet, threads } = fleetOf(2);
    await serve(fleet, 1);
    threads[1]!.answer = (message) => {
      if (message.type !== "listen") return usually(message);
      threads[1]!.events.onExit("it ended");
      return undefined;
    };
    expect(await serve(fleet, 2, [listener("a", 0)])).toEqual([]);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(threads[3]!.got.at(-1)).toMatchObject({
      type: "listen",
      listeners: [{ name: "a", address: { port: 4321 } }],
    });
  } finally {
    vi.useRealTimers();
  }
});

test("port 0 that was wanted while all workers were gone is one number for those that come", async () => {
  vi.useFakeTimers();
  try {
    const { fleet, threads } = fleetOf(2);
    await serve(fleet, 1);
    for (const worker of threads.slice(0, 2)) worker.events.onExit("it ended");
    await serve(fleet, 2, [listener("a", 0)]);
    await vi.advanceTimersByTimeAsync(1_000);
    const asked = threads
      .slice(3)
      .flatMap(({ got }) => got.flatMap((m) => (m.type === "listen" ? m.listeners : [])));
    expect(asked.map(({ address }) => address.port)).toEqual([0, 4321]);
    expect(fleet.bound).toEqual([{ name: "a", address: { ip: "127.0.0.1", port: 4321 } }]);
  } finally {
    vi.useRealTimers();
  }
});

test("a unix socket is bound by worker 0, also by one that was started again", async () => {
  vi.useFakeTimers();
  try {
    const { fleet, threads } = fleetOf(2);
    await serve(fleet, 1);
    threads[0]!.events.onExit("it ended");
    await vi.advanceTimersByTimeAsync(1_000);
    const address = { ip: "", port: 0, path: "/tmp/s" };
    await serve(fleet, 2, [{ ...listener("a", 0), address }]);
    expect(threads.map((thread) => [thread.name, thread.types().includes("listen")])).toEqual([
      ["worker 0", false],
      ["worker 1", false],
      ["control 2", false],
      ["worker 0", true],
    ]);
  } finally {
    vi.useRealTimers();
  }
});

test("a thread that was started again between a preparation and its commit gets the new generation as well", async () => {
  vi.useFakeTimers();
  try {
    const { fleet, threads } = fleetOf(1);
    await serve(fleet, 1);
    expect(await fleet.prepare(change(2))).toEqual([]);
    threads[0]!.events.onExit("it ended");
    await vi.advanceTimersByTimeAsync(5_000);
    expect(threads[2]!.got[0]).toMatchObject({ type: "prepare", generation: 1 });
    await fleet.commit(2);
    expect(threads[2]!.types()).toEqual(["prepare", "commit", "prepare", "commit"]);
    expect(threads[2]!.got[2]).toMatchObject({ type: "prepare", generation: 2 });
  } finally {
    vi.useRealTimers();
  }
});

test("the watchdogs are stricter while shipped code is new, and stricter still where it has hung another thread", async () => {
  vi.useFakeTimers();
  try {
    const { fleet, threads } = fleetOf(2);
    const most = () => threads.map(({ memory }) => new Int32Array(memory.beat)[BEAT.MOST_MS]);
    const fault = { type: "fault", package: "http/a", reason: "hung", stack: "" } as const;
    const code = (group: string) => ({
      package: "http/a",
      group,
      code: "",
      filename: "",
      hash: "",
    });
    const serveNew = async (generation: number, group: string) => {
      await fleet.prepare({ ...change(generation), modules: [code(group)] });
      await fleet.commit(generation);
    };
    await serveNew(1, "builtin");
    expect(most()).toEqual([0, 0, 0]);
    await serveNew(2, "builtin");
    expect(most()).toEqual([300, 300, 300]);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(most()).toEqual([0, 0, 0]);
    await serveNew(3, "http/a");
    expect(most()).toEqual([0, 0, 0]);
    await serveNew(4, "builtin");
    threads[0]!.events.onMessage({ ...fault, reverted: [] });
    expect(most()).toEqual([300, 300, 300]);
    threads[0]!.events.onMessage({ ...fault, reverted: ["http/a"] });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(most().slice(1)).toEqual([250, 250]);
  } finally {
    vi.useRealTimers();
  }
});
