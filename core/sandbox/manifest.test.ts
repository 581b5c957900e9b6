import { Chunk } from "@tsproxy/sdk";
import { TestConnection } from "@tsproxy/sdk/testing";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HeadGuard } from "../inside/head-guard.ts";
import type { ParkedUse } from "../inside/parked.ts";
import { parkedHttpFactory } from "../inside/parked-http.ts";
import { parkedNetworkFactory } from "../inside/parked-network.ts";
import { CpuShare } from "./cpu-share.ts";
import { Exchange, FakeWorker, linesOf, textOf } from "./fake-worker.ts";
import type { SandboxOptions } from "./options.ts";

const HEAD = "GET /a HTTP/1.1\r\nhost: x\r\nauthorization: secret\r\nx-a: 1\r\n";

/** What packages with a guard say in their manifest. */
const HEADERS = { read: ["host", "x-a", "server"], write: ["x-a", "x-new", ":status"] };

/** More than any promise may take. */
const LATE_MS = 60_000;

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

async function exchange(
  members: string,
  use: Partial<ParkedUse> = {},
  options: Partial<SandboxOptions> = {},
  manifest = use.guard === undefined ? "" : `sandbox: { headers: ${JSON.stringify(HEADERS)} },`,
): Promise<Exchange> {
  const sandbox = await worker.sandbox(
    `import { defineHttpFilter, HeaderLine, hold, Type } from "@tsproxy/sdk";
     export default defineHttpFilter({ name: "test", config: Type.Object({}), ${manifest} setup: () => (stream) => ({ ${members} }) });`,
    [{}],
    options,
  );
  const box = worker.boxes.indexOf(sandbox);
  const factory = parkedHttpFactory({ box, use: 1, hooks: sandbox.hooks, ...use }, worker.table);
  return new Exchange(worker, [factory], HEAD);
}

describe("headers that a manifest names", () => {
  const guard = new HeadGuard(HEADERS);

  it("are all that filters see", async () => {
    const e = await exchange(
      `onRequestHeaders(h) { h.set("x-new", [...h].map(([n]) => n).join() + h.path + h.get("authorization")); }`,
      { guard },
    );
    await e.requestHeaders().settled();
    expect(linesOf(e.request)).toEqual([
      "host: x",
      "authorization: secret",
      "x-a: 1",
      "x-new: host,x-a/aundefined",
    ]);
  });

  it("are all that they change, and others stay where they are", async () => {
    const e = await exchange(
      `onRequestHeaders(h) { h.remove("x-a"); }, onResponseHeaders(h) { h.status = 418; h.append("x-new", "1"); h.append("x-new", "2"); }`,
      { guard },
    );
    await e.requestHeaders().settled();
    const response = e.responseHeaders(200, "server: up\r\nset-cookie: a\r\n");
    await e.settled();
    expect(linesOf(e.request)).toEqual(["host: x", "authorization: secret"]);
    expect([response.status, linesOf(response)]).toEqual([
      418,
      ["server: up", "set-cookie: a", "x-new: 1", "x-new: 2"],
    ]);
  });

  it.each([
    ["authorization", `h.set("authorization", "forged")`],
    ["host", `h.remove("host")`],
    ["host", `h.authority = "b"`],
    [":path", `h.path = "/admin"`],
    [":method", `h.method = "DELETE"`],
    ["x-other", `h.append("x-other", "1")`],
    ["x-other", `h.appendLine(new HeaderLine("x-other", "1"))`],
    ["x-other", `await Promise.resolve(); h.set("x-other", "1")`],
  ])("let nothing else through, and %s is told at its hook: %s", async (name, edit) => {
    const e = await exchange(`async onRequestHeaders(h) { ${edit}; }`, { guard });
    await e.requestHeaders().settled();
    expect(e.reply?.status).toBe(500);
    const { reason, stack } = worker.faults[0]!;
    expect(reason).toBe(
      `onRequestHeaders: it may not write "${name}"; name it in "write" of its manifest's "headers"`,
    );
    expect(stack).toMatch(/^test\.js:\d+:\d+$/);
    expect(worker.malformations).toEqual([]);
    expect(linesOf(e.request)).toEqual(["host: x", "authorization: secret", "x-a: 1"]);
    expect([e.request.path, e.request.method]).toEqual(["/a", "GET"]);
  });

  it("keep out what its isolate sends nevertheless", async () => {
    const unlimited = exchange(`onRequestHeaders(h) { h.set("x-other", "1"); }`, { guard }, {}, "");
    const e = (await unlimited).requestHeaders();
    await e.settled();
    expect([e.reply?.status, worker.malformations]).toEqual([
      500,
      ["edits that HTTP cannot carry, or that it must not make"],
    ]);
    expect(linesOf(e.request)).toEqual(["host: x", "authorization: secret", "x-a: 1"]);
  });

  it("may be edited while a head is held", async () => {
    const e = await exchange(
      `onRequestHeaders(h) { h.set("x-new", "1"); return hold(); }, onRequestBody(c) { stream.request.set("x-new", c.text()); }`,
      { guard },
    );
    await e.requestHeaders(false).settled();
    e.requestBody("body");
    await e.settled();
    expect(e.request.get("x-new")).toBe("body");
  });
});

