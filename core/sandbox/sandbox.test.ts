import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Exchange, FakeWorker, linesOf, stubs, textOf } from "./fake-worker.ts";

const HEAD = "GET /a?b=c HTTP/1.1\r\nhost: example.com\r\nuser-agent: curl\r\nx-trace: 17\r\n";

/** A package whose filter has these members. */
const filter = (members: string, setup = ""): string => `
  import { defineHttpFilter, reply, hold, done, lastChunk, Type, ConfigError, HeaderLine, headerName } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Object({}), setup(config, cx) { ${setup};
    return (stream) => ({ ${members} });
  } });`;

const FAULTY = { type: "reply", status: 500 };

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

async function exchange(
  code: string,
  head = HEAD,
  configs: readonly unknown[] = [{}],
): Promise<Exchange> {
  return new Exchange(worker, [stubs(worker, await worker.sandbox(code, configs))], head);
}

describe("heads", () => {
  it("shows the request to the filter and its edits to the chain", async () => {
    const e = await exchange(
      filter(`onRequestHeaders(h, end) {
        h.set("x-saw", [h.method, h.path, h.authority, h.get("X-Trace"), end, h.has("nope")].join(" "));
        h.remove("user-agent"); h.append("x-two", "1"); h.append("x-two", "2");
      }`),
    );
    await e.requestHeaders().settled();
    expect(linesOf(e.request)).toEqual([
      "host: example.com",
      "x-trace: 17",
      "x-saw: GET /a?b=c example.com 17 true false",
      "x-two: 1",
      "x-two: 2",
    ]);
  });

  it("edits method, path and host", async () => {
    const e = await exchange(
      filter(
        `onRequestHeaders(h) { h.method = "PUT"; h.path = "/new"; h.authority = "other:81"; stream.clearRoute(); }`,
      ),
    );
    await e.requestHeaders().settled();
    expect([e.request.method, e.request.path, e.request.authority, e.cleared]).toEqual([
      "PUT",
      "/new",
      "other:81",
      1,
    ]);
  });

  it("lets the next filter see what the one before edited, and take it back", async () => {
    const one = stubs(
      worker,
      await worker.sandbox(
        filter(`onRequestHeaders(h) { h.set("x-a", "1"); h.append("x-b", "é"); h.path = "/p"; }`),
      ),
    );
    const two = stubs(
      worker,
      await worker.sandbox(
        filter(
          `onRequestHeaders(h) { h.set("x-c", h.get("x-a") + h.get("x-b") + h.path); h.remove("x-a"); }`,
        ),
      ),
    );
    const e = new Exchange(worker, [one, two], HEAD);
    await e.requestHeaders().settled();
    expect(linesOf(e.request).slice(3)).toEqual(["x-b: é", "x-c: 1é/p"]);
  });

  it("edits the response, its status and what lines of a filter before say", async () => {
    const inner = stubs(
      worker,
      await worker.sandbox(
        filter(
          `onResponseHeaders(h) { h.appendLine(new HeaderLine("x-line", "v")); h.set("server", "inner"); }`,
        ),
      ),
    );
    const outer = stubs(
      worker,
      await worker.sandbox(
        filter(
          `onResponseHeaders(h, end) { h.set("x-path", stream.request.path + " " + h.get("x-line") + stream.response.status + end); h.remove("x-line"); h.status = 418; }`,
        ),
      ),
    );
    const e = new Exchange(worker, [outer, inner], HEAD);
    await e.requestHeaders().settled();
    const response = e.responseHeaders(200, "server: up\r\ncontent-type: text/plain\r\n");
    await e.settled();
    expect(response.status).toBe(418);
    expect(linesOf(response)).toEqual([
      "content-type: text/plain",
      "server: inner",
      "x-path: /a?b=c v200true",
    ]);
  });

  it("answers in the place of the upstream", async () => {
    const e = await exchange(
      filter(
        `onRequestHeaders() { return reply(403, { body: "kein Zutritt: ü", headers: [["X-Why", "no"]], flags: ["UAEX"], details: "denied", grpcStatus: 7 }); }`,
      ),
    );
    await e.requestHeaders().settled();
    expect(e.reply).toEqual({
      type: "reply",
      status: 403,
      body: "kein Zutritt: ü",
      headers: [["x-why", "no"]],
      flags: ["UAEX"],
      details: "denied",
      grpcStatus: 7,
    });
  });

  it("answers with a body that is longer than one record", async () => {
    const e = await exchange(
      filter(`onRequestHeaders() { return reply(200, { body: "0123456789".repeat(30000) }); }`),
    );
    await e.requestHeaders().settled();
    expect(e.reply?.body.length).toBe(300_000);
    expect(e.reply?.body.slice(-11)).toBe("90123456789");
  });

  it("answers with bytes that are no text", async () => {
    const e = await exchange(
      filter(`onRequestHeaders() { return reply(200, { body: Uint8Array.of(31, 139, 0, 255) }); }`),
    );
    await e.requestHeaders().settled();
    expect(e.reply?.body).toEqual(Uint8Array.of(31, 139, 0, 255));
  });

  it.each([
    `reply(200, { headers: [["x-a", 5]] })`,
    `reply(200, { headers: { length: 3 } })`,
    `reply(200, { details: 5 })`,
    `lastChunk({})`,
  ])("faults at once at what %s has no text or bytes for", async (answer) => {
    const e = await exchange(filter(`onRequestHeaders() { return ${answer}; }`));
    await e.requestHeaders().settled();
    expect(e.reply).toMatchObject(FAULTY);
  });

  it("carries a head that lies in private memory and one with many lines", async () => {
    const e = await exchange(
      filter(`onRequestHeaders(h) { h.set("x-n", [...h].length + h.get("x-99")); }`),
      `${HEAD}${Array.from({ length: 100 }, (_, k) => `x-${k}: value ${k}\r\n`).join("")}`,
    );
    e.request.detach();
    await e.requestHeaders().settled();
    expect(e.request.get("x-n")).toBe("103value 99");
  });

  it("gives a head that fits no record to the failure policy", async () => {
    const e = await exchange(
      filter(`onRequestHeaders() {}`),
      `${HEAD}x-long: ${"a".repeat(100_000)}\r\n`,
    );
    await e.requestHeaders().settled();
    expect(e.reply?.status).toBe(500);
  });
});

