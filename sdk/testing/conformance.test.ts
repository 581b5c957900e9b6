import { expect, test } from "vitest";
import {
  type Chunk,
  type Definition,
  defineBalancer,
  defineHttpFilter,
  defineListenerFilter,
  defineNetworkFilter,
  type HttpFilter,
  type HttpStream,
  hold,
  reply,
  type SetupContext,
  Type,
} from "../index.ts";
import { chunkings, everyChunking } from "./chunkings.ts";
import { TestHost } from "./cluster.ts";
import { conformance, refusal } from "./conformance.ts";
import { TestContext } from "./context.ts";
import { TestStream } from "./http.ts";

const http = (make: (stream: HttpStream, cx: SetupContext) => HttpFilter) =>
  defineHttpFilter({
    name: "test",
    config: Type.Object({}),
    setup: (_config, cx) => (stream) => make(stream, cx),
  });

async function failures(definition: Definition): Promise<string[]> {
  const failed: string[] = [];
  for (const { name, run } of conformance(definition)) {
    try {
      await run();
    } catch (error) {
      failed.push(`${name}: ${(error as Error).message.split("\n")[0]}`);
    }
  }
  return failed;
}

test("a sound filter passes that digests, which Node does on other threads", async () => {
  const digested = async (text: string) =>
    new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  const filter = http(() => ({
    async onRequestHeaders(headers) {
      const [first] = await digested(headers.path);
      const [second] = await digested(String(first));
      headers.set("x-digest", `${first} ${second}`);
    },
  }));
  expect(await failures(filter)).toEqual([]);
  const cx = new TestContext();
  const stream = new TestStream(cx, cx.setup(filter, {})).requestHeaders("GET", "/");
  await stream.settled();
  expect(stream.upstream.header("x-digest")).toBe("138 214");
});

test("a sound filter passes: one that edits, holds, fetches and waits", async () => {
  const filter = http((stream, cx) => ({
    async onRequestHeaders(headers) {
      const answer = await cx.fetch("auth:/check");
      headers.set("x-auth", String(answer.status));
      await stream.sleep(10);
      return hold({ max: 1 << 20 });
    },
    onRequestBody: (chunk) => chunk.replace(chunk.copy().reverse()),
    onResponseHeaders: (headers) => headers.set("x-a", "1"),
  }));
  expect(await failures(filter)).toEqual([]);
});

test.each<[string, HttpFilter | ((stream: HttpStream, cx: SetupContext) => HttpFilter), RegExp]>([
  [
    "a path that it cannot parse",
    { onRequestHeaders: (h) => void decodeURIComponent(h.path) },
    /^throws at no odd head: .*path \/%/,
  ],
  [
    "a body that is no JSON",
    { onRequestBody: (c) => void JSON.parse(c.text()) },
    /^throws at no odd body/,
  ],
  [
    "an end that throws",
    (stream) => ({ onEnd: () => void stream.response!.status }),
    /^survives a reset in every hook: reset before/,
  ],
  [
    "a promise that never settles",
    { onResponseHeaders: () => new Promise(() => {}) },
    /^brings every stream to its end: response headers/,
  ],
  [
    "a timer for each stream that is never cancelled",
    (_stream, cx) => {
      cx.timer(() => {}).arm(1e9);
      return {};
    },
    /^leaves nothing behind.*timers/,
  ],
  [
    "a gauge that is not taken back",
    (_stream, cx) => {
      cx.stats.gauge("active").inc();
      return {};
    },
    /^leaves nothing behind.*gauge active/,
  ],
  [
    "a hold without an end",
    { onRequestHeaders: () => hold({ max: Number.POSITIVE_INFINITY }) },
    /^bounds what it keeps.*Infinity/,
  ],
  [
    "an answer that hangs on how the body is cut",
    { onRequestBody: (c: Chunk) => (c.text().includes('"a"') ? reply(403) : undefined) },
    /^comes to the same however a body is cut/,
  ],
])("a filter is caught with %s", async (_name, filter, expected) => {
  const found = await failures(http(typeof filter === "function" ? filter : () => filter));
  expect(found.some((line) => expected.test(line)) ? "caught" : found).toBe("caught");
});