it("body: read lets filters see bodies and not replace them", async () => {
  const e = await exchange(
    `onRequestHeaders() {}, onRequestBody(c) { if (c.text() === "change") c.replace(new Uint8Array(3)); }`,
    { keepsBodies: true },
  );
  await e.requestHeaders(false).settled();
  const first = e.requestBody("stay", false);
  await e.settled();
  expect([textOf(first), e.reply]).toEqual(["stay", undefined]);
  e.requestBody("change");
  await e.settled();
  expect(e.reply?.status).toBe(500);
});

describe("of a network package", () => {
  const open = async (members: string, use: Partial<ParkedUse>) => {
    const sandbox = await worker.sandbox(
      `import { defineNetworkFilter, stop, Type, utf8Encode } from "@tsproxy/sdk";
       export default defineNetworkFilter({ name: "test", config: Type.Object({}), setup: () => ({ create: (connection, chain) => ({ ${members} }) }) });`,
    );
    const box = worker.boxes.indexOf(sandbox);
    const factory = parkedNetworkFactory(
      { box, use: 1, hooks: sandbox.hooks, ...use },
      worker.table,
    );
    const connection = new TestConnection(9);
    const made = factory.create(connection, connection.chain);
    /** What goes on in the place of the bytes; "closed": nothing does. */
    return async (text: string): Promise<string> => {
      const { at, end } = worker.lend(text);
      let passed: string | undefined;
      void Promise.resolve(made.onData?.(new Chunk(worker.memory, at, end), false)).then(
        (bytes) => {
          passed = bytes === undefined ? text : Buffer.from(bytes as Uint8Array).toString("latin1");
        },
      );
      await worker.until(() => passed !== undefined || !connection.open);
      return passed ?? "closed";
    };
  };

  it("body: read lets it see bytes, stop and go on, and not replace them", async () => {
    const send = await open(
      `onData(c) { if (c.text() === "wait") { setTimeout(() => chain.resumeReading(), 1); return stop; } if (c.text() === "change") c.replace(new Uint8Array(3)); }`,
      { keepsBodies: true },
    );
    expect([await send("stay"), await send("wait"), await send("change")]).toEqual([
      "stay",
      "wait",
      "closed",
    ]);
    expect(worker.malformations).toEqual([
      `bytes of its own, which its manifest does not allow; take "body" out of its "sandbox"`,
    ]);
  });

  it.each([`connection.write(utf8Encode("mine"), 0, 4)`, `chain.injectWrite(utf8Encode("mine"))`])(
    "body: read lets it write nothing by itself: %s",
    async (write) => {
      const send = await open(
        `async onData(c) { ${write}; await new Promise(() => {}); }, onWrite() {}`,
        { keepsBodies: true },
      );
      expect(await send("x")).toBe("closed");
    },
  );

  it("failurePolicy: open lets a connection pass a filter that throws, from there on", async () => {
    const send = await open(
      `onData(c) { if (c.text() === "bad") throw new Error("no"); c.replace(utf8Encode("changed")); }`,
      {
        failsOpen: true,
      },
    );
    expect([await send("good"), await send("bad"), await send("good")]).toEqual([
      "changed",
      "bad",
      "good",
    ]);
  });

  it.each([
    ["closed", {}, "closed"],
    ["open", { failsOpen: true }, "x"],
  ])(
    "a promise that never settles is late, and failurePolicy %s answers",
    async (_policy, use, passes) => {
      const send = await open("onData() { return new Promise(() => {}); }", use);
      const sent = send("x");
      worker.flush();
      worker.boxes[0]!.expire(performance.now() + LATE_MS);
      expect(await sent).toBe(passes);
      if (passes === "x") expect(await send("y")).toBe("y");
    },
  );
});

it("failurePolicy: open lets a stream pass a filter that throws, from there on", async () => {
  const e = await exchange(
    `onRequestHeaders() { throw new Error("no"); }, onResponseHeaders(h) { h.set("x-seen", "1"); }`,
    { failsOpen: true },
  );
  await e.requestHeaders().settled();
  const response = e.responseHeaders(200, "server: up\r\n");
  await e.settled();
  expect([e.reply, linesOf(response), worker.faults.length]).toEqual([
    undefined,
    ["server: up"],
    1,
  ]);
});

