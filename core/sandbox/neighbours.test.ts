import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Exchange, FakeWorker, linesOf, stubs, textOf } from "./fake-worker.ts";

/** Filters that follow each other in a chain and live in one sandbox: a head goes there once for all of them. */

FakeWorker.gated = true;
let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

const HEAD = "POST / HTTP/1.1\r\nhost: example.com\r\n";
/** Each filter notes its name in `x-seen`; the config tells what else its hooks do. */
const CODE = `
  import { defineHttpFilter, hold, reply, done, Type } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Any(), setup: ({ name, what }, cx) => {
    const ended = cx.stats.counter("ended." + name);
    return (stream) => ({
      onRequestHeaders(headers) {
        headers.set("x-seen", (headers.get("x-seen") ?? "") + name);
        if (what === "reply") return reply(418, { body: name });
        if (what === "throw") throw new Error("bang");
        if (what === "wait") return stream.sleep(5).then(() => void headers.set("x-waited", name));
        if (what === "hold") return hold({ body: "buffer" });
        if (what === "done") return done;
        if (what === "clear") stream.clearRoute();
      },
      onRequestBody(chunk) {
        if (what === "hold") chunk.replace(new Uint8Array([name.charCodeAt(0)]));
      },
      onResponseHeaders(headers) { headers.set("x-back", (headers.get("x-back") ?? "") + name); },
      onEnd() { ended.inc(); },
    });
  } });`;

async function chain(...whats: string[]): Promise<Exchange> {
  const configs = whats.map((what, k) => ({ name: String.fromCharCode(97 + k), what }));
  const sandbox = await worker.sandbox(CODE, configs);
  return new Exchange(
    worker,
    configs.map((_, k) => stubs(worker, sandbox, k + 1)),
    HEAD,
  );
}

const ended = (names: string): number[] => [...names].map((name) => worker.stat(`ended.${name}`));

describe("a head that neighbours let pass", () => {
  it("goes over once, has been through all of them in order, and comes back in reverse", async () => {
    const e = (await chain("", "", "")).requestHeaders();
    expect(e.pending).toBe(0);
    expect(e.request.get("x-seen")).toBe("abc");
    const response = e.responseHeaders(200, "server: up\r\n");
    expect(linesOf(response)).toEqual(["server: up", "x-back: cba"]);
    e.end();
    await worker.until(() => ended("abc").join() === "1,1,1");
    expect(worker.records).toBe(0);
  });

  it("passes by one that has said it is done", async () => {
    const e = (await chain("", "done", "")).requestHeaders();
    await e.settled();
    expect(e.request.get("x-seen")).toBe("abc");
    expect(e.responseHeaders(200, "server: up\r\n").get("x-back")).toBe("ca");
  });

  it("may clear the route on its way", async () => {
    const e = (await chain("clear", "", "clear")).requestHeaders();
    expect([e.cleared > 0, e.request.get("x-seen")]).toEqual([true, "abc"]);
  });
});

describe("a head that one of them stops", () => {
  it("has seen those before it, and those behind it see it when it goes on", async () => {
    const e = (await chain("", "wait", "")).requestHeaders();
    expect([e.pending, e.request.get("x-seen")]).toEqual([1, "ab"]);
    await e.settled();
    expect([e.request.get("x-seen"), e.request.get("x-waited")]).toEqual(["abc", "b"]);
  });

  it("is answered by it, and those behind it hear nothing", async () => {
    const e = await (await chain("", "reply", "")).requestHeaders().settled();
    expect([e.reply?.status, e.reply?.body, e.request.get("x-seen")]).toEqual([418, "b", "ab"]);
    e.end();
    await worker.until(() => ended("ab").join() === "1,1");
    expect(ended("c")).toEqual([0]);
  });

  it("fails with it", async () => {
    const e = await (await chain("", "throw", "")).requestHeaders().settled();
    expect([e.reply?.status, worker.faults.length]).toEqual([500, 1]);
  });

  it("waits with it for the body, which those behind it get with the head", async () => {
    const e = await chain("", "hold", "");
    await e.requestHeaders(false).settled();
    const chunk = e.requestBody("hello");
    await e.settled();
    expect([textOf(chunk), e.verdicts.some((v) => v?.type === "hold")]).toEqual(["b", true]);
  });

  it.each(["wait", "reply", "throw", "hold", "done"])(
    "stops at the first of them as well: %s",
    async (what) => {
      const e = await (await chain(what, "", "")).requestHeaders(false).settled();
      const seen = e.request.get("x-seen");
      const stops = what === "reply" || what === "throw";
      expect([e.reply !== undefined, seen]).toEqual([
        stops,
        what === "throw" ? undefined : stops ? undefined : "abc",
      ]);
    },
  );
});

it("a body passes by neighbours that have no hook for it", async () => {
  const code = `
    import { defineHttpFilter, Type } from "@tsproxy/sdk";
    export default defineHttpFilter({ name: "test", config: Type.Any(), setup: ({ body }) => () => ({
      onRequestHeaders(headers) { headers.append("x-seen", "1"); },
      ...(body && { onRequestBody(chunk) { chunk.replace(new Uint8Array([120])); } }),
    }) });`;
  const bodyBehind = async (configs: readonly object[]): Promise<readonly [number, string]> => {
    const sandbox = await worker.sandbox(code, [...configs]);
    const filters = configs.map((_, k) => stubs(worker, sandbox, k + 1));
    const e = new Exchange(worker, filters, HEAD).requestHeaders(false);
    const chunk = e.requestBody("hello");
    const { pending } = e;
    await e.settled();
    return [pending, textOf(chunk)];
  };
  expect(await bodyBehind([{}, {}, {}])).toEqual([0, "hello"]);
  worker.dispose();
  worker = new FakeWorker();
  expect((await bodyBehind([{}, {}, { body: true }]))[1]).toBe("x");
});

it("a stream that ends while one of them waits ends for each that had begun, once", async () => {
  const e = (await chain("", "wait", "")).requestHeaders();
  e.end();
  await worker.until(() => ended("ab").join() === "1,1");
  await worker.until(() => worker.boxes[0]!.live === 0);
  expect(ended("abc")).toEqual([1, 1, 0]);
});
