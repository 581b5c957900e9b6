import { TestCluster, TestContext, TestStream, withDefaults } from "@tsproxy/sdk/testing";
import { describe, expect, it, onTestFinished } from "vitest";
import { Config } from "./config.ts";
import script from "./filter.ts";

const source = (code: string) => ({ code, file: "front.yaml", line: 20, indent: 8 });

function harness(config: object, route?: object) {
  const cx = new TestContext();
  const factory = cx.setup(script, withDefaults(Config, config));
  const routeConfigs = route === undefined ? [] : [withDefaults(Config, route)];
  return { cx, stream: () => new TestStream(cx, factory, { routeConfigs }) };
}
const inline = (code: string, more: object = {}) => harness({ inline: source(code), ...more });

describe("a script", () => {
  it("edits heads, answers, and keeps what stands outside its functions", () => {
    const { stream, cx } = inline(
      `let n = 0;
       function onRequest(req) {
         stats.counter("seen").inc();
         if (req.query("deny") === "1") return reply(403, { body: config.text });
         req.headers.set("x-n", String(++n));
         req.path = "/new";
       }
       function onResponse(res, req) { res.headers.set("x-from", req.path); res.status = 202; }`,
      { config: { text: "no" } },
    );
    expect(stream().requestHeaders("GET", "/?deny=1").reply).toMatchObject({
      status: 403,
      body: "no",
    });
    stream().requestHeaders("GET", "/");
    const s = stream().requestHeaders("GET", "/").responseHeaders(200);
    expect([s.upstream.header("x-n"), s.request.path]).toEqual(["2", "/new"]);
    expect([s.response?.status, s.downstream.header("x-from")]).toEqual([202, "/new"]);
    expect(cx.stats.value("seen")).toBe(3);
  });

  it("may be only the statements of a function", () => {
    const { stream } = harness({
      onRequest: source(
        `if (req.method !== "GET") return reply(405); req.headers.set("x-a", "1");`,
      ),
      onResponse: source(`res.headers.set("x-b", req.method);`),
    });
    expect(stream().requestHeaders("PUT", "/").reply?.status).toBe(405);
    const s = stream().requestHeaders("GET", "/").responseHeaders(200);
    expect([s.upstream.header("x-a"), s.downstream.header("x-b")]).toEqual(["1", "GET"]);
  });

  it.each([
    ["function onRequest() { return 42; }", "number"],
    [`async function onRequest() { return "hello"; }`, '"hello"'],
    ["async function onRequest(req) { await req.text(); return null; }", "object"],
  ])("is told where it stands if it returns what is no verdict: %s", async (code, what) => {
    const s = inline(code).stream();
    s.requestHeaders("POST", "/", {}, false).requestBody("x", true);
    await s.settled();
    expect(String(s.error)).toContain(
      `front.yaml:20: a function of the script returned ${what}; return nothing, or reply(…)`,
    );
  });

  it("may use the names that it finds for something of its own", () => {
    const { stream } = inline(
      `const log = []; let stats = 1; function reply() { return "own"; }
       function onRequest(req) { log.push(reply()); req.headers.set("x-log", log[0] + stats); }`,
    );
    expect(stream().requestHeaders("GET", "/").upstream.header("x-log")).toBe("own1");
  });

  it("may use the parameters of a function for something of its own", () => {
    const { stream } = harness({
      onRequest: source(
        `const { headers } = req;\n{ const req = "own"; headers.set("x-a", req); }`,
      ),
      onResponse: source(`const stream = "own"; res.headers.set("x-b", stream);`),
    });
    const s = stream().requestHeaders("GET", "/").responseHeaders(200);
    expect([s.upstream.header("x-a"), s.downstream.header("x-b")]).toEqual(["own", "own"]);
  });

  it("is told once that a reply was made and not returned", () => {
    const { stream, cx } = inline(
      "const no = reply(400);\nfunction onRequest(req) { if (req.path === '/no') return no; reply(403); }",
    );
    expect(stream().requestHeaders("GET", "/no").reply?.status).toBe(400);
    expect(cx.logged).toEqual([]);
    for (let k = 0; k < 2; k++) expect(stream().requestHeaders("GET", "/").reply).toBeUndefined();
    expect(cx.logged.map(({ message }) => message)).toEqual([
      "front.yaml:20: the script made reply(403) and did not return it, so the stream went on; write: return reply(403)",
    ]);
  });

  it("is told the line that awaits a fetch which fails", async () => {
    const { stream } = inline('async function onRequest() {\n  await fetch("nowhere:/");\n}');
    const s = stream().requestHeaders("GET", "/");
    await s.settled();
    expect(String(s.error)).toMatch(/front\.yaml:21:\d+: no cluster "nowhere"/);
  });

  it("has shared cells", () => {
    const { stream } = inline(
      `const limit = shared.tokenBuckets("k", { maxKeys: 9, maxTokens: 1, tokensPerFill: 1, fillIntervalMs: 1000 });
       function onRequest(req) { if (!limit.take(req.header("x-key") ?? "")) return reply(429); }`,
    );
    const ask = (key: string) =>
      stream().requestHeaders("GET", "/", { "x-key": key }).reply?.status;
    expect([ask("a"), ask("a"), ask("b")]).toEqual([undefined, 429, undefined]);
  });
});