describe("crossings", () => {
  it("costs one record a request for a filter that only has onRequestHeaders, and no answer at the end", async () => {
    const e = await exchange(filter(`onRequestHeaders() {}`));
    await e.requestHeaders().settled();
    e.responseHeaders(200, "server: up\r\n");
    e.responseBody("hello");
    e.end();
    await e.settled();
    expect([worker.records, worker.crossings]).toEqual([1, 1]);
    expect(e.filters[0]!.onResponseHeaders).toBeUndefined();
    expect(e.filters[0]!.onRequestBody).toBeUndefined();
  });

  it("does not park for hooks that the package names and this stream's filter lacks", async () => {
    const code = filter(
      "",
      `const a = { onRequestHeaders() {}, onResponseBody() {} }, b = { onRequestHeaders() {} }; return (stream) => stream.request.path === "/a" ? a : b`,
    );
    const factory = stubs(worker, await worker.sandbox(code));
    const [a, b] = ["/a", "/b"].map(
      (path) => new Exchange(worker, [factory], `GET ${path} HTTP/1.1\r\nhost: x\r\n`),
    );
    await a!.requestHeaders().settled();
    await b!.requestHeaders().settled();
    a!.responseBody("x");
    b!.responseBody("x");
    expect([a!.pending, b!.pending]).toEqual([1, 0]);
    await a!.settled();
  });

  it("enters once for all records of a round", async () => {
    const factory = stubs(
      worker,
      await worker.sandbox(filter(`onRequestHeaders(h) { h.set("x-i", h.path); }`)),
    );
    const all = Array.from(
      { length: 50 },
      (_, k) => new Exchange(worker, [factory], `GET /${k} HTTP/1.1\r\nhost: x\r\n`),
    );
    for (const e of all) e.requestHeaders();
    await worker.until(() => all.every((e) => e.pending === 0));
    expect(worker.crossings).toBe(1);
    expect(all.map((e) => e.request.get("x-i"))).toEqual(all.map((_, k) => `/${k}`));
  });

  it("takes more records than its block holds, in order", async () => {
    const factory = stubs(
      worker,
      await worker.sandbox(
        filter(`onRequestHeaders(h) { h.set("x-i", String(n++)); }`, "let n = 0"),
      ),
    );
    const all = Array.from(
      { length: 1500 },
      (_, k) => new Exchange(worker, [factory], `GET /${k} HTTP/1.1\r\nhost: x\r\n`),
    );
    for (const e of all) e.requestHeaders();
    await worker.until(() => all.every((e) => e.pending === 0));
    expect(all.map((e) => e.request.get("x-i"))).toEqual(all.map((_, k) => String(k)));
    expect(worker.crossings).toBeLessThan(8);
  });

  it("makes the filter from the request although its first hook is of the response", async () => {
    const e = await exchange(
      filter(`path: stream.request.path, onResponseHeaders(h) { h.set("x-path", this.path); }`),
    );
    e.requestHeaders();
    const response = e.responseHeaders(200, "server: up\r\n");
    await e.settled();
    expect([response.get("x-path"), worker.records]).toEqual(["/a?b=c", 2]);
  });

  it("waits for room in the ring and keeps what it must send", async () => {
    const e = await exchange(
      filter(
        `onRequestHeaders(h) { h.set("x-t", h.get("x-trace")); }, onRequestBody(c) { c.replace(new Uint8Array([65])); }`,
      ),
    );
    worker.rooms = 0;
    e.requestHeaders(false);
    worker.flush();
    expect(e.pending).toBe(1);
    worker.rooms = -1;
    worker.again();
    await e.settled();
    expect(e.request.get("x-t")).toBe("17");
    worker.rooms = 0;
    const chunk = e.requestBody("hello");
    worker.flush();
    worker.rooms = -1;
    worker.again();
    await e.settled();
    expect(textOf(chunk)).toBe("A");
  });
});

