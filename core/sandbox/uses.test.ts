import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GATE } from "../inside/sandbox/layout.ts";
import { Exchange, FakeWorker, stubs } from "./fake-worker.ts";
import type { Sandbox } from "./sandbox.ts";

const LOOP = "for (;;) {}";
const MICROTASKS = "const again = () => void Promise.resolve().then(again); again();";
const THROW = 'throw new Error("not again")';

/** `what` runs in the setup of a use whose config says so once a runtime value says so too. */
const code = (what: string) => `
  import { defineHttpFilter, Type } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Object({}), setup(config, cx) {
    const fails = () => cx.runtime.integer("fails", 0);
    if (config.bad && fails() === 1) { ${what} }
    const later = async (headers) => {
      while (fails() === 1) await new Promise((resolve) => setTimeout(resolve, 1));
      headers.set("x-seen", String(fails()));
    };
    return () => ({
      onRequestHeaders(headers) {
        if (headers.path === "/loop") ${LOOP}
        if (headers.path === "/later") return later(headers);
        headers.set("x-seen", String(fails()));
      },
    });
  } });`;
const GOOD = 1;
const BAD = 2;

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

const ask = (sandbox: Sandbox, use: number, path = "/") =>
  new Exchange(
    worker,
    [stubs(worker, sandbox, use)],
    `GET ${path} HTTP/1.1\r\nhost: example.com\r\n`,
  );

/** All requests are with the sandbox before it has answered any. */
async function together(
  sandbox: Sandbox,
  ...asked: readonly (readonly [use: number, path: string])[]
): Promise<(number | string | undefined)[]> {
  const exchanges = asked.map(([use, path]) => ask(sandbox, use, path));
  worker.together(() => {
    for (const exchange of exchanges) exchange.requestHeaders();
  });
  for (const exchange of exchanges) await exchange.settled();
  return exchanges.map(({ request, reply }) => reply?.status ?? request.get("x-seen"));
}

const fails = (value: number) => JSON.stringify([["fails", value]]);

/** Two uses, and the isolate is lost when the setup of one of them has begun to fail. */
async function lost(what: string, options: object = {}, bads = 1) {
  const clock = { now: 1000 };
  const uses = [{}, ...Array.from({ length: bads }, () => ({ bad: true }))];
  const sandbox = await worker.sandbox(code(what), uses, {
    limits: { timeoutMs: 250 },
    now: () => clock.now,
    ...options,
  });
  await sandbox.setRuntime(fails(1));
  await together(sandbox, [GOOD, "/loop"]);
  /** As once a second in a worker. */
  const passes = (ms: number) => {
    clock.now += ms;
    sandbox.expire(clock.now);
  };
  return { sandbox, passes };
}

/** Faults that nobody can be charged with: the isolate is gone, and not built for a second. */
async function down(sandbox: Sandbox): Promise<void> {
  for (let k = 0; k < 3; k++) {
    await sandbox.prepare([]);
    sandbox.isolate!.gate[GATE.FAULT] = 1;
    sandbox.isolate!.gate[GATE.ENTRIES] = 1;
    sandbox.wantsEntry();
  }
  expect(sandbox.ready).toBe(false);
}

const isBack = (sandbox: Sandbox) => () => worker.isIdle && sandbox.takes(0, { use: BAD, part: 0 });

describe("a use whose setup fails in an isolate that is built anew", () => {
  it.each([
    ["throws", THROW],
    ["loops", LOOP],
    ["loops in promises", MICROTASKS],
  ])("is left alone when it %s, and the others run on", async (_how, what) => {
    const { sandbox } = await lost(what);
    // Both wait for the new isolate.
    expect(await together(sandbox, [BAD, "/"], [GOOD, "/"])).toEqual([500, "1"]);
    expect(await together(sandbox, [GOOD, "/"], [BAD, "/"], [GOOD, "/"])).toEqual(["1", 500, "1"]);
    expect([sandbox.counts.faults, sandbox.counts.rebuilt]).toEqual([2, 1]);
    expect(worker.faults.map(({ place, openMs }) => [place, openMs])).toEqual([
      ["/uses/0", undefined],
      ["/uses/1", 1000],
    ]);
  });

  it("is left alone with as many others as there are, which is no fault of the whole package", async () => {
    const { sandbox } = await lost(THROW, {}, 20);
    expect(await together(sandbox, [GOOD, "/"], [BAD + 19, "/"])).toEqual(["1", 500]);
    expect([sandbox.counts.faults, sandbox.counts.rebuilt]).toEqual([21, 1]);
  });

  it("is tried again after its back-off, which doubles", async () => {
    const { sandbox, passes } = await lost(THROW);
    await worker.until(() => sandbox.ready);
    passes(1000);
    await worker.until(() => sandbox.counts.faults === 3);
    expect(worker.faults.at(-1)).toMatchObject({ place: "/uses/1", openMs: 2000 });
    await sandbox.setRuntime(fails(0));
    passes(2000);
    await worker.until(isBack(sandbox));
    expect(await together(sandbox, [BAD, "/"])).toEqual(["0"]);
    expect(sandbox.counts.rebuilt).toBe(1);
  });

  it("costs the others nothing when it loops as it is tried again", async () => {
    const { sandbox, passes } = await lost(LOOP);
    await worker.until(() => sandbox.ready);
    passes(1000);
    // It loops on another thread for seconds.
    for (let k = 0; k < 5; k++) {
      await new Promise(setImmediate);
      expect(await together(sandbox, [GOOD, "/"])).toEqual(["1"]);
      expect(sandbox.counts.faults).toBe(2);
    }
    await worker.until(() => sandbox.counts.faults === 3);
    expect(await together(sandbox, [GOOD, "/"], [BAD, "/"])).toEqual(["1", 500]);
    expect(sandbox.counts.rebuilt).toBe(1);
  });

  it("is not set up with further uses while it is left alone", async () => {
    const { sandbox } = await lost(THROW);
    await worker.until(() => sandbox.ready);
    await down(sandbox);
    expect(await sandbox.prepare([{ id: 3, config: {}, place: "/uses/2" }])).toEqual([]);
    expect(sandbox.ready).toBe(true);
  });

  it("does not refuse further uses that are set up with it", async () => {
    const sandbox = await worker.sandbox(code(THROW), [{}, { bad: true }]);
    await down(sandbox);
    await sandbox.setRuntime(fails(1));
    expect(await sandbox.prepare([{ id: 3, config: {}, place: "/uses/2" }])).toEqual([]);
    expect([sandbox.ready, worker.faults.at(-1)]).toMatchObject([
      true,
      { place: "/uses/1", reason: expect.stringContaining("not again"), openMs: 1000 },
    ]);
  });
});

