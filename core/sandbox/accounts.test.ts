import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Parts } from "../inside/parts.ts";
import { Accounts } from "./accounts.ts";
import { Exchange, FakeWorker, stubs } from "./fake-worker.ts";
import type { Sandbox } from "./sandbox.ts";

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: example.com\r\n`;
const LOOP = "for (;;) {}";

/** A package with two uses: the one whose config says so does what a path names. */
const CODE = `
  import { defineHttpFilter, Type } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Object({}), setup(config, cx) {
    if (config.timer) cx.timer(() => { ${LOOP} }).arm(1);
    return (stream) => {
      const isBad = () => (stream.routeConfig ?? config).bad === true;
      return {
        onRequestHeaders(headers) {
          if (isBad() && headers.path === "/loop") ${LOOP}
          if (isBad() && headers.path === "/later") return (async () => { await null; ${LOOP} })();
          if (headers.path === "/nap") return (async () => {
            await stream.sleep(5);
            if (isBad()) ${LOOP}
            headers.set("x-seen", "request");
          })();
          if (headers.path === "/wait") return new Promise(() => {});
          headers.set("x-seen", "request");
        },
        onResponseHeaders(headers) { headers.set("x-seen", "response"); },
        onEnd() { if (isBad() && stream.request.path === "/end") ${LOOP} },
      };
    };
  } });`;
const GOOD = 1;
const BAD = 2;

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

const build = (more: object = {}, good: object = {}, bad: object = { bad: true }) =>
  worker.sandbox(CODE, [good, bad], { limits: { timeoutMs: 250 }, ...more });

/** All requests are with the sandbox before it has answered any. */
async function together(
  sandbox: Sandbox,
  ...asked: readonly (readonly [use: number, path: string])[]
): Promise<Exchange[]> {
  const exchanges = asked.map(
    ([use, path]) => new Exchange(worker, [stubs(worker, sandbox, use)], get(path)),
  );
  worker.together(() => {
    for (const exchange of exchanges) exchange.requestHeaders();
  });
  for (const exchange of exchanges) await exchange.settled();
  return exchanges;
}

const outcome = ({ request, reply }: Exchange) => reply?.status ?? request.get("x-seen");

/** One after the other, until its breaker is open. */
async function openFor(sandbox: Sandbox, path = "/loop"): Promise<void> {
  for (let k = 0; k < 10 && sandbox.breaker !== "open"; k++) await together(sandbox, [BAD, path]);
  expect(sandbox.breaker).toBe("open");
}

describe("a loop of one use", () => {
  it("costs no request of another use that waits behind it, or was answered before it", async () => {
    const sandbox = await build();
    const all = await together(
      sandbox,
      [GOOD, "/"],
      [BAD, "/loop"],
      [GOOD, "/"],
      [BAD, "/"],
      [GOOD, "/"],
    );
    expect(all.map(outcome)).toEqual(["request", 500, "request", "request", "request"]);
    expect(sandbox.counts.faults).toBe(1);
  });

  it("costs a request of another use only if the hook that waits for its promise has begun", async () => {
    const sandbox = await build();
    const factory = stubs(worker, sandbox, GOOD);
    const waits = new Exchange(worker, [factory], get("/wait")).requestHeaders();
    worker.flush();
    await together(sandbox, [BAD, "/loop"]);
    await waits.settled();
    expect(outcome(waits)).toBe(500);
  });

  it("opens its breaker and leaves the other use alone", async () => {
    const sandbox = await build({ now: () => 1000 });
    await openFor(sandbox);
    await worker.until(() => sandbox.ready);
    const { faults } = sandbox.counts;
    for (let k = 0; k < 20; k++) {
      const all = await together(sandbox, [GOOD, "/"], [BAD, "/"], [GOOD, "/"]);
      expect(all.map(outcome)).toEqual(["request", 500, "request"]);
    }
    expect([faults, sandbox.counts.faults]).toEqual([3, 3]);
  });

  it("is tried by one stream alone when its back-off is over", async () => {
    const clock = { now: 1000 };
    const sandbox = await build({ now: () => clock.now });
    /** As once a second in a worker: a use that has rested is set up again. */
    const passes = async (ms: number) => {
      await worker.until(() => sandbox.ready);
      clock.now += ms;
      sandbox.expire(clock.now);
      await worker.until(() => sandbox.takes(0, { use: BAD, part: 0 }));
    };
    await openFor(sandbox);
    await passes(1000);
    const again = await together(sandbox, [GOOD, "/"], [BAD, "/loop"], [GOOD, "/"], [BAD, "/"]);
    expect(again.map(outcome)).toEqual(["request", 500, "request", 500]);
    expect(sandbox.breaker).toBe("open");
    await passes(2000);
    const fine = await together(sandbox, [BAD, "/"], [GOOD, "/"]);
    expect([...fine.map(outcome), sandbox.breaker]).toEqual(["request", "request", "half-open"]);
    for (const exchange of fine) exchange.end();
    await worker.until(() => sandbox.breaker === "closed");
  });

  it.each(["/nap", "/end"])(
    "is one fault for each back-off when the trial loops at %s",
    async (path) => {
      const clock = { now: 1000 };
      const sandbox = await build({ now: () => clock.now });
      await openFor(sandbox);
      for (const ms of [1000, 2000, 4000]) {
        await worker.until(() => sandbox.ready);
        clock.now += ms;
        sandbox.expire(clock.now);
        await worker.until(() => sandbox.takes(0, { use: BAD, part: 0 }));
        const factory = stubs(worker, sandbox, BAD);
        const trial = new Exchange(worker, [factory], get(path)).requestHeaders();
        worker.flush();
        // Its timer fires with the clock, while the stream waits for it.
        await worker.until(() => worker.isIdle);
        clock.now += 10;
        if (path === "/end") await trial.settled();
        trial.end();
        await worker.until(() => sandbox.breaker === "open");
      }
      expect(sandbox.counts.faults).toBe(6);
    },
  );

  it.each(["/later", "/end"])("is charged to it at %s too", async (path) => {
    const sandbox = await build();
    // In the first entry nobody can tell whose promise it is; from then on each use is entered alone.
    for (let k = 0; k < 6 && sandbox.breaker === "closed"; k++) {
      const all = await together(sandbox, [GOOD, "/"], [BAD, path], [GOOD, "/"]);
      for (const exchange of all) exchange.end();
      await worker.until(() => worker.isIdle && sandbox.ready);
    }
    const all = await together(sandbox, [GOOD, "/"], [BAD, "/"]);
    expect(all.map(outcome)).toEqual(["request", 500]);
  });

  it("is charged to it when it follows a pause, and streams of the other use pause too", async () => {
    const sandbox = await build();
    for (let k = 0; k < 6 && sandbox.breaker === "closed"; k++) {
      await together(sandbox, [GOOD, "/nap"], [BAD, "/nap"], [GOOD, "/nap"]);
      await worker.until(() => worker.isIdle && sandbox.ready);
    }
    const all = await together(sandbox, [GOOD, "/"], [BAD, "/"], [GOOD, "/nap"]);
    expect(all.map(outcome)).toEqual(["request", 500, "request"]);
  });

  it("does not refuse the setup of a further use that waits behind it", async () => {
    const sandbox = await build();
    // From now on it runs on another thread.
    await together(sandbox, [BAD, "/loop"]);
    await worker.until(() => sandbox.ready);
    const loops = new Exchange(worker, [stubs(worker, sandbox, BAD)], get("/loop"));
    loops.requestHeaders();
    worker.flush();
    expect(await sandbox.prepare([{ id: 3, config: {}, place: "/uses/2" }])).toEqual([]);
    await loops.settled();
    const all = await together(sandbox, [3, "/"], [GOOD, "/"]);
    expect([outcome(loops), ...all.map(outcome)]).toEqual([500, "request", "request"]);
  });

  it("in a timer of its setup is charged to it: the isolate is built without it while its breaker is open", async () => {
    const sandbox = await build({}, {}, { timer: true });
    await worker.until(() => sandbox.breaker === "open" && sandbox.ready);
    const { rebuilt } = sandbox.counts;
    for (let k = 0; k < 20; k++)
      expect((await together(sandbox, [GOOD, "/"])).map(outcome)).toEqual(["request"]);
    expect(sandbox.counts.rebuilt).toBe(rebuilt);
  });
});

describe("loops of five uses", () => {
  /** They loop one after the other, until each one's breaker is open; `goods`: what another one is asked meanwhile. */
  const afterwards = async (goods: readonly (readonly [use: number, path: string])[]) => {
    const uses = [{}, ...Array.from({ length: 5 }, () => ({ bad: true }))];
    const options = { limits: { timeoutMs: 250 }, now: () => 1000 };
    const sandbox = await worker.sandbox(CODE, uses, options);
    for (let k = 0; k < 15 && sandbox.counts.faults < 15; k++) {
      await together(sandbox, [BAD + (k % 5), "/loop"], ...goods);
      await worker.until(() => worker.isIdle);
    }
    const all = await together(sandbox, [GOOD, "/"], [BAD, "/"], [BAD + 4, "/"]);
    return [...all.map(outcome), sandbox.counts.faults];
  };

  it("leave a use alone that has run well meanwhile", async () => {
    expect(await afterwards([[GOOD, "/"]])).toEqual(["request", 500, 500, 15]);
  });

  it("count for the whole package if nothing else has run", async () => {
    expect(await afterwards([])).toEqual([500, 500, 500, 12]);
  });
});

it("twelve faults in 10 s of places that fail one after the other: each further place is left alone after its first", () => {
  const accounts = new Accounts(10_000);
  const good = { use: 1, part: 0 };
  /** For how long each of these places is left alone after a fault, while a good one runs. */
  const own = (parts: readonly number[], at: number) =>
    parts.map((part, k) => {
      accounts.succeeded(good, [], at + k);
      return accounts.fault({ use: 2, part }, at + k).own;
    });
  expect(own([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 0)).toEqual(Array(11).fill(0));
  expect(own([12, 13, 1], 9000)).toEqual([1000, 1000, 1000]);
  expect(accounts.lets(good, 9003, 2, () => true)).toBe(true);
  // 10 s later they have to be that many again.
  expect(own([14, 15], 30_000)).toEqual([0, 0]);
});

describe("a stream whose request hook ran in an isolate that is lost", () => {
  const streams = async (stateless: boolean, waits: boolean) => {
    const sandbox = await build();
    const factory = stubs(worker, sandbox, GOOD, { stateless });
    const e = new Exchange(worker, [factory], get("/")).requestHeaders();
    await e.settled();
    const bad = new Exchange(worker, [stubs(worker, sandbox, BAD)], get("/loop"));
    if (!waits) await bad.requestHeaders().settled();
    let response = e.request as unknown as ReturnType<Exchange["responseHeaders"]>;
    worker.together(() => {
      if (waits) bad.requestHeaders();
      response = e.responseHeaders(200, "a: b\r\n");
    });
    await e.settled();
    return e.reply?.status ?? response.get("x-seen");
  };

  it.each([false, true])(
    "goes on if the filter is stateless (loop under way: %s)",
    async (waits) => {
      expect(await streams(true, waits)).toBe("response");
    },
  );

  it.each([false, true])("fails if it is not (loop under way: %s)", async (waits) => {
    expect(await streams(false, waits)).toBe(500);
  });
});

it("a route's config is charged apart from the use and from other routes", async () => {
  const told: [number, string][] = [];
  const parts = new Parts((part, place) => told.push([part, place]));
  const sandbox = await build();
  const hooks = sandbox.hooks;
  const routes = [[{ bad: true }], [{}], []] as const;
  const ask = async (k: number, path: string) => {
    const e = new Exchange(worker, [stubs(worker, sandbox, GOOD, { parts, hooks })], get(path));
    Object.assign(e.stream, { routeConfigs: routes[k] });
    return outcome(await e.requestHeaders().settled());
  };
  for (let k = 0; k < 3; k++) expect(await ask(0, "/loop")).toBe(500);
  expect([await ask(0, "/"), await ask(1, "/"), await ask(2, "/")]).toEqual([
    500,
    "request",
    "request",
  ]);
  expect(told.map(([part]) => part)).toEqual([1, 2]);
});
