import { xxHash64 } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import {
  INTERNAL,
  oneHost,
  routeTo,
  TestProxy,
} from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const proxy = (route: object = {}) =>
  new TestProxy({ codec, router }).start({ route_config: oneHost(routeTo("up", route)) });

it("turns a part of a cluster's requests away, and says which", () => {
  const p = proxy();
  p.up.dropOverload = 1;
  expect(p.connect().get("/").take()).toBe(
    "HTTP/1.1 503 Service Unavailable\nx-envoy-unconditional-drop-overload: true\ncontent-length: 27\ncontent-type: text/plain\nserver: envoy\n\nunconditional drop overload",
  );
  expect(p.cx.stats.value("cluster.up.upstream_rq_503")).toBe(1);
  p.up.dropOverload = 0.5;
  const seen = new Set<string>();
  for (let k = 0; k < 200 && seen.size < 2; k++) {
    const c = p.connect().get("/");
    const answer = c.take();
    seen.add(
      answer === "" ? "sent" : /x-envoy-drop-overload: true[\s\S]*\n\n(.*)$/.exec(answer)![1]!,
    );
    c.leave();
  }
  expect([...seen].sort()).toEqual(["drop overload", "sent"]);
});

it("counts codes beyond 599 as unknown", () => {
  const p = proxy();
  const c = p.connect().get("/");
  p.up.last.respond(700, {}, "");
  expect(c.status()).toBe(700);
  const value = (name: string) => p.cx.stats.value(`cluster.up.${name}`);
  expect(["", "external."].map((of) => value(`${of}upstream_rq_unknown`))).toEqual([1, 1]);
  expect([value("upstream_rq_completed"), value("upstream_rq_7xx")]).toEqual([1, 0]);
});

it("measures heads, bodies and budgets for clusters that want that, and for no others", () => {
  const p = proxy({ timeout: 1000, retry_policy: { per_try_timeout: 500 } });
  const recorded = (name: string) => p.cx.stats.recorded.get(`cluster.up.upstream_${name}`) ?? [];
  const ask = () => {
    const c = p.connect().post("/", "hello");
    p.cx.clock.advance(100);
    p.up.last.respond(200, { a: "bcd" }, "twelve bytes");
    c.leave();
  };
  ask();
  expect(recorded("rq_body_size")).toEqual([]);
  p.up.tracks = { timeoutBudgets: true, requestResponseSizes: true };
  ask();
  expect(recorded("rq_body_size")).toEqual([5]);
  expect(recorded("rs_body_size")).toEqual([12]);
  // `:status: 200` and `a: bcd`.
  expect([recorded("rs_headers_size"), recorded("rs_headers_count")]).toEqual([[14], [2]]);
  expect(recorded("rq_timeout_budget_percent_used")).toEqual([10]);
  expect(recorded("rq_timeout_budget_per_try_percent_used")).toEqual([20]);
});

it("counts responses of hosts that are canaries apart", () => {
  const p = proxy();
  p.up.host.canary = true;
  const c = p.connect().get("/");
  p.up.last.respond(200, {}, "");
  c.leave();
  expect(p.cx.stats.value("cluster.up.canary.upstream_rq_200")).toBe(1);
});

it("counts responses by zone where its own and the host's are known", () => {
  const p = new TestProxy({ codec, router });
  p.cx.node = { id: "n", cluster: "c", locality: { zone: "here" } };
  p.start({ route_config: oneHost(routeTo("up")) });
  const ask = () => {
    const c = p.connect().get("/");
    p.up.last.respond(200, {}, "");
    c.leave();
  };
  ask();
  p.up.host.zone = "there";
  ask();
  expect(p.cx.stats.value("cluster.up.zone.here.there.upstream_rq_200")).toBe(1);
});

it("asks for what filters have put into the metadata, over what the route says, for mirrors too", () => {
  const metadata_match = { filter_metadata: { "envoy.lb": { stage: "prod", version: "1" } } };
  const p = new TestProxy({ codec, router }).filter("canary", (stream) => ({
    onRequestHeaders() {
      stream.metadata.set("envoy.lb", { version: "2", zone: "z" });
    },
  }));
  const copy = p.cluster("copy");
  const request_mirror_policies = [{ cluster: "copy", cluster_header: "" }];
  const hash_policy = [{ header: { header_name: "host" } }];
  const route = { metadata_match, request_mirror_policies, hash_policy };
  p.start({ route_config: oneHost(routeTo("up", route)) });
  p.connect().get("/");
  for (const { contexts } of [p.up, copy]) {
    expect(contexts[0]!.metadataMatch).toEqual([
      { key: "stage", value: "prod" },
      { key: "version", value: "2" },
      { key: "zone", value: "z" },
    ]);
  }
  expect([p.up.contexts[0]!.hash === undefined, copy.contexts[0]!.hash]).toEqual([
    false,
    undefined,
  ]);
});

it("hashes what a filter has left in the filter state", () => {
  const hash_policy = [
    { filter_state: { key: "who" }, terminal: true },
    { query_parameter: { name: "q" } },
  ];
  const p = new TestProxy({ codec, router })
    .filter("who", (stream) => ({
      onRequestHeaders(headers) {
        if (headers.path.startsWith("/named")) stream.filterState.set("who", "alice");
      },
    }))
    .start({ route_config: oneHost(routeTo("up", { hash_policy })) });
  p.connect().get("/named?q=x");
  expect(p.up.contexts[0]!.hash).toBe(xxHash64("alice"));
  p.connect().get("/other?q=x");
  expect(p.up.contexts[1]!.hash).toBe(xxHash64("x"));
});

it("tells the host of responses that call it degraded, unless they are errors", () => {
  const p = new TestProxy({ codec, router }).start();
  let told = 0;
  Object.assign(p.up.host, { onDegraded: () => told++ });
  const answer = (status: number, headers: Record<string, string>) => {
    p.connect().get("/");
    p.up.last.respond(status, headers, "");
    return told;
  };
  const degraded = { "x-envoy-degraded": "" };
  expect([answer(200, {}), answer(200, degraded), answer(404, degraded)]).toEqual([0, 1, 2]);
  expect(answer(500, degraded)).toBe(2);
});

it("counts under the name that the client gives, and under an empty one too", () => {
  const p = new TestProxy({ codec, router }).start(INTERNAL);
  const c = p.connect();
  for (const name of [
    "x-envoy-upstream-alt-stat-name: own",
    "x-envoy-upstream-alt-stat-name:",
    "x-a: b",
  ]) {
    c.get("/", name);
    p.up.last.respond(200, {}, "");
  }
  const count = (name: string) => p.cx.stats.value(`cluster.up.${name}upstream_rq_200`);
  expect([count(""), count("own."), count(".")]).toEqual([3, 1, 1]);
});