describe("a use that is new", () => {
  const prepare = (sandbox: Sandbox, ...configs: object[]) =>
    sandbox.prepare(configs.map((config, k) => ({ id: 7 + k, config, place: `/uses/${6 + k}` })));

  it.each([
    ["loops", LOOP, "setup did not return"],
    ["loops in promises", MICROTASKS, "setup did not return"],
    [
      "hoards",
      "const all = []; for (;;) all.push(new Array(1e5).fill(0));",
      "setup took all memory",
    ],
  ])(
    "is refused when its setup %s, and those that run lose nothing",
    async (_how, what, message) => {
      const sandbox = await worker.sandbox(code(what));
      await sandbox.setRuntime(fails(1));
      const pending = ask(sandbox, GOOD, "/later").requestHeaders();
      worker.flush();
      const refusals = await prepare(sandbox, {}, { bad: true }, {});
      expect(refusals).toMatchObject([{ message, place: "/uses/7", stopped: true }]);
      await sandbox.setRuntime(fails(2));
      await pending.settled();
      expect([pending.reply, pending.request.get("x-seen")]).toEqual([undefined, "2"]);
      expect([sandbox.counts.faults, sandbox.counts.rebuilt]).toEqual([0, 0]);
    },
  );

  it("is named when it loops in promises among the first ones", async () => {
    const sandbox = await worker.unprepared(code(MICROTASKS));
    await sandbox.setRuntime(fails(1));
    expect(await prepare(sandbox, {}, { bad: true }, {})).toMatchObject([
      { place: "/uses/7", message: "setup did not return", stopped: true },
    ]);
    expect(await prepare(sandbox, {}, {})).toEqual([]);
  });
});

describe("uses of a change that is given up while they are set up", () => {
  const NEW = { id: 7, config: { bad: true }, place: "/uses/6" };

  it.each([
    ["there is an isolate", async () => {}],
    ["there is none", down],
  ])("are gone when the isolate is built anew, if %s", async (_when, begin) => {
    const sandbox = await worker.sandbox(code(THROW));
    await begin(sandbox);
    const before = worker.faults.length;
    const prepared = sandbox.prepare([NEW]);
    void sandbox.release(NEW.id);
    expect(await prepared).toEqual([]);
    await sandbox.setRuntime(fails(1));
    sandbox.isolate!.gate[GATE.FAULT] = sandbox.isolate!.gate[GATE.ENTRIES] = 1;
    sandbox.wantsEntry();
    await worker.until(() => sandbox.ready);
    expect(worker.faults.slice(before).map(({ place }) => place)).not.toContain(NEW.place);
  });

  it("are waited for by the next change, which uses their isolate", async () => {
    let isolates = 0;
    const onMade = async () => void isolates++;
    const sandbox = await worker.unprepared(code(""), { onMade });
    const given = sandbox.prepare([NEW]);
    void sandbox.release(NEW.id);
    expect(await sandbox.prepare([{ ...NEW, id: 8 }])).toEqual([]);
    expect(await given).toEqual([]);
    expect(isolates).toBe(1);
  });
});

describe("what changes while an isolate is built anew", () => {
  /** `change` happens when the new isolate has loaded its code. */
  const during = async (change: (sandbox: Sandbox) => void) => {
    let isolates = 0;
    const onMade = async () => void (++isolates === 2 && change(worker.boxes[0]!));
    return (await lost("", { onMade })).sandbox;
  };

  it("is told to it: runtime values", async () => {
    const sandbox = await during((sandbox) => void sandbox.setRuntime(fails(2)));
    expect(await together(sandbox, [GOOD, "/"])).toEqual(["2"]);
  });

  it("is told to it: uses that have ended", async () => {
    const sandbox = await during((sandbox) => void sandbox.release(BAD));
    expect(await together(sandbox, [GOOD, "/"], [BAD, "/"])).toEqual(["1", 500]);
  });
});
