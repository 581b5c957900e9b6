import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Exchange, FakeWorker, stubs } from "./fake-worker.ts";
import type { Sandbox } from "./sandbox.ts";

const HEAD = "GET / HTTP/1.1\r\nhost: example.com\r\n";
const get = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: example.com\r\n`;

const filter = (members: string, setup = ""): string => `
  import { defineHttpFilter, reply, hold, done, Type } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Object({}), setup(config, cx) { ${setup};
    return (stream) => ({ ${members} });
  } });`;

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

const LOOP = "for (;;) {}";
const ALLOCATE = "const a = []; for (;;) a.push(new Array(1000).fill(1.5));";
const THROW = 'throw new Error("bang");';
/** Each member does `what` when the path asks for it. */
const misbehaving = (what: string): string =>
  filter(`
    onRequestHeaders(h) { if (stream.request.path === "/request-headers") { ${what} } },
    onRequestBody(c) { if (stream.request.path === "/request-body") { ${what} } },
    onRequestTrailers(t) { if (stream.request.path === "/request-trailers") { ${what} } },
    onResponseHeaders(h) { if (stream.request.path === "/response-headers") { ${what} } },
    onResponseBody(c) { if (stream.request.path === "/response-body") { ${what} } },
    onEnd() { if (stream.request.path === "/end") { ${what} } },
  `);

/** Every hook of a stream, until something stops it. */
async function runThrough(e: Exchange): Promise<Exchange> {
  await e.requestHeaders(false).settled();
  e.requestBody("hello", false);
  await e.settled();
  e.requestTrailers("x: 1\r\n");
  await e.settled();
  e.responseHeaders(200, "server: up\r\n", false);
  await e.settled();
  e.responseBody("hello");
  await e.settled();
  return e;
}

const HOOKS = [
  "request-headers",
  "request-body",
  "request-trailers",
  "response-headers",
  "response-body",
];

describe("a throw", () => {
  it.each(HOOKS)("in %s fails that stream alone", async (hook) => {
    const sandbox = await worker.sandbox(misbehaving(THROW));
    const factory = stubs(worker, sandbox);
    const other = new Exchange(worker, [factory], HEAD);
    await other.requestHeaders(false).settled();
    const bad = await runThrough(new Exchange(worker, [factory], get(`/${hook}`)));
    expect([bad.reply?.status, bad.reply?.details]).toEqual([500, "filter_fault"]);
    await runThrough(other);
    expect(other.reply).toBeUndefined();
    expect([sandbox.counts.thrown, sandbox.counts.faults]).toEqual([1, 0]);
    expect(worker.faults[0]!.reason).toContain("threw: bang");
    expect(worker.faults[0]!.stack).toContain("test.js:");
  });

  it("of a promise that nobody waits for costs no stream, and not the isolate", async () => {
    const lose = `onRequestHeaders(h) { void Promise.reject(new Error("lost")); h.set("x-on", "1"); }`;
    const sandbox = await worker.sandbox(
      filter(`${lose}, onResponseHeaders(h) { void (async () => { await null; throw 7; })(); }`),
    );
    const factory = stubs(worker, sandbox);
    for (let k = 0; k < 5; k++) {
      const e = new Exchange(worker, [factory], HEAD);
      await e.requestHeaders().settled();
      expect(e.request.get("x-on")).toBe("1");
      e.responseHeaders(200, "");
      await e.settled();
      expect(e.reply).toBeUndefined();
      e.end();
    }
    expect([sandbox.counts.faults, sandbox.counts.rebuilt, sandbox.breaker]).toEqual([
      0,
      0,
      "closed",
    ]);
    expect(sandbox.counts.thrown).toBeGreaterThanOrEqual(10);
    expect(worker.faults[0]!.reason).toContain("nobody caught it: lost");
    expect(worker.faults[0]!.stack).toContain("test.js:");
  });

  it.each([
    ["42", "42"],
    ["null", "null"],
    ["false", "false"],
    ["() => 1", "a function"],
    ['"hello"', '"hello"'],
    ['Promise.resolve("late")', '"late"'],
    ["{ status: 200 }", "an object of another kind"],
  ])("for what is no verdict, %s, names it and the line of the hook", async (code, named) => {
    const sandbox = await worker.sandbox(
      filter(`onRequestHeaders() { cx.log.info(7); return (${code}); }`),
    );
    const e = await new Exchange(worker, [stubs(worker, sandbox)], HEAD).requestHeaders().settled();
    expect([e.reply?.status, worker.faults[0]!.reason, worker.logged[0]!.message]).toEqual([
      500,
      `onRequestHeaders: it returned ${named}; return nothing, done, reply(…) or hold(…)`,
      "7",
    ]);
    expect(worker.faults[0]!.stack).toMatch(/^test\.js:\d+:\d+$/);
  });

  it.each([
    ["reply(150)", "reply(150): write a whole number from 200 to 999"],
    ["reply(1000)", "reply(1000): write a whole number from 200 to 999"],
    ['hold({ body: "nope" })', 'hold({ body: "nope" }): write "buffer" or "stream"'],
    ['hold({ max: "much" })', "hold({ max: much }): write a number of bytes"],
    [
      'cx.stats.counter("n").inc("a")',
      "inc() and dec() of a stat count one; write add(n) for another amount",
    ],
    ['cx.stats.counter("n").add("3")', "add() of a stat was given a string; write a number"],
    ["headers.get = 1", "Cannot add property get, object is not extensible"],
  ])("by %s is of the line that says so, and later streams lose nothing", async (code, reason) => {
    const sandbox = await worker.sandbox(
      filter(`onRequestHeaders(headers) {
        if (headers.path === "/bad")
          return ${code};
        headers.set("x-host", headers.get("host"));
      }`),
    );
    const factory = stubs(worker, sandbox);
    const bad = await new Exchange(worker, [factory], get("/bad")).requestHeaders().settled();
    bad.end();
    expect([bad.reply?.status, worker.faults[0]!.reason]).toEqual([
      500,
      `onRequestHeaders threw: ${reason}`,
    ]);
    expect(worker.faults[0]!.stack).toContain("test.js:6:");
    const next = await new Exchange(worker, [factory], HEAD).requestHeaders().settled();
    expect([next.request.get("x-host"), worker.stat("n")]).toEqual(["example.com", 0]);
  });

  it("in onEnd, in a promise, in the factory and in a timer is counted", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `async onRequestHeaders() { await null; if (stream.request.path === "/reject") throw 7; }, onEnd() { throw new Error("end"); }`,
        `cx.timer(() => { throw new Error("timer") }).arm(1); const make = (stream) => { if (stream.request.path === "/make") throw new Error("make"); }; return (stream) => (make(stream), { onRequestHeaders() { if (stream.request.path === "/reject") return Promise.reject(7) }, onEnd() { throw new Error("end"); } })`,
      ),
    );
    const factory = stubs(worker, sandbox);
    const rejected = await new Exchange(worker, [factory], get("/reject"))
      .requestHeaders()
      .settled();
    const unmade = await new Exchange(worker, [factory], get("/make")).requestHeaders().settled();
    rejected.end();
    await worker.until(() => worker.faults.length === 4);
    expect([rejected.reply?.status, unmade.reply?.status]).toEqual([500, 500]);
    expect(worker.faults.map((fault) => fault.reason).sort()).toEqual([
      "create threw: make",
      "onEnd threw: end",
      "onRequestHeaders threw: 7",
      "timer threw: timer",
    ]);
  });
});

describe.each([
  ["an endless loop", LOOP],
  ["an allocation loop", ALLOCATE],
])("%s", (_, what) => {
  it.each(HOOKS)(
    "in %s costs the streams in that filter only, and the filter comes back",
    async (hook) => {
      const sandbox = await worker.sandbox(misbehaving(what));
      const bystander = stubs(
        worker,
        await worker.sandbox(filter(`onRequestHeaders(h) { h.set("x-fine", "1"); }`)),
      );
      const factory = stubs(worker, sandbox);
      const inside = new Exchange(worker, [factory], HEAD);
      await inside.requestHeaders(false).settled();
      const bad = await runThrough(new Exchange(worker, [factory], get(`/${hook}`)));
      expect([bad.reply?.status, sandbox.counts.faults]).toEqual([500, 1]);
      const other = await new Exchange(worker, [bystander], HEAD).requestHeaders().settled();
      expect(other.request.get("x-fine")).toBe("1");
      inside.requestBody("x");
      await inside.settled();
      expect(inside.reply?.status).toBe(500);
      await worker.until(() => sandbox.ready || sandbox.counts.rebuilt === 1);
      const next = await runThrough(new Exchange(worker, [factory], HEAD));
      expect(next.reply).toBeUndefined();
    },
  );
});

describe("what V8 would do in one go", () => {
  it.each([
    ["Array.from", "Array.from({ length: 1e9 })"],
    ["a sparse array", "new Array(4e9).fill(0)"],
    ["a sparse array by its length", "const a = []; a.length = 4e9; a.includes(1)"],
    ["repeat", '"x".repeat(2 ** 29 - 30)'],
    ["padEnd", '"".padEnd(2 ** 28)'],
    ["wasm", "new WebAssembly.Memory({ initial: 1000 })"],
    ["shared memory", "new SharedArrayBuffer(1e6)"],
  ])("is refused: %s", async (_, what) => {
    const sandbox = await worker.sandbox(filter(`onRequestHeaders() { ${what}; }`));
    const e = await new Exchange(worker, [stubs(worker, sandbox)], HEAD).requestHeaders().settled();
    expect([e.reply?.status, sandbox.counts.thrown, sandbox.counts.faults]).toEqual([500, 1, 0]);
  });

  it("leaves ordinary arrays and texts as they are", async () => {
    const sandbox = await worker.sandbox(
      filter(`onRequestHeaders(h) {
        class Mine extends Array {}
        h.set("x", JSON.stringify([Array.from("abc"), new Array(2, 3), Array(3).length, Array.of(1), [3, 1, 2].sort(), [[1], [2]].flat(),
          Array.isArray([]), [] instanceof Array, new Mine(2).map(() => 1) instanceof Mine, "ab".repeat(2), JSON.parse("[1]"), [1, 2].indexOf(2), Array.name]));
      }`),
    );
    const e = await new Exchange(worker, [stubs(worker, sandbox)], HEAD).requestHeaders().settled();
    expect(JSON.parse(e.request.get("x")!)).toEqual([
      ["a", "b", "c"],
      [2, 3],
      3,
      [1],
      [1, 2, 3],
      [1, 2],
      true,
      true,
      true,
      "abab",
      [1],
      1,
      "Array",
    ]);
  });
});

describe("the breaker", () => {
  /** Faults until the breaker is open; the time is the test's. */
  async function open(options: object = {}): Promise<{ sandbox: Sandbox; clock: { now: number } }> {
    const clock = { now: 1000 };
    const sandbox = await worker.sandbox(
      filter(
        `onRequestHeaders() { if (stream.request.path === "/loop") ${LOOP} }, onResponseHeaders() {}`,
      ),
      [{}],
      {
        now: () => clock.now,
        limits: { timeoutMs: 100 },
        ...options,
      },
    );
    for (let k = 0; k < 3; k++) {
      await worker.until(() => sandbox.ready);
      await new Exchange(worker, [stubs(worker, sandbox)], get("/loop")).requestHeaders().settled();
    }
    expect(sandbox.breaker).toBe("open");
    return { sandbox, clock };
  }

  /** Its back-off passes, and the use is set up again. */
  async function rest(sandbox: Sandbox, clock: { now: number }): Promise<void> {
    await worker.until(() => sandbox.ready);
    clock.now += 1000;
    sandbox.expire(clock.now);
    await worker.until(() => sandbox.takes(0, { use: 1, part: 0 }));
  }

  it("opens after three faults in 10 s and answers without entering", async () => {
    const { sandbox } = await open();
    const entries = sandbox.counts.entries;
    const e = await new Exchange(worker, [stubs(worker, sandbox)], HEAD).requestHeaders().settled();
    expect([e.reply?.status, e.reply?.details, sandbox.counts.entries]).toEqual([
      500,
      "filter_fault",
      entries,
    ]);
    expect(worker.faults.at(-1)!.reason).toContain("not entered for 1000 ms");
  });

  it("lets streams pass the filter by when the policy is open", async () => {
    const { sandbox } = await open({ failurePolicy: "open" });
    const e = await new Exchange(worker, [stubs(worker, sandbox)], HEAD).requestHeaders().settled();
    expect([e.reply, e.verdicts]).toEqual([undefined, [undefined]]);
  });

  it("is half-open after its back-off: one stream tries, and when that has ended well all may pass", async () => {
    const { sandbox, clock } = await open();
    await rest(sandbox, clock);
    expect(sandbox.breaker).toBe("half-open");
    const factory = stubs(worker, sandbox);
    const [first, second] = [HEAD, HEAD].map((head) =>
      new Exchange(worker, [factory], head).requestHeaders(),
    );
    await worker.until(() => first!.pending + second!.pending === 0);
    expect([first!.reply, second!.reply?.status, sandbox.breaker]).toEqual([
      undefined,
      500,
      "half-open",
    ]);
    first!.end();
    await worker.until(() => sandbox.breaker === "closed");
    const third = await new Exchange(worker, [factory], HEAD).requestHeaders().settled();
    expect(third.reply).toBeUndefined();
  });

  it("doubles its back-off when the trial fails", async () => {
    const { sandbox, clock } = await open();
    await rest(sandbox, clock);
    const again = await new Exchange(worker, [stubs(worker, sandbox)], get("/loop"))
      .requestHeaders()
      .settled();
    expect([again.reply?.status, sandbox.breaker]).toEqual([500, "open"]);
    expect(worker.faults.at(-1)!.reason).toContain("not entered for 2000 ms");
  });

  it("runs a filter that has hung before on another thread, so that others are not held up", async () => {
    const sandbox = await worker.sandbox(
      filter(`onRequestHeaders() { if (stream.request.path === "/loop") ${LOOP} }`),
      [{}],
      { limits: { timeoutMs: 1000 } },
    );
    const other = stubs(
      worker,
      await worker.sandbox(filter(`onRequestHeaders(h) { h.set("x", "1"); }`)),
    );
    const factory = stubs(worker, sandbox);
    await new Exchange(worker, [factory], get("/loop")).requestHeaders().settled();
    await worker.until(() => sandbox.ready);
    // In one turn of this thread, so that the answer to the first cannot come in between.
    const hung = new Exchange(worker, [factory], get("/loop")).requestHeaders();
    worker.flush();
    const fine = new Exchange(worker, [other], HEAD).requestHeaders();
    worker.flush();
    expect([fine.pending, fine.request.get("x"), hung.pending]).toEqual([0, "1", 1]);
    await hung.settled();
    expect(hung.reply?.status).toBe(500);
    // Its other streams wait meanwhile, so it gets half of the time.
    expect(worker.faults.at(-1)!.reason).toBe("entry: it was stopped: no return within 500 ms");
  });
});

describe("budgets", () => {
  it("moves a filter to another thread after three entries far over its CPU budget", async () => {
    const sandbox = await worker.sandbox(
      filter(
        // Work, and no matter what else the machine does: far more than 5 ms of CPU.
        `onRequestHeaders() { if (stream.request.path === "/slow") for (let k = 0; k < 2_000_000; k++) Date.now(); }`,
      ),
      [{}],
      { limits: { cpuMs: 5, timeoutMs: 60_000 } },
    );
    const factory = stubs(worker, sandbox);
    for (let k = 0; k < 1024; k++)
      await new Exchange(worker, [factory], HEAD).requestHeaders().settled();
    await new Exchange(worker, [factory], get("/slow")).requestHeaders().settled();
    expect(sandbox.counts.faults).toBe(0);
    while (sandbox.counts.faults === 0) {
      await new Exchange(worker, [factory], get("/slow")).requestHeaders().settled();
    }
    expect(worker.faults[0]!.reason).toContain("more than 5 ms of CPU");
    const slow = new Exchange(worker, [factory], get("/slow")).requestHeaders();
    worker.flush();
    expect(slow.pending).toBe(1);
    await slow.settled();
    expect(slow.reply).toBeUndefined();
  });

  it("takes a heap over its quota at two looks in a row for a fault", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `onRequestHeaders() { for (let k = 0; k < 200; k++) kept.push(new Array(5000).fill({})); }`,
        "const kept = []",
      ),
      [{}],
      { limits: { quotaMb: 4, timeoutMs: 1000 } },
    );
    const factory = stubs(worker, sandbox);
    for (let k = 1; k <= 2; k++) {
      await new Exchange(worker, [factory], HEAD).requestHeaders().settled();
      expect(sandbox.counts.faults).toBe(0);
      sandbox.expire(k * 1000);
    }
    expect([sandbox.counts.faults, worker.faults[0]?.reason]).toEqual([
      1,
      "memory: more than 4 MiB in use",
    ]);
  });
});

describe("generations", () => {
  it("keeps nothing of a stream that ends in the crossing that has left its promise pending", async () => {
    const sandbox = await worker.sandbox(
      filter("onRequestHeaders() { return new Promise(() => {}); }"),
    );
    const e = new Exchange(worker, [stubs(worker, sandbox)], HEAD);
    const [stub] = e.filters;
    worker.crossing(() => {
      stub!.onRequestHeaders!(e.request, true);
      worker.table.enterGates();
      stub!.onEnd!();
    });
    await worker.until(() => worker.isIdle);
    sandbox.expire(performance.now() + 20_000);
    expect([sandbox.live, sandbox.counts.late]).toEqual([0, 0]);
  });

  it("run side by side: streams finish on the one they began with", async () => {
    const version = (n: number): string =>
      filter(
        `onRequestHeaders(h) { h.set("x-v", "${n}"); }, onResponseHeaders(h) { h.set("x-v", "${n}"); }`,
      );
    const before = await worker.sandbox(version(1));
    const old = new Exchange(worker, [stubs(worker, before)], HEAD);
    await old.requestHeaders().settled();
    const after = await worker.sandbox(version(2));
    const fresh = new Exchange(worker, [stubs(worker, after)], HEAD);
    await fresh.requestHeaders().settled();
    const [a, b] = [old.responseHeaders(200, "a: b\r\n"), fresh.responseHeaders(200, "a: b\r\n")];
    await worker.until(() => old.pending + fresh.pending === 0);
    expect([old.request.get("x-v"), a.get("x-v"), fresh.request.get("x-v"), b.get("x-v")]).toEqual([
      "1",
      "1",
      "2",
      "2",
    ]);
    old.end();
    before.dispose();
    const last = new Exchange(worker, [stubs(worker, after)], HEAD);
    await last.requestHeaders().settled();
    expect(last.request.get("x-v")).toBe("2");
  });

  it("fails what is still in a generation when it is disposed of", async () => {
    const sandbox = await worker.sandbox(
      filter(`onRequestHeaders() { return new Promise(() => {}); }`),
    );
    const e = new Exchange(worker, [stubs(worker, sandbox)], HEAD).requestHeaders();
    worker.flush();
    sandbox.dispose();
    await e.settled();
    expect(e.reply?.status).toBe(500);
  });

  it("hands over what the generation before left", async () => {
    const code = filter(
      `onRequestHeaders(h) { h.set("x-n", String(++n)); }`,
      "let n = cx.previous ?? 0; cx.onHandover(() => n)",
    );
    const before = await worker.sandbox(code);
    await new Exchange(worker, [stubs(worker, before)], HEAD).requestHeaders().settled();
    const left = await before.handover();
    const after = await worker.unprepared(code);
    await after.prepare([{ id: 1, config: {}, place: "/", previous: left.get(1) }]);
    const e = new Exchange(worker, [stubs(worker, after)], HEAD);
    await e.requestHeaders().settled();
    expect(e.request.get("x-n")).toBe("2");
  });

  it.each([
    ["new Map()", "onHandover threw: its state is a Map;"],
    ["({ seen: { of: [new Date()] } })", 'onHandover threw: "seen.of.0" of its state is a Date;'],
    ["({ rate: 0 / 0 })", 'onHandover threw: "rate" of its state is NaN;'],
    ["({ bytes: new Uint8Array(1) })", 'onHandover threw: "bytes" of its state is a Uint8Array;'],
    ["(() => { const all = {}; all.self = all; return all; })()", 'self" of its state is too deep'],
  ])("hands nothing over of %s, which JSON would change, and says so", async (state, said) => {
    const sandbox = await worker.sandbox(filter("", `cx.onHandover(() => ${state})`));
    expect((await sandbox.handover()).size).toBe(0);
    await worker.until(() => worker.faults.length === 1);
    expect(worker.faults[0]!.reason).toContain(said);
  });

  it("takes further uses while it is down, and keeps the old ones if the new are refused", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `onRequestHeaders(h) { if (h.path === "/loop") ${LOOP} h.set("x-n", config.n); }`,
        'if (config.n === "bad") throw new Error("no")',
      ),
      [{ n: "one" }],
    );
    const ask = (use: number, path = "/"): Promise<Exchange> =>
      new Exchange(worker, [stubs(worker, sandbox, use)], get(path)).requestHeaders().settled();
    await ask(1, "/loop");
    expect(sandbox.ready).toBe(false);
    const refusals = await sandbox.prepare([{ id: 2, config: { n: "bad" }, place: "/bad" }]);
    expect(refusals[0]!.place).toBe("/bad");
    await worker.until(() => sandbox.ready);
    await ask(1, "/loop");
    expect(await sandbox.prepare([{ id: 3, config: { n: "three" }, place: "/" }])).toEqual([]);
    const [one, three] = [await ask(1), await ask(3)];
    expect([one.request.get("x-n"), three.request.get("x-n")]).toEqual(["one", "three"]);
  });

  it("takes further uses and drops others while streams pass", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `onRequestHeaders(h) { h.set("x-n", config.n); }`,
        "cx.onDispose(() => cx.log.info(config.n))",
      ),
      [{ n: "one" }],
    );
    const refusals = sandbox.prepare([{ id: 7, config: { n: "seven" }, place: "/" }]);
    const e = new Exchange(worker, [stubs(worker, sandbox, 1)], HEAD).requestHeaders();
    expect(await refusals).toEqual([]);
    await e.settled();
    const f = await new Exchange(worker, [stubs(worker, sandbox, 7)], HEAD)
      .requestHeaders()
      .settled();
    expect([e.request.get("x-n"), f.request.get("x-n")]).toEqual(["one", "seven"]);
    await sandbox.release(1);
    expect(worker.logged.map((line) => line.message)).toEqual(["one"]);
  });
});

it("keeps no memory of streams that have ended", async () => {
  const sandbox = await worker.sandbox(
    filter(
      `big: new Array(100).fill(stream), async onRequestHeaders(h) { h.set("x-a", h.path); if (h.path.endsWith("7")) return new Promise(() => {}); }, onResponseHeaders(h) { h.set("x-b", "1"); }, onEnd() { ended.inc(); }`,
      `const ended = cx.stats.counter("ended")`,
    ),
    [{}],
    { limits: { timeoutMs: 5000 } },
  );
  const factory = stubs(worker, sandbox);
  const batch = (): void => {
    const all = Array.from({ length: 100 }, (_, k) =>
      new Exchange(worker, [factory], get(`/${k}`)).requestHeaders(),
    );
    worker.flush();
    for (const e of all) e.responseHeaders(200, "server: up\r\n");
    worker.flush();
    for (const e of all) e.end();
    worker.flush();
  };
  for (let k = 0; k < 200; k++) batch();
  sandbox.expire(0);
  const before = sandbox.memoryUsed;
  for (let k = 0; k < 800; k++) batch();
  await worker.until(() => {
    sandbox.expire(0);
    return worker.stat("ended") === 100_000;
  });
  expect(sandbox.live).toBe(0);
  expect(sandbox.memoryUsed - before).toBeLessThan(12 * 1024 * 1024);
});

it("tells a stream of its end though another one begins in the same crossing", async () => {
  const sandbox = await worker.sandbox(
    filter(
      `async onRequestHeaders(h) { if (h.path === "/waits") await new Promise(() => {}); h.set("x-n", "seen"); }, onEnd() { ended.inc(); }`,
      `const ended = cx.stats.counter("ended")`,
    ),
  );
  const factory = stubs(worker, sandbox);
  for (let k = 1; k <= 5; k++) {
    const old = new Exchange(worker, [factory], get("/waits")).requestHeaders();
    worker.flush();
    const next = new Exchange(worker, [factory], get("/"));
    let verdict: unknown = "none";
    worker.crossing(() => {
      old.end();
      worker.inCrossing = FakeWorker.gated;
      const lane = next.filters[0]!.onRequestHeaders!(next.request, true) as PromiseLike<unknown>;
      lane.then((told) => {
        verdict = told;
      });
    });
    await worker.until(() => verdict !== "none");
    expect([verdict, next.request.get("x-n")]).toEqual([undefined, "seen"]);
    next.end();
    worker.flush();
    await worker.until(() => {
      sandbox.expire(0);
      return worker.stat("ended") === 2 * k;
    });
  }
});

it("ends after it has told its package of the last streams' ends", async () => {
  const sandbox = await worker.sandbox(
    filter(
      `onRequestHeaders() {}, onEnd() { cx.log.info("ended"); }`,
      `cx.onDispose(() => cx.log.info("disposed"))`,
    ),
  );
  const exchanges = Array.from({ length: 300 }, () =>
    new Exchange(worker, [stubs(worker, sandbox)], get("/")).requestHeaders(),
  );
  await Promise.all(exchanges.map((e) => e.settled()));
  for (const e of exchanges) e.end();
  worker.flush();
  await sandbox.finish();
  const told = worker.logged.map(({ message }) => message);
  expect(told).toEqual([...exchanges.map(() => "ended"), "disposed"]);
  expect(sandbox.ready).toBe(false);
});