it.each([
  ["closed", {}, 504],
  ["open", { failsOpen: true }, undefined],
])(
  "a promise that never settles is late, and failurePolicy %s answers",
  async (_policy, use, status) => {
    const hooks = `onRequestHeaders() { return new Promise(() => {}); }, onResponseHeaders(h) { h.set("x-seen", "1"); }`;
    const e = (await exchange(hooks, use)).requestHeaders();
    worker.flush();
    const [sandbox] = worker.boxes;
    sandbox!.expire(performance.now() + LATE_MS);
    await e.settled();
    expect([e.reply?.status, sandbox!.counts.late]).toEqual([status, 1]);
    if (status !== undefined) return;
    // The filter is not asked any more.
    const response = e.responseHeaders(200, "server: up\r\n");
    await e.settled();
    expect(linesOf(response)).toEqual(["server: up"]);
  },
);

it("disabledBy: a route that says so has no such filter, and nothing goes over for it", async () => {
  const sandbox = await worker.sandbox(
    `import { defineHttpFilter, Type } from "@tsproxy/sdk";
     export default defineHttpFilter({ name: "test", config: Type.Object({}), setup: () => () => ({
       onRequestHeaders(h) { h.set("x-seen", "1"); },
       onResponseHeaders(h) { h.set("x-seen", "1"); },
     }) });`,
  );
  const use = { box: worker.boxes.indexOf(sandbox), use: 1, hooks: sandbox.hooks };
  const seen = async (routeConfig: unknown): Promise<unknown[]> => {
    const factory = parkedHttpFactory({ ...use, disabledBy: "off" }, worker.table);
    const e = new Exchange(worker, [factory], "GET / HTTP/1.1\r\nhost: x\r\n", routeConfig);
    await e.requestHeaders().settled();
    const response = e.responseHeaders(200, "server: up\r\n");
    await e.settled();
    return [e.request.get("x-seen"), response.get("x-seen"), sandbox.counts.entries > 0];
  };
  expect(await seen({ off: true })).toEqual([undefined, undefined, false]);
  expect((await seen({ off: false })).slice(0, 2)).toEqual(["1", "1"]);
});

describe("a share of a CPU", () => {
  it("is waited for by what has used more, with a little ahead after a rest", () => {
    const share = new CpuShare(0.1, 0);
    expect(share.waitMs(0)).toBe(0);
    share.spent(80);
    expect(share.waitMs(0)).toBe(301);
    expect(share.waitMs(200)).toBe(101);
    expect(share.waitMs(301)).toBe(0);
    share.waitMs(100_000);
    share.spent(51);
    expect(share.waitMs(100_000)).toBe(11);
  });

  /** Sends a request, and answers whether it comes back at once. */
  const isAtOnce = (path: string): [boolean, Exchange] => {
    const box = worker.boxes[0]!;
    const factory = parkedHttpFactory({ box: 0, use: 1, hooks: box.hooks }, worker.table);
    const e = new Exchange(worker, [factory], HEAD.replace("/a", path)).requestHeaders();
    worker.flush();
    return [e.pending === 0, e];
  };

  it("holds back who has used it up, and nobody waits for ever", async () => {
    const clock = { now: 1000 };
    await exchange(
      `onRequestHeaders(h) { if (h.path === "/burn") for (let k = 0; k < 1e7; k++) Math.sqrt(k); }`,
      {},
      { cpuShare: 0.5, now: () => clock.now },
    );
    let e: Exchange;
    let isHeld = false;
    while (!isHeld) {
      [isHeld, e] = isAtOnce("/burn");
      isHeld = !isHeld;
    }
    expect(e!.pending).toBe(1);
    clock.now += 60_000;
    await e!.settled();
  });

  it("pays for what an entry took that was stopped", async () => {
    const clock = { now: 1000 };
    const e = await exchange(
      `onRequestHeaders(h) { if (h.path === "/loop") for (;;) {} }`,
      {},
      { cpuShare: 0.1, now: () => clock.now },
    );
    expect(isAtOnce("/loop")[1].reply?.status).toBe(500);
    const [sandbox] = worker.boxes;
    await worker.until(() => sandbox!.ready);
    const { entries } = sandbox!.counts;
    e.requestHeaders();
    worker.flush();
    expect(sandbox!.counts.entries).toBe(entries);
    clock.now += 10_000;
    await e.settled();
    expect([e.reply, sandbox!.counts.entries]).toEqual([undefined, entries + 1]);
  });

  it("is not used up by time in which it did not run", async () => {
    let now = 0;
    // Each look at the clock is 30 ms later, as on a machine with other things to do.
    await exchange(`onRequestHeaders() {}`, {}, { cpuShare: 0.1, now: () => (now += 30) });
    for (let k = 0; k < 20; k++) expect(isAtOnce("/")[0]).toBe(true);
  });
});

it("a quarantined package is never entered: its failure policy answers", async () => {
  const e = await exchange(
    `onRequestHeaders(h) { h.set("x-seen", "1"); }`,
    {},
    { quarantined: true, failurePolicy: "open" },
  );
  await e.requestHeaders().settled();
  expect([e.reply, e.request.has("x-seen"), worker.crossings]).toEqual([undefined, false, 0]);
});
