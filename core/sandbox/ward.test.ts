import { Chunk, type ListenerFilter } from "@tsproxy/sdk";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parkedListenerFactory } from "../inside/parked-peek.ts";
import { Parts } from "../inside/parts.ts";
import { partFlags } from "../inside/sandbox/layout.ts";
import { BEAT } from "../protocol.ts";
import type { Account } from "./accounts.ts";
import { Exchange, FakeWorker, stubs } from "./fake-worker.ts";
import type { Sandbox } from "./sandbox.ts";

/** Places whose code was stopped once go on in an isolate apart. */

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: example.com\r\n`;

/** Uses and per-route configs that say so loop where a path asks for it; every setup counts itself, and so does its end. */
const CODE = `
  import { defineHttpFilter, Type } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Object({}), setup(config, cx) {
    cx.stats.counter("setups." + config.name).inc();
    const ends = cx.stats.counter("ends." + config.name);
    cx.onDispose(() => ends.inc());
    if (config.timer) setTimeout(() => { for (;;) {} }, 5000);
    const over = cx.stats.counter("over." + config.name);
    const naps = cx.stats.counter("naps." + config.name);
    let seen = 0;
    return (stream) => ({
      onEnd() { over.inc(); },
      async onRequestHeaders(headers) {
        const { bad } = stream.routeConfig ?? config;
        if (bad && headers.path === "/loop") for (;;) {}
        if (headers.path === "/ask") {
          const answer = await cx.fetch("origin:/").then((a) => a.status, (e) => e.reason);
          headers.set("x-seen", String(answer));
        } else if (headers.path === "/nap") {
          naps.inc();
          await stream.sleep(30);
          headers.set("x-seen", "rested");
        } else if (headers.path === "/burn") {
          // Some 25 ms of CPU, on a busy machine too: each root waits for the one before.
          let root = 1;
          for (let k = 0; k < 4e6; k++) root = Math.sqrt(root + k);
          headers.set("x-seen", String(root));
        } else if (headers.path === "/runtime") {
          headers.set("x-seen", String(cx.runtime.integer("value", 0)));
        } else headers.set("x-seen", String(++seen));
      },
    });
  } });`;
const GOOD = 1;
const BAD = 2;

let worker: FakeWorker;
let clock: { now: number };
let confined: Set<number>;
let told: (Account & { isConfined: boolean })[];
/** What places in the ward fetch: core hears of it apart from what the others do. */
let asked: string[];
beforeEach(() => {
  worker = new FakeWorker();
  clock = { now: 1000 };
  confined = new Set();
  told = [];
  asked = [];
});
afterEach(() => {
  FakeWorker.gated = false;
  worker.dispose();
});

const build = (more: object = {}, config: object = {}): Promise<Sandbox> =>
  worker.sandbox(CODE, [{ name: "good" }, { name: "bad", bad: true, ...config }], {
    // Twice as much as in service: a busy machine stops honest entries.
    limits: { timeoutMs: 500 },
    now: () => clock.now,
    ward: {
      onFetch: (text) => void asked.push(text),
      onConfined: (account, isConfined) => {
        told.push({ ...account, isConfined });
        if (isConfined) confined.add(partFlags(account.part));
        else confined.delete(partFlags(account.part));
      },
    },
    ...more,
  });

const stub = (sandbox: Sandbox, use: number, more: object = {}) =>
  stubs(worker, sandbox, use, { ...(use === BAD && { confined }), ...more });

const begin = (sandbox: Sandbox, use: number, path: string, more: object = {}): Exchange =>
  new Exchange(worker, [stub(sandbox, use, more)], get(path)).requestHeaders();

async function ask(sandbox: Sandbox, use: number, path: string, more: object = {}) {
  const e = await begin(sandbox, use, path, more).settled();
  return e.reply?.status ?? e.request.get("x-seen");
}

/** Until `condition` holds, with what a worker does once a second. */
const everySecond = (sandbox: Sandbox, condition: () => boolean): Promise<void> =>
  worker.until(() => {
    sandbox.expire(clock.now);
    return condition();
  });

/** Asks on the k-th of these routes, each of which has per-route configs for the good use. */
function routesOf(sandbox: Sandbox, routes: readonly (readonly object[])[]) {
  const parts = new Parts(() => {});
  return async (k: number, path: string) => {
    const stub = stubs(worker, sandbox, GOOD, { parts, hooks: sandbox.hooks, confined });
    const e = new Exchange(worker, [stub], get(path));
    Object.assign(e.stream, { routeConfigs: routes[k] });
    await e.requestHeaders().settled();
    return e.reply?.status ?? e.request.get("x-seen");
  };
}

describe("a place whose code was stopped", () => {
  it("loops again apart: streams of others that wait for their promises lose nothing", async () => {
    const sandbox = await build();
    expect(await ask(sandbox, BAD, "/loop")).toBe(500);
    await worker.until(() => sandbox.ready);
    const { rebuilt } = sandbox.counts;
    const rests = begin(sandbox, GOOD, "/nap");
    expect(await ask(sandbox, GOOD, "/")).toBe("1");
    expect([await ask(sandbox, BAD, "/loop"), worker.faults.length]).toEqual([500, 2]);
    expect(await ask(sandbox, GOOD, "/")).toBe("2");
    clock.now += 50;
    await rests.settled();
    expect([rests.request.get("x-seen"), sandbox.counts.rebuilt]).toEqual(["rested", rebuilt]);
  });

  it("is served there, and left alone after three faults", async () => {
    const sandbox = await build();
    await ask(sandbox, BAD, "/loop");
    expect(await ask(sandbox, BAD, "/")).toBe("1");
    await ask(sandbox, BAD, "/loop");
    await ask(sandbox, BAD, "/loop");
    expect([await ask(sandbox, BAD, "/"), sandbox.breaker]).toEqual([500, "open"]);
    const { reason, place } = worker.faults.at(-1)!;
    expect([reason, place]).toEqual([expect.stringMatching(/not entered for 1000 ms/), "/uses/1"]);
    clock.now += 1000;
    await everySecond(sandbox, () => sandbox.takes(0, { use: BAD, part: 0 }));
    expect(await ask(sandbox, BAD, "/")).toBe("1");
  });

  it("comes back when a minute has passed without a fault, and its ward ends", async () => {
    const sandbox = await build();
    await ask(sandbox, BAD, "/loop");
    const rests = begin(sandbox, BAD, "/nap");
    await everySecond(sandbox, () => worker.stat("setups.bad") === 3);
    clock.now += 61_000;
    sandbox.expire(clock.now);
    await rests.settled();
    expect(rests.reply?.status).toBe(504);
    // Its stream ends there, and until then it stays; new ones meet the isolate of all others.
    sandbox.expire(clock.now);
    expect([sandbox.live, worker.stat("ends.bad")]).toEqual([1, 0]);
    expect(await ask(sandbox, GOOD, "/")).toBe("1");
    expect(await ask(sandbox, BAD, "/")).toBe("1");
    const { live } = sandbox;
    rests.end();
    worker.flush();
    expect(sandbox.live).toBe(live - 1);
    expect(told).toEqual([
      { use: BAD, part: 0, isConfined: true },
      { use: BAD, part: 0, isConfined: false },
    ]);
    await everySecond(sandbox, () => worker.stat("ends.bad") === 1);
    // A further loop costs the isolate of all others again, and needs another ward.
    expect(await ask(sandbox, BAD, "/loop")).toBe(500);
    expect(told).toHaveLength(3);
    expect(await ask(sandbox, BAD, "/")).toBe("1");
  });

  it("keeps away from the gate, which the others go on using", async () => {
    FakeWorker.gated = true;
    const sandbox = await build();
    expect(await ask(sandbox, BAD, "/loop")).toBe(500);
    await worker.until(() => sandbox.ready);
    const records = worker.records;
    expect(await ask(sandbox, GOOD, "/")).toBe("1");
    expect(worker.records).toBe(records);
    expect(await ask(sandbox, BAD, "/")).toBe("1");
    expect(worker.records).toBe(records + 1);
  });

  it("fetches, and its answers find the ward", async () => {
    const sandbox = await build({ onFetch: () => expect.unreachable() });
    await ask(sandbox, BAD, "/loop");
    const asks = begin(sandbox, BAD, "/ask");
    await worker.until(() => asked.length > 0);
    const { call } = JSON.parse(asked[0]!);
    const failed = { to: "fetch", call, op: "error", reason: "no_host", message: "none is up" };
    sandbox.replyInWard(JSON.stringify(failed), Buffer.alloc(0));
    await asks.settled();
    expect(asks.request.get("x-seen")).toBe("no_host");
  });

  it("takes others along that are stopped later, and leaves with its use", async () => {
    const sandbox = await build();
    const onRoute = routesOf(sandbox, [[{ bad: true }], [{}]]);
    await ask(sandbox, BAD, "/loop");
    expect([await onRoute(0, "/loop"), await onRoute(0, "/")]).toEqual([500, "1"]);
    // The use's other places are served where they were.
    expect([await onRoute(1, "/"), await ask(sandbox, GOOD, "/")]).toEqual(["1", "2"]);
    expect(await ask(sandbox, BAD, "/")).toBe("1");
    await sandbox.release(BAD);
    await everySecond(sandbox, () => worker.stat("ends.bad") === 2);
    expect(sandbox.takes(0, { use: BAD, part: 0 })).toBe(true);
    expect(told.map(({ use, part }) => [use, part])).toEqual([
      [BAD, 0],
      [GOOD, 1],
    ]);
  });

  it("is entered on another thread, and alone, for as long as it is there", async () => {
    const sandbox = await build();
    await ask(sandbox, BAD, "/loop");
    expect(await ask(sandbox, BAD, "/")).toBe("1");
    // Where nobody was confined all would be as before.
    clock.now += 20_000;
    const loops = begin(sandbox, BAD, "/loop");
    worker.flush();
    expect(loops.pending).toBe(1);
    await loops.settled();
    expect([loops.reply?.status, worker.faults.at(-1)?.place]).toEqual([500, "/uses/1"]);
  });

  it("knows the runtime values of before, and those of later", async () => {
    const sandbox = await build();
    await sandbox.setRuntime('[["value",7]]');
    await ask(sandbox, BAD, "/loop");
    expect(await ask(sandbox, BAD, "/runtime")).toBe("7");
    await sandbox.setRuntime('[["value",8]]');
    expect([await ask(sandbox, BAD, "/runtime"), await ask(sandbox, GOOD, "/runtime")]).toEqual([
      "8",
      "8",
    ]);
  });

  it("is told once that it goes, though a timer of its setup is stopped where it was", async () => {
    const sandbox = await build({}, { timer: true });
    await ask(sandbox, BAD, "/loop");
    expect(await ask(sandbox, BAD, "/")).toBe("1");
    await worker.until(() => sandbox.ready);
    clock.now += 5000;
    // The first of whoever comes has the timers run.
    await ask(sandbox, GOOD, "/");
    await everySecond(sandbox, () => worker.faults.length >= 3);
    expect(told).toEqual([{ use: BAD, part: 0, isConfined: true }]);
  });

  it("goes with its sandbox: streams that wait there are answered, and its uses end", async () => {
    const disposed = await build();
    await ask(disposed, BAD, "/loop");
    expect(await ask(disposed, BAD, "/")).toBe("1");
    const rests = begin(disposed, BAD, "/nap");
    await everySecond(disposed, () => disposed.live === 1);
    disposed.dispose();
    expect((await rests.settled()).reply?.status).toBe(500);
    const finished = await build();
    const ends = worker.stat("ends.bad");
    await ask(finished, BAD, "/loop");
    expect(await ask(finished, BAD, "/")).toBe("1");
    // Both isolates have set the use up: that of all others may still be on its way.
    await worker.until(() => finished.ready);
    await finished.finish();
    expect(worker.stat("ends.bad")).toBe(ends + 2);
  });

  it("does not lose what its code has begun there to the loop of another place", async () => {
    const sandbox = await build();
    const onRoute = routesOf(sandbox, [[{ bad: true }]]);
    await ask(sandbox, BAD, "/loop");
    await onRoute(0, "/loop");
    expect([await ask(sandbox, BAD, "/"), await onRoute(0, "/")]).toEqual(["1", "1"]);
    // Nobody is suspect any more.
    clock.now += 20_000;
    const rests = ask(sandbox, BAD, "/nap");
    await everySecond(sandbox, () => worker.stat("naps.bad") === 1);
    const loops = onRoute(0, "/loop");
    clock.now += 50;
    expect(await Promise.all([rests, loops])).toEqual(["rested", 500]);
  });

  it("keeps its isolate when another place of the same use joins it", async () => {
    const sandbox = await build();
    const onRoute = routesOf(sandbox, [[{ bad: true }], [{ bad: true, other: true }]]);
    await onRoute(0, "/loop");
    expect(await onRoute(0, "/")).toBe("1");
    await onRoute(1, "/loop");
    expect([await onRoute(0, "/"), await onRoute(1, "/")]).toEqual(["2", "3"]);
  });

  it("is told of by where its config stands", async () => {
    const sandbox = await build();
    const onRoute = routesOf(sandbox, [[{ bad: true }]]);
    sandbox.name({ use: GOOD, part: 1 }, "routes[0]");
    await onRoute(0, "/loop");
    await onRoute(0, "/loop");
    expect(worker.faults.map(({ path }) => path)).toEqual(["routes[0]", "routes[0]"]);
  });

  it("uses CPU of the share that the whole package has", async () => {
    const words = new Int32Array(3);
    const mark = { words, box: 1 };
    const sandbox = await build({ cpuShare: 0.1, limits: { timeoutMs: 2000 }, mark });
    await ask(sandbox, BAD, "/loop");
    // Until the loop is paid for.
    clock.now += 30_000;
    expect(await ask(sandbox, BAD, "/")).toBe("1");
    await worker.until(() => sandbox.ready);
    // It burns until the share is used up, and the last one has to wait.
    let burns: Promise<unknown>;
    let rounds = 0;
    for (;;) {
      burns = ask(sandbox, BAD, "/burn");
      worker.flush();
      if (words[BEAT.ASIDE] === 0) break;
      clock.now += 100;
      await burns;
      rounds++;
    }
    expect(rounds).toBeGreaterThan(0);
    const { entries } = sandbox.counts;
    const waits = ask(sandbox, GOOD, "/");
    worker.flush();
    expect(sandbox.counts.entries).toBe(entries);
    clock.now += 10_000;
    expect(await waits).toBe("1");
    await burns;
  });

  it("pays from that share for what was stopped on its thread", async () => {
    const words = new Int32Array(3);
    const sandbox = await build({ cpuShare: 0.1, mark: { words, box: 1 } });
    await ask(sandbox, BAD, "/loop");
    clock.now += 30_000;
    expect(await ask(sandbox, BAD, "/")).toBe("1");
    await worker.until(() => sandbox.ready);
    const loops = begin(sandbox, BAD, "/loop");
    worker.flush();
    expect(words[BEAT.ASIDE]).toBe(1);
    // It is charged its CPU time, but no more than has passed.
    clock.now += 100;
    expect((await loops.settled()).reply?.status).toBe(500);
    const { entries } = sandbox.counts;
    const waits = ask(sandbox, GOOD, "/");
    worker.flush();
    expect(sandbox.counts.entries).toBe(entries);
    clock.now += 60_000;
    expect(await waits).toBe("1");
  });

  it("hears of the ends of its streams before it ends with its sandbox", async () => {
    const sandbox = await build();
    await ask(sandbox, BAD, "/loop");
    const rests = await begin(sandbox, BAD, "/").settled();
    rests.end();
    worker.flush();
    await sandbox.finish();
    expect(worker.stat("over.bad")).toBe(1);
  });

  it("hears of an end that comes while it runs, before it ends with its sandbox", async () => {
    const sandbox = await build();
    await ask(sandbox, BAD, "/loop");
    const rests = await begin(sandbox, BAD, "/").settled();
    const asks = ask(sandbox, BAD, "/");
    worker.flush();
    rests.end();
    worker.flush();
    await Promise.all([asks, sandbox.finish()]);
    expect(worker.stat("over.bad")).toBe(1);
  });

  it("lets go of a listener's question whose place has come back", async () => {
    const sandbox = await worker.sandbox(
      `import { defineListenerFilter, Type } from "@tsproxy/sdk";
       export default defineListenerFilter({ name: "test", config: Type.Object({}), setup: () => () => ({
         onBytes(bytes) { if (bytes.text() === "loop") for (;;) {} return bytes.length < 4 ? "more" : 0; } }) });`,
      [{}],
      {
        limits: { timeoutMs: 250 },
        now: () => clock.now,
        ward: {
          onFetch: () => {},
          onConfined: (account, isConfined) => told.push({ ...account, isConfined }),
        },
      },
    );
    const box = worker.boxes.indexOf(sandbox);
    const factory = parkedListenerFactory({ box, use: 1, hooks: sandbox.hooks }, worker.table);
    const look = async (filter: ListenerFilter, text: string) =>
      filter.onBytes(new Chunk(Buffer.from(text), 0, text.length));
    expect(await look(factory(SOCKET), "loop")).toBe("close");
    const waits = factory(SOCKET);
    expect(await look(waits, "ab")).toBe("more");
    clock.now += 61_000;
    await everySecond(sandbox, () => told.at(-1)?.isConfined === false);
    expect(sandbox.live).toBe(1);
    expect(await look(waits, "abcd")).toBe(0);
    worker.flush();
    expect(sandbox.live).toBe(0);
  });
});

const SOCKET = {
  remoteAddress: { ip: "192.0.2.1", port: 4000 },
  localAddress: { ip: "127.0.0.1", port: 80 },
  transportProtocol: "raw_buffer",
  serverName: "",
  applicationProtocols: [],
};