describe("bodies", () => {
  it("are held for a script that reads them, and replaced", async () => {
    const { stream } = inline(
      `async function onRequest(req) {
         const { name } = await req.json();
         if (name === "bad") return reply(400, { body: "bad name" });
         req.body = JSON.stringify({ name: name.toUpperCase() });
       }`,
    );
    const post = async (body: string) => {
      const s = stream().requestHeaders("POST", "/", {}, false);
      expect(s.upstream.head).toBeUndefined();
      for (const char of body) s.requestBody(char, false);
      return s.requestBody("", true).settled();
    };
    expect((await post('{"name":"ada"}')).upstream.body).toBe('{"name":"ADA"}');
    expect((await post('{"name":"bad"}')).reply).toMatchObject({ status: 400, body: "bad name" });
  });

  it("of responses can be replaced unread", () => {
    const { stream } = inline(`function onResponse(res) { res.body = "other"; }`);
    const s = stream().requestHeaders("GET", "/").responseHeaders(200, {}, false);
    s.responseBody("abc", false).responseBody("def");
    expect(s.downstream.chunks).toEqual(["other"]);
  });

  it("may be asked for after a pause", async () => {
    const { stream } = inline(
      `async function onRequest(req, stream) {
         await stream.sleep(50);
         req.headers.set("x-size", String((await req.text()).length));
       }`,
    );
    const s = stream().requestHeaders("POST", "/", {}, false).requestBody("12345");
    await s.advance(100);
    expect(s.upstream.header("x-size")).toBe("5");
  });

  it("that are longer than the limit are refused", async () => {
    const { stream } = inline(`async function onRequest(req) { await req.text(); }`, {
      max_body_bytes: 3,
    });
    const s = stream().requestHeaders("POST", "/", {}, false).requestBody("1234");
    expect((await s.settled()).tooLarge).toBe("request");
  });

  it("are empty where there is none", async () => {
    const { stream } = inline(
      `async function onRequest(req) { req.headers.set("x", "[" + (await req.text()) + "]"); }`,
    );
    const s = await stream().requestHeaders("GET", "/").settled();
    expect(s.upstream.header("x")).toBe("[]");
  });
});

it("asks clusters", async () => {
  const { cx, stream } = inline(
    `async function onRequest(req) {
       const answer = await fetch("auth:/check", { headers: { authorization: req.header("authorization") } });
       if (!answer.ok) return reply(403);
       req.headers.set("x-user", (await answer.json()).user);
     }`,
  );
  const auth = new TestCluster("auth", cx.stats);
  cx.clusterMap.set("auth", auth);
  const ask = async (status: number) => {
    const s = stream().requestHeaders("GET", "/", { authorization: "t" });
    expect([auth.last.path, auth.last.header("authorization")]).toEqual(["/check", "t"]);
    auth.last.respond(status, {}, '{"user":"ada"}');
    return s.settled();
  };
  expect((await ask(200)).upstream.header("x-user")).toBe("ada");
  expect((await ask(401)).reply?.status).toBe(403);
});

describe("errors", () => {
  it("name the place in the user's file, also after an await", async () => {
    const thrown = inline(`function onRequest(req) {\n  req.nope.x;\n}`).stream();
    expect(String(thrown.requestHeaders("GET", "/").error)).toMatch(
      /^TypeError: front\.yaml:21:20: Cannot read properties of undefined/,
    );
    const later = inline(
      `async function onRequest(req, stream) {\n  await stream.sleep(10);\n  throw new Error("late");\n}`,
    ).stream();
    await later.requestHeaders("GET", "/").advance(50);
    expect(String(later.error)).toMatch(/^Error: front\.yaml:22:17: late/);
  });

  it.each([1, 2, 3])("name a place in a file, whose script begins on line 1: line %i", (line) => {
    const before = "\n".repeat(line - 1);
    const code = `${before}function onRequest(req) { req.nope.x; }\n`;
    const file = { code, file: "edge.ts", line: 1, indent: 0 };
    const thrown = harness({ file }).stream();
    expect(String(thrown.requestHeaders("GET", "/").error)).toMatch(
      `TypeError: edge.ts:${line}:36: Cannot read`,
    );
    const body = { code: `${before}req.nope.x;`, file: "edge.json", line: 1, indent: 40 };
    const inner = harness({ onRequest: body }).stream();
    expect(String(inner.requestHeaders("GET", "/").error)).toMatch(
      `TypeError: edge.json:${line}:50: Cannot read`,
    );
  });

  it("of a script that rejects before its body has come are reported once, by the body hook", async () => {
    const unhandled: unknown[] = [];
    const note = (error: unknown) => void unhandled.push(error);
    process.on("unhandledRejection", note);
    onTestFinished(() => void process.off("unhandledRejection", note));
    const { stream } = inline(
      `async function onRequest(req, stream) {\n  void req.text();\n  throw new Error("early");\n}`,
    );
    const s = stream();
    s.requestHeaders("POST", "/", {}, false);
    await new Promise(setImmediate);
    s.requestBody("abc", true);
    await s.settled();
    expect(String(s.error)).toMatch(/^Error: front\.yaml:22:17: early/);
    expect(unhandled).toEqual([]);
  });

  it("of what runs at once refuse the config", () => {
    expect(() => inline("const a = 1;\nnope();")).toThrow("front.yaml:21:9: nope is not defined");
  });

  it("of the config are told: no script, two scripts, a script without hooks", () => {
    const hook = "function onRequest() {}";
    expect(() => harness({})).toThrow("give one of inline, file");
    expect(() => harness({ inline: source(hook), onRequest: source("") })).toThrow("give one of");
    expect(() => inline("const a = 1;")).toThrow("defines neither onRequest nor onResponse");
  });
});

it("gives way to a route's own script", () => {
  const own = { onRequest: source(`return reply(418);`) };
  const { stream } = harness(
    { inline: source("function onRequest() { return reply(200); }") },
    own,
  );
  expect(stream().requestHeaders("GET", "/").reply?.status).toBe(418);
});