describe("promises", () => {
  it("answers streams in the order in which their promises settle", async () => {
    const factory = stubs(
      worker,
      await worker.sandbox(
        filter(
          `async onRequestHeaders(h) {
            if (h.path === "/slow") await new Promise((resolve) => { goOn = resolve; });
            else if (h.path === "/fast") await stream.sleep(1);
            else goOn();
            h.set("x-late", h.get("x-trace"));
          }`,
          "let goOn",
        ),
      ),
    );
    const [slow, fast, last] = ["/slow", "/fast", "/last"].map(
      (path) =>
        new Exchange(worker, [factory], `GET ${path} HTTP/1.1\r\nhost: x\r\nx-trace: ${path}\r\n`),
    );
    slow!.requestHeaders();
    fast!.requestHeaders();
    await fast!.settled();
    expect(slow!.pending).toBe(1);
    last!.requestHeaders();
    await slow!.settled();
    expect([fast!.request.get("x-late"), slow!.request.get("x-late")]).toEqual(["/fast", "/slow"]);
  });

  it("answers in the same crossing when a promise has nothing to wait for", async () => {
    const e = await exchange(
      filter(
        `async onRequestHeaders(h) { await null; await null; h.set("x", "1"); return done; }, onResponseHeaders() {}`,
      ),
    );
    await e.requestHeaders().settled();
    expect(e.verdicts[0]).toEqual({ type: "done" });
    e.responseHeaders(200, "server: up\r\n");
    expect(worker.crossings).toBe(1);
  });

  it("gives a promise as much longer as the machine stood still meanwhile", async () => {
    const sandbox = await worker.sandbox(
      filter("onRequestHeaders() { return new Promise(() => {}); }"),
    );
    const e = new Exchange(worker, [stubs(worker, sandbox)], HEAD).requestHeaders();
    const asked = performance.now();
    await worker.until(() => worker.isIdle);
    sandbox.expire(asked + 60_000, 60_000);
    expect(sandbox.counts.late).toBe(0);
    sandbox.expire(performance.now() + 70_000);
    await e.settled();
    expect([sandbox.counts.late, e.reply?.details]).toEqual([1, "filter_timeout"]);
  });

  it("fails only the stream whose promise never settles, after the deadline", async () => {
    const sandbox = await worker.sandbox(
      filter(`onRequestHeaders(h) { if (h.path === "/never") return new Promise(() => {}); }`),
    );
    const factory = stubs(worker, sandbox);
    const asked = performance.now();
    const never = new Exchange(
      worker,
      [factory],
      "GET /never HTTP/1.1\r\nhost: x\r\n",
    ).requestHeaders();
    const fine = new Exchange(worker, [factory], HEAD).requestHeaders();
    await worker.until(() => fine.pending === 0);
    sandbox.expire(asked + 9_000);
    worker.flush();
    expect(never.pending).toBe(1);
    sandbox.expire(performance.now() + 10_001);
    await never.settled();
    expect([never.reply?.status, never.reply?.details, fine.reply]).toEqual([
      504,
      "filter_timeout",
      undefined,
    ]);
    expect([sandbox.counts.late, sandbox.counts.faults, worker.faults[0]?.reason]).toEqual([
      1,
      0,
      "no answer within 10000 ms (1 so far)",
    ]);
  });

  it("drops a verdict that comes after the stream's end", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `async onRequestHeaders(h) { await tick(); h.set("x-late", "1"); }`,
        `let go; const tick = () => new Promise((r) => { cx.timer(r).arm(20); })`,
      ),
    );
    const factory = stubs(worker, sandbox);
    const gone = new Exchange(worker, [factory], HEAD).requestHeaders();
    worker.flush();
    gone.end();
    const next = new Exchange(worker, [factory], HEAD).requestHeaders();
    await next.settled();
    expect([gone.verdicts.length, gone.request.get("x-late"), next.request.get("x-late")]).toEqual([
      0,
      undefined,
      "1",
    ]);
  });
});

