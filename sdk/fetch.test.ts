import { describe, expect, it } from "vitest";
import { type FetchError, fetchFrom } from "./fetch.ts";
import { HeaderMap } from "./headers.ts";
import { TestCluster } from "./testing/cluster.ts";
import { TestContext } from "./testing/context.ts";

function harness() {
  const cx = new TestContext();
  const up = new TestCluster("up", cx.stats);
  cx.clusterMap.set("up", up);
  return { cx, up };
}
function trailers(name: string, value: string) {
  const map = new HeaderMap();
  map.append(name, value);
  return map;
}
const failure = async (promise: Promise<unknown>) =>
  (await promise.then(
    () => undefined,
    (error) => error,
  )) as FetchError | undefined;

describe("a fetch", () => {
  it.each([
    ["nobody:/a", 'no cluster "nobody" in the config; write one of that name under'],
    ["http://up/a", '"http://up/a" is no target; write "cluster:/path"'],
    ["/a", '"/a" is no target; write "cluster:/path"'],
  ])("of what there is not says how to mend it: %s", async (target, message) => {
    const error = await failure(fetchFrom(harness().cx, target));
    expect([error?.message, error?.reason]).toEqual([
      expect.stringContaining(message),
      "no_cluster",
    ]);
  });

  it("asks the cluster and answers what comes, whatever its status", async () => {
    const { cx, up } = harness();
    const asked = fetchFrom(cx, "up:/a?b=1", {
      method: "POST",
      headers: { "x-a": "1" },
      body: "hé",
    });
    const { last } = up;
    expect([last.method, last.path, last.body, last.ended]).toEqual([
      "POST",
      "/a?b=1",
      "h\u00c3\u00a9",
      true,
    ]);
    expect(last.headers).toEqual([
      ["x-a", "1"],
      ["host", "up"],
      ["content-length", "3"],
    ]);
    last.respond(404, { "x-b": "2" }, '{"n":1}');
    const response = await asked;
    expect([response.status, response.ok, response.headers.get("x-b")]).toEqual([404, false, "2"]);
    expect(await response.json()).toEqual({ n: 1 });
    const counted = (name: string) => cx.stats.value(`cluster.up.${name}`);
    expect(
      ["upstream_rq_404", "upstream_rq_4xx", "internal.upstream_rq_completed"].map(counted),
    ).toEqual([1, 1, 1]);
    expect(cx.clock.armed).toBe(0);
  });

  it("asks a cluster whose name is beyond Latin-1, with its UTF-8 bytes as the host", () => {
    const { cx, up } = harness();
    cx.clusterMap.set("кластер", up);
    void fetchFrom(cx, "кластер:/").catch(() => {});
    expect(up.last.headers).toEqual([["host", Buffer.from("кластер").toString("latin1")]]);
  });

  it("reads a body as it comes, and lets the upstream wait for its reader", async () => {
    const { cx, up } = harness();
    const asked = fetchFrom(cx, "up:/");
    up.last.respond(200);
    const response = await asked;
    up.last.send("x".repeat(70_000), false);
    expect(up.last.paused).toBe(true);
    const reader = response.body[Symbol.asyncIterator]();
    expect((await reader.next()).value).toHaveLength(70_000);
    const next = reader.next();
    up.last.send("end", true);
    expect((await next).value).toHaveLength(3);
    expect((await reader.next()).done).toBe(true);
    expect(up.last.paused).toBe(false);
  });

  it("sends a body as it is made", async () => {
    const { cx, up } = harness();
    async function* body() {
      yield "one ";
      yield new Uint8Array([50]);
    }
    const asked = fetchFrom(cx, "up:/", { method: "POST", body: body() });
    for (let k = 0; k < 20; k++) await Promise.resolve();
    expect([up.last.body, up.last.ended]).toEqual(["one 2", true]);
    up.last.respond(200, {}, "");
    expect((await asked).status).toBe(200);
  });

  it("gives up in time, before the answer and in the middle of it", async () => {
    const { cx, up } = harness();
    const asked = failure(fetchFrom(cx, "up:/", { timeoutMs: 100 }));
    cx.clock.advance(101);
    expect((await asked)?.reason).toBe("timeout");
    expect(up.last.wasReset).toBe(true);
    const response = fetchFrom(cx, "up:/", { timeoutMs: 100 });
    up.last.respond(200);
    const text = failure((await response).text());
    cx.clock.advance(101);
    expect((await text)?.reason).toBe("timeout");
    expect(up.host.told).toEqual(["timeout", 200, "timeout of a part"]);
  });

  it("says why there is no answer", async () => {
    const { cx, up } = harness();
    expect((await failure(fetchFrom(cx, "none:/")))?.reason).toBe("no_cluster");
    const cut = failure(fetchFrom(cx, "up:/"));
    up.last.break("connection_closed");
    expect((await cut)?.reason).toBe("connection_closed");
    up.answer = { reason: "no_host", host: undefined, transportFailure: "" };
    expect((await failure(fetchFrom(cx, "up:/")))?.reason).toBe("no_host");
    up.answer = "pending";
    const waits = failure(fetchFrom(cx, "up:/", { timeoutMs: 10 }));
    cx.clock.advance(20);
    expect((await waits)?.reason).toBe("timeout");
    expect(up.last.cancelled).toBe(true);
  });

  it("does not read more than it may", async () => {
    const { cx, up } = harness();
    const asked = fetchFrom(cx, "up:/", { maxBytes: 10 });
    up.last.respond(200);
    const text = failure((await asked).text());
    up.last.send("x".repeat(11), false);
    expect((await text)?.reason).toBe("too_large");
    expect(up.last.wasReset).toBe(true);
  });

  it("has trailers once its body is read to the end", async () => {
    const { cx, up } = harness();
    const asked = fetchFrom(cx, "up:/");
    up.last.respond(200);
    up.last.send("some", false);
    const response = await asked;
    up.last.endWithTrailers(trailers("x-sum", "7"));
    expect(response.trailers).toBeUndefined();
    expect(await response.text()).toBe("some");
    expect([...(response.trailers ?? [])]).toEqual([["x-sum", "7"]]);
    expect(cx.clock.armed).toBe(0);
  });

  it("gives up a request whose answer has ended before it", async () => {
    const { cx, up } = harness();
    async function* body() {
      yield "one";
      await new Promise(() => {});
    }
    const asked = fetchFrom(cx, "up:/", { method: "POST", body: body() });
    up.last.respond(413, {}, "too much");
    expect(await (await asked).text()).toBe("too much");
    expect(up.last.wasReset).toBe(true);
  });

  it("tells the host how a gRPC call went when its status is there", async () => {
    const { cx, up } = harness();
    const headers = { "content-type": "application/grpc" };
    const ask = () => fetchFrom(cx, "up:/", { method: "POST", body: "x", headers });
    const first = ask();
    up.last.respond(200, headers);
    await first;
    expect(up.host.told).toEqual([]);
    up.last.endWithTrailers(trailers("grpc-status", "14"));
    void ask();
    up.last.respond(200, { ...headers, "grpc-status": "7" }, "");
    void ask();
    up.last.respond(503, {}, "");
    expect(up.host.told).toEqual([503, 403, 503]);
    expect(up.contexts[0]?.downstreamProtocol).toBe("HTTP/2");
  });
});