test("network and listener filters and balancers are looked at as well", async () => {
  const Config = Type.Object({});
  const parser = defineNetworkFilter({
    name: "test",
    config: Config,
    setup: () => ({
      create: (connection) => ({
        onData(chunk) {
          if (!chunk.text().startsWith("GET")) connection.close("abort");
        },
      }),
    }),
  });
  expect(await failures(parser)).toEqual([expect.stringMatching(/however bytes are cut/)]);
  const greedy = defineListenerFilter({
    name: "test",
    config: Config,
    setup: () => () => ({ onBytes: (bytes) => (bytes.length < 4 ? "more" : bytes.length + 1) }),
  });
  expect(await failures(greedy)).toEqual([expect.stringMatching(/takes no more bytes/)]);
  const stranger = defineBalancer({
    name: "test",
    config: Config,
    setup: () => ({ create: () => ({ choose: () => new TestHost() }) }),
  });
  expect(await failures(stranger)).toEqual([expect.stringMatching(/chooses one of its hosts/)]);
});

test("a config that must have fields is asked for them", () => {
  const definition = defineHttpFilter({
    name: "test",
    config: Type.Object({ max: Type.Number(), name: Type.String({ default: "a" }) }),
    setup: () => () => ({}),
  });
  expect(refusal(definition)).toBe("its config must have max");
  expect(refusal(definition, { max: 1 })).toBeUndefined();
});

test("every chunking is tried, and the one that differs is named", async () => {
  const seen: string[][] = [];
  const joined = await everyChunking("abc", (chunks) => {
    seen.push([...chunks]);
    return chunks.join("");
  });
  expect(joined).toBe("abc");
  expect(seen.slice(1)).toEqual(chunkings("abc"));
  await expect(everyChunking("abc", (chunks) => chunks[0]!.length > 1)).rejects.toThrow(
    'cut as ["a","b',
  );
});

test("a fetch is answered by the cluster's fake upstream, or cut", async () => {
  const cx = new TestContext();
  const asked: string[] = [];
  cx.cluster("auth", ({ method, path, body }) => {
    asked.push(`${method} ${path} ${body}`);
    return path === "/cut" ? "reset" : { status: 403, headers: { "x-why": "no" }, body: "denied" };
  });
  const answer = await cx.fetch("auth:/check?a=1", { method: "POST", body: "who" });
  expect([answer.status, answer.headers.get("x-why"), await answer.text()]).toEqual([
    403,
    "no",
    "denied",
  ]);
  await expect(cx.fetch("auth:/cut")).rejects.toThrow(/cut: connection_closed/);
  await expect(cx.fetch("other:/")).rejects.toThrow('no cluster "other"');
  expect(asked).toEqual(["POST /check?a=1 who", "GET /cut "]);
});

test("a reload in mid-stream: the old stream ends with the old filter, new ones have its state", async () => {
  const counting = (version: string) =>
    defineHttpFilter({
      name: "test",
      config: Type.Object({}),
      setup(_config, cx) {
        let seen = (cx.previous as number | undefined) ?? 0;
        cx.onHandover(() => seen);
        return () => ({
          onRequestHeaders: (headers) => headers.set("x-count", `${version}${++seen}`),
          onRequestBody: (chunk) => chunk.replace(new TextEncoder().encode(version)),
        });
      },
    });
  const cx = new TestContext();
  const old = new TestStream(cx, cx.setup(counting("a"), {}));
  old.requestHeaders("POST", "/", {}, false);
  const next = cx.reload();
  const young = new TestStream(next, next.setup(counting("b"), {}));
  young.requestHeaders("POST", "/", {}, false).requestBody("x");
  old.requestBody("x");
  expect([old, young].map(({ upstream }) => [upstream.header("x-count"), upstream.body])).toEqual([
    ["a1", "a"],
    ["b2", "b"],
  ]);
  old.end();
  cx.dispose();
});