describe("bodies and trailers", () => {
  it("shows each chunk and puts other bytes in its place", async () => {
    const e = await exchange(
      filter(
        `onRequestHeaders(h) { h.remove("content-length"); }, onRequestBody(c, end) { const t = c.text().toUpperCase() + (end ? "!" : ""); c.replace(Uint8Array.from(t, (x) => x.charCodeAt(0))); }`,
      ),
      `${HEAD}content-length: 10\r\n`,
    );
    await e.requestHeaders(false).settled();
    const first = e.requestBody("hello", false);
    await e.settled();
    const second = e.requestBody("world");
    await e.settled();
    expect([textOf(first), textOf(second), e.request.has("content-length")]).toEqual([
      "HELLO",
      "WORLD!",
      false,
    ]);
  });

  it("leaves bytes alone that nobody replaced", async () => {
    const e = await exchange(filter(`onResponseBody(c) { n += c.length; }`, "let n = 0"));
    await e.requestHeaders().settled();
    const chunk = e.responseBody("untouched");
    await e.settled();
    expect(textOf(chunk)).toBe("untouched");
  });

  it("carries a long chunk in pieces both ways", async () => {
    const e = await exchange(
      filter(`onRequestBody(c) { const b = c.copy(); b.reverse(); c.replace(b); }`),
    );
    await e.requestHeaders(false).settled();
    const text = Array.from({ length: 100_000 }, (_, k) => String.fromCharCode(65 + (k % 23))).join(
      "",
    );
    const chunk = e.requestBody(text);
    chunk.replace(chunk.copy());
    await e.settled();
    expect(textOf(chunk) === [...text].reverse().join("")).toBe(true);
  });

  it("keeps a copy of the chunk for a filter that waits", async () => {
    const e = await exchange(
      filter(
        `async onRequestBody(c) { await stream.sleep(1); c.replace(Uint8Array.from(c.text() + "?", (x) => x.charCodeAt(0))); }`,
      ),
    );
    await e.requestHeaders(false).settled();
    const chunk = e.requestBody("late");
    await e.settled();
    expect(textOf(chunk)).toBe("late?");
  });

  it("holds a head until the body hook has edited it, and mends its length", async () => {
    const e = await exchange(
      filter(
        `onRequestHeaders(h) { h.set("x-early", "1"); return hold({ max: 5000 }); }, onRequestBody(c) { const h = stream.request; h.set("x-model", JSON.parse(c.text()).model); h.remove("x-early"); c.replace(new Uint8Array(3)); }`,
      ),
      `${HEAD}content-length: 17\r\n`,
    );
    await e.requestHeaders(false).settled();
    expect(e.verdicts).toMatchObject([{ type: "hold", body: "buffer", max: 5000 }]);
    e.requestBody('{"model":"gpt-9"}');
    await e.settled();
    expect(linesOf(e.request).slice(3)).toEqual(["x-model: gpt-9", "content-length: 3"]);
  });

  it.each([
    ["onRequestHeaders", true, 3, "3", { type: "last_chunk", bytes: new Uint8Array(3) }],
    ["onRequestHeaders", false, 3, undefined, FAULTY],
    ["onRequestHeaders", true, 4, undefined, FAULTY],
    ["async onRequestHeaders", true, 3, "3", { type: "last_chunk", bytes: new Uint8Array(3) }],
  ])(
    "gives a body to a head without one: %s, ended %s, told %s",
    async (hook, ended, told, length, verdict) => {
      const code = `${hook}(h) { h.set("content-length", "${told}"); return lastChunk(new Uint8Array(3)); }`;
      const e = await exchange(filter(code));
      await e.requestHeaders(ended).settled();
      expect(e.verdicts).toMatchObject([verdict]);
      expect(e.request.get("content-length")).toBe(length);
    },
  );

  it.each([
    ["c.length", undefined, "5", 0],
    ["6", 500, undefined, 1],
  ])(
    "takes the length %s of a body that it holds as what it is",
    async (length, status, told, faults) => {
      const e = await exchange(
        filter(
          `onRequestHeaders: () => hold(), onRequestBody(c) { stream.request.set("content-length", String(${length})); }`,
        ),
      );
      await e.requestHeaders(false).settled();
      e.requestBody("hello");
      await e.settled();
      expect([e.reply?.status, e.request.get("content-length")]).toEqual([status, told]);
      expect([worker.faults.length, worker.malformations.length]).toEqual([faults, 0]);
    },
  );

  it("fails a stream whose body changes its length behind a content-length that has gone out", async () => {
    const e = await exchange(
      filter(`onRequestBody(c) { c.replace(new Uint8Array(99)); }`),
      `${HEAD}content-length: 5\r\n`,
    );
    await e.requestHeaders(false).settled();
    e.requestBody("hello");
    await e.settled();
    expect([e.reply?.status, worker.malformations.length]).toEqual([500, 1]);
  });

  it("shows trailers and takes edits of them", async () => {
    const e = await exchange(
      filter(`onRequestTrailers(t) { t.set("x-sum", t.get("x-a") + "!"); t.remove("x-a"); }`),
    );
    await e.requestHeaders(false).settled();
    const trailers = e.requestTrailers("x-a: 1\r\n");
    await e.settled();
    expect(linesOf(trailers)).toEqual(["x-sum: 1!"]);
  });
});

it("has what browsers and Node have beside the language", async () => {
  const e = await exchange(
    filter(
      `async onRequestHeaders(h) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        const url = new URL(h.path, "http://" + h.authority);
        const text = new TextDecoder().decode(new TextEncoder().encode(atob(btoa("ok"))));
        h.set("x-got", [url.searchParams.get("b"), text, structuredClone({ n: 1 }).n].join(" "));
      }`,
    ),
  );
  e.requestHeaders();
  await worker.until(() => e.request.has("x-got"));
  expect(e.request.get("x-got")).toBe("c ok 1");
});

describe("what a filter knows", () => {
  it("has its config, the per-route config and the stream's addresses", async () => {
    const code = filter(
      `onRequestHeaders(h) { h.set("x-seen", JSON.stringify([config.n, stream.routeConfig, stream.info.downstreamRemoteAddress.ip, stream.info.connectionId])); }`,
    );
    const sandbox = await worker.sandbox(code, [{ n: 1 }, { n: 2 }]);
    const e = new Exchange(worker, [stubs(worker, sandbox, 2)], HEAD, { label: "größe" });
    await e.requestHeaders().settled();
    expect(e.request.get("x-seen")).toBe('[2,{"label":"größe"},"192.0.2.7",9]');
  });

  it("sets a per-route config up once", async () => {
    const code = `
      import { defineHttpFilter, Type } from "@tsproxy/sdk";
      let n = 0;
      export default defineHttpFilter({ name: "test", config: Type.Object({}), routeConfig: Type.Object({}),
        setupRoute: (config) => ({ text: config.label + " " + ++n }),
        setup: () => (stream) => ({ onRequestHeaders(h) { h.set("x-seen", stream.routeConfig.text + " of " + stream.routeConfigs.length); } }),
      });`;
    const sandbox = await worker.sandbox(code, [{}]);
    const route = { label: "größe" };
    for (let k = 0; k < 2; k++) {
      const e = new Exchange(worker, [stubs(worker, sandbox)], HEAD, route);
      await e.requestHeaders().settled();
      expect(e.request.get("x-seen")).toBe("größe 1 of 1");
    }
  });

  it("knows at its end what became of the stream", async () => {
    const e = await exchange(
      filter(
        `onRequestHeaders() {}, onEnd() { cx.log.warn(stream.request.path + " " + stream.info.responseCode); }`,
      ),
    );
    await e.requestHeaders().settled();
    e.stream.info.responseCode = 204;
    e.end();
    await worker.until(() => worker.logged.length === 1);
    expect(worker.logged[0]!.message).toBe("/a?b=c 204");
  });

  it("counts into the worker's stats and logs through core", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `onRequestHeaders() { c.inc(); g.set(7); cx.log.info("größe", { a: 1 }); }`,
        `const c = cx.stats.counter("test.rq"), g = cx.stats.gauge("test.g")`,
      ),
    );
    const e = new Exchange(worker, [stubs(worker, sandbox)], HEAD);
    await e.requestHeaders().settled();
    sandbox.expire(performance.now());
    expect([worker.stat("test.rq"), worker.stat("test.g")]).toEqual([1, 7]);
    expect(worker.logged).toEqual([{ level: "info", message: "größe", fields: { a: 1 } }]);
    sandbox.dispose();
    expect([worker.stat("test.rq"), worker.stat("test.g")]).toEqual([1, 0]);
  });

  it("counts 3000 stats that one setup has defined", async () => {
    const sandbox = await worker.sandbox(
      filter("", 'for (let k = 0; k < 3000; k++) cx.stats.counter("n" + k).inc()'),
    );
    await worker.until(() => worker.stats.has("n2999"));
    sandbox.expire(performance.now());
    const names = Array.from({ length: 3000 }, (_, k) => `n${k}`);
    expect(names.filter((name) => worker.stat(name) !== 1)).toEqual([]);
  });

  it("logs the message where its fields are too long or no JSON", async () => {
    const fields = '{ long: "x".repeat(20_000) }';
    const circular = "(() => { const all = {}; all.self = all; return all; })()";
    const controls = '"\\u0001".repeat(4096)';
    await worker.sandbox(
      filter(
        "",
        `cx.log.error("long", ${fields}); cx.log.warn("circular", ${circular}); cx.log.error(${controls})`,
      ),
    );
    await worker.until(() => worker.logged.length === 3);
    expect(worker.logged.map(({ level, message }) => [level, message])).toEqual([
      ["error", "long"],
      ["warn", "circular"],
      ["error", "\u0001".repeat(2048)],
    ]);
  });

  it("compiles regexes of RE2, and refuses others", async () => {
    const compiled = `
      const pair = cx.regex("(?i)(a+)=(\\\\d*)"), all = [pair.groups, pair.matches("AA=17"), pair.replaceAll("a=1 b", "\\\\2")];
      try { cx.regex("(?=a)") } catch (error) { all.push(error instanceof ConfigError) }`;
    const e = await exchange(
      filter(`onRequestHeaders(h) { h.set("x-saw", all.join(" ")); }`, compiled),
    );
    await e.requestHeaders().settled();
    expect(linesOf(e.request)).toContain("x-saw: 2 true 1 b true");
  });

  it("fires timers of its setup", async () => {
    await worker.sandbox(
      filter(
        "",
        `const c = cx.stats.counter("fired"); cx.timer(() => cx.log.info("fired")).arm(5)`,
      ),
    );
    await worker.until(() => worker.logged.length > 0);
    expect(worker.logged[0]!.message).toBe("fired");
  });

  it("has the time in its module and its setup, from which timers count", async () => {
    const clock = { now: 1_000_000 };
    const say = (when: string) => `setTimeout(() => cx.log.info("${when}"), 1000);`;
    const code = filter(
      "",
      `cx.log.info([at, cx.now(), performance.now()].join(" ")); ${say("fired")}`,
    ).replace("export default", "const at = performance.now(); export default");
    const sandbox = await worker.sandbox(code, [{}], { now: () => clock.now });
    await worker.until(() => worker.logged.length === 1);
    clock.now += 500;
    // A second use of the isolate that serves already.
    await sandbox.prepare([{ id: 2, config: {}, place: "" }]);
    await worker.until(() => worker.logged.length === 2);
    expect(worker.logged.map(({ message }) => message)).toEqual([
      "1000000 1000000 1000000",
      "1000000 1000500 1000500",
    ]);
    clock.now += 600;
    sandbox.enter();
    await worker.until(() => worker.logged.length > 2);
    clock.now += 600;
    sandbox.enter();
    await worker.until(() => worker.logged.length > 3);
    expect(worker.logged.slice(2).map(({ message }) => message)).toEqual(["fired", "fired"]);
  });

  it("keeps no timer of a stream that is over", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `onRequestHeaders() { this.data = new Array(16_384).fill(7); this.timer = cx.timer(() => this.data.pop()); this.timer.arm(60_000); }, onEnd() { this.timer.cancel(); }`,
      ),
    );
    const factory = stubs(worker, sandbox);
    // 256 MiB in all, where 64 are allowed.
    for (let k = 0; k < 2000; k++) {
      const e = new Exchange(worker, [factory], HEAD);
      await e.requestHeaders().settled();
      e.end();
    }
    sandbox.expire(performance.now());
    expect([worker.faults, sandbox.counts.rebuilt]).toEqual([[], 0]);
  });

  it("drops lines of log before they leave no room for answers", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `onRequestHeaders(h) { for (let k = 0; k < 1000; k++) cx.log.info("ü".repeat(4096)); h.set("x-on", "1"); }`,
      ),
      [{}],
      { limits: { timeoutMs: 30_000 } },
    );
    const e = new Exchange(worker, [stubs(worker, sandbox)], HEAD);
    await e.requestHeaders().settled();
    expect([e.reply, e.request.get("x-on")]).toEqual([undefined, "1"]);
    expect(worker.faults).toEqual([]);
    expect(worker.logged.length).toBeGreaterThan(10);
  });

  it("bears a package whose export never answers what it is", async () => {
    const code = `export default { kind: "http", name: "test", config: {}, get setup() { for (;;); } };`;
    await expect(worker.sandbox(code)).rejects.toThrow("setup did not return");
  });

  it("says clearly what a sandbox does not have", async () => {
    const sandbox = await worker.unprepared(filter("", `cx.connect()`));
    const refusals = await sandbox.prepare([{ id: 1, config: {}, place: "/x" }]);
    expect(refusals[0]!.message).toBe(
      'cx.connect is not available in a sandbox; mark the package "trusted"',
    );
    expect(refusals[0]!.stack).toContain("test.js:");
  });

  it("refuses a config with the path that setup names", async () => {
    const sandbox = await worker.unprepared(
      filter("", `if (config.bad) throw new ConfigError("rules[2].name", "is taken")`),
    );
    const refusals = await sandbox.prepare([
      { id: 1, config: {}, place: "/a" },
      { id: 2, config: { bad: true }, place: "/b" },
    ]);
    expect(refusals).toEqual([
      { package: "http/test", place: "/b", path: "rules[2].name", message: "is taken", stack: "" },
    ]);
  });

  it.each([
    ["a module that does not parse", "export default {", "Unexpected end of input"],
    ["one that throws", `throw new Error("at load");`, "at load"],
    ["one that never ends", "for (;;) {}", "setup did not return"],
    ["one without a filter", "export default 7;", "the default export is not a filter"],
    ["one that imports what is not there", `import "node:fs";`, 'cannot import "node:fs"'],
    [
      "a cluster",
      `export default { kind: "cluster", setup() {} };`,
      "a cluster package cannot live in a sandbox",
    ],
  ])("refuses %s", async (_, code, message) => {
    const sandbox = await worker.unprepared(code);
    const [refusal] = await sandbox.prepare([{ id: 1, config: {}, place: "/a" }]);
    expect(refusal?.message).toContain(message);
  });
});
