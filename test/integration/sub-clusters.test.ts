import http from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { deferred, eventually, get } from "./client.ts";
import { bootstrap, type Json, listener, http as manager } from "./config.ts";
import { Proxy, type ProxyOptions } from "./proxy.ts";
import { SPINS } from "./spins.ts";

let upstream: http.Server;
let port: number;
let proxy: Proxy;
/** Requests to /held are answered once this settles. */
let released: ReturnType<typeof deferred<void>>;
let held = 0;

const DFP = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig";

/** `more`: a field of the parent, where another value makes it another cluster. */
const configOf = (
  sub_clusters_config: Json,
  headers: Json[] = [],
  more: Json = {},
  filters: Json[] = [],
) => {
  const routes = [
    { match: { prefix: "/by-name" }, route: { cluster_header: "x-cluster" } },
    {
      match: { prefix: "/" },
      route: { cluster: "forward", timeout: "0s" },
      response_headers_to_add: headers,
    },
  ];
  const filter = {
    name: "http/dynamic_forward_proxy",
    config: { sub_cluster_config: { cluster_init_timeout: "60s" } },
  };
  const forward = {
    name: "forward",
    lb_policy: "CLUSTER_PROVIDED",
    cluster_type: {
      name: "envoy.clusters.dynamic_forward_proxy",
      typed_config: { "@type": `type.googleapis.com/${DFP}`, sub_clusters_config },
    },
    ...more,
  };
  return bootstrap([listener("main", manager(routes, {}, [...filters, filter]))], [forward]);
};

const open = async (config: Json, more: Partial<ProxyOptions> = {}) => {
  proxy = await Proxy.start({ config, concurrency: 2, ...more });
};
const ask = (host: string, path = "/", headers: Record<string, string> = {}) =>
  get(proxy.port("main"), path, { headers: { host, ...headers } });
/** The upstream has many addresses, so that no host has to be asked of DNS, which takes its time. */
const hostOf = (k: number) => `127.0.${1 + Math.floor(k / 250)}.${1 + (k % 250)}:${port}`;
const statNames = async () => (await proxy.admin("/stats")).match(/^[^:]+/gm)!;
const noneLeft = () =>
  eventually(
    async () => (await statNames()).filter((name) => name.includes("DFPCluster")),
    (names) => names.length === 0,
    "no stats of removed clusters",
  );

beforeEach(async () => {
  released = deferred();
  held = 0;
  upstream = http.createServer(async (request, response) => {
    if (request.url === "/held") {
      held++;
      await released.promise;
    }
    response.end(request.headers.host);
  });
  await new Promise<void>((resolve) => upstream.listen(0, "0.0.0.0", resolve));
  port = (upstream.address() as AddressInfo).port;
});
afterEach(async () => {
  released.resolve();
  await proxy?.stop();
  upstream.closeAllConnections();
  upstream.close();
});

test("each host has one cluster for all workers, up to the limit", async () => {
  await open(configOf({ max_sub_clusters: 2 }));
  const [a, b, c] = [0, 1, 2].map(hostOf);
  const answers = await Promise.all(Array.from({ length: 12 }, (_, k) => ask(k % 2 ? a! : b!)));
  expect(answers.map(({ text }) => text)).toEqual(answers.map((_, k) => (k % 2 ? a : b)));
  expect(await ask(c!)).toMatchObject({ status: 503, text: "Sub cluster overflow" });
  const stat = await proxy.stats();
  expect([stat("cluster_manager.cluster_added"), stat("cluster_manager.active_clusters")]).toEqual([
    3, 3,
  ]);
  expect(stat(`cluster.DFPCluster_127.0.1.1_${port}.upstream_rq_total`)).toBe(6);
  expect(stat("cluster.forward.upstream_rq_2xx")).toBe(12);
  const clusters = await proxy.admin("/clusters");
  expect(clusters).toContain(`DFPCluster:127.0.1.1:${port}::added_via_api::true`);
  const breaker = `cluster.DFPCluster_127.0.1.1_${port}.circuit_breakers.default.rq_open`;
  await eventually(
    () => proxy.admin("/stats?usedonly"),
    (seen) => seen.includes(breaker),
    "the circuit breakers are shown",
  );
});

test("a cluster that nobody has used for its ttl goes with its stats, but not what goes on in it", async () => {
  await open(configOf({ sub_cluster_ttl: "0.2s" }));
  const before = (await statNames()).length;
  const slow = ask(hostOf(0), "/held");
  await proxy.untilStat("cluster_manager.cluster_removed", 1);
  released.resolve();
  expect((await slow).text).toBe(hostOf(0));
  expect((await ask(hostOf(0))).text).toBe(hostOf(0));
  await noneLeft();
  // What a first request counts under stays; sub clusters leave nothing.
  const after = (await statNames()).length;
  for (const k of [1, 2, 3]) expect((await ask(hostOf(k))).text).toBe(hostOf(k));
  await noneLeft();
  expect((await statNames()).length).toBe(after);
  expect(after).toBeGreaterThanOrEqual(before);
});

/** The hosts of sub clusters that strings of an isolate still name. */
const namedIn = async (isolate: string): Promise<string[]> => {
  const { strings } = JSON.parse(await proxy.admin(`/heap_dump?${isolate}`)) as {
    strings: string[];
  };
  const found = strings.map((text) => /DFPCluster[:_](127[.0-9]+)/.exec(text)?.[1]);
  return [...new Set(found)].filter((host) => host !== undefined);
};

test("a thousand hosts, twenty at a time, pass through a limit that is small, and are forgotten", async () => {
  await open(configOf({ max_sub_clusters: 25, sub_cluster_ttl: "0.02s" }));
  const pass = async (host: string) => {
    const answer = await eventually(
      () => ask(host),
      ({ text }) => text !== "Sub cluster overflow",
      "room for another host",
    );
    expect(answer).toMatchObject({ status: 200, text: host });
  };
  for (let k = 0; k < 1_000; k += 20)
    await Promise.all(Array.from({ length: 20 }, (_, n) => pass(hostOf(k + n))));
  await noneLeft();
  await proxy.untilStat("cluster_manager.active_clusters", 1);
  const isolates = ["worker_0", "worker_1", "control"].map((thread) => `thread=${thread}`);
  const builtin = isolates.map((isolate) => `${isolate}&filter=cluster_manager`);
  // The last few are in values of topics and in buffers that were not overwritten yet.
  for (const isolate of ["", ...isolates, ...builtin])
    expect((await namedIn(isolate)).length, isolate).toBeLessThan(50);
});

test("over a reload clusters live on, and no request fails: not those that they serve, not those that wait for one", async () => {
  await open(configOf({}));
  const [a, b] = [hostOf(0), hostOf(1)];
  const slow = ask(a, "/held");
  await eventually(
    async () => held,
    (n) => n === 1,
    "the request is at the upstream",
  );
  let hasEnded = false;
  const others: Promise<string>[] = [];
  const load = (async () => {
    for (let k = 0; !hasEnded; k++) {
      others.push(ask(k % 3 ? a : hostOf(k % 40)).then(({ text }) => text));
      await others.at(-1);
    }
  })();
  const saved = { header: { key: "x-saved", value: "yes" } };
  proxy.reconfigure(configOf({}, [saved]));
  await eventually(
    () => ask(a),
    ({ headers }) => headers["x-saved"] === "yes",
    "the new config serves",
  );
  hasEnded = true;
  await load;
  released.resolve();
  expect((await slow).text).toBe(a);
  expect((await Promise.all(others)).filter((text) => !text.startsWith("127.0.1."))).toEqual([]);
  expect((await ask(b)).text).toBe(b);
  const named = { "x-cluster": `DFPCluster:${a}` };
  expect((await ask("x.test", "/by-name", named)).status).toBe(200);
});

test("with another parent they are made again", async () => {
  await open(configOf({}));
  const host = hostOf(0);
  expect((await ask(host)).text).toBe(host);
  proxy.reconfigure(configOf({}, [], { connect_timeout: "3s" }));
  await proxy.untilStat("cluster_manager.cluster_removed", 1);
  expect((await ask(host)).text).toBe(host);
  expect(await proxy.stat("cluster_manager.active_clusters")).toBe(2);
});

test("over a lost isolate clusters live on: its worker finds them again, makes others, and gives back what it held", async () => {
  const filters = [{ name: "spins", config: {} }];
  await open(configOf({}, [], {}, filters), {
    args: ["--trust", "spins"],
    files: { "filters/spins.ts": SPINS },
  });
  const [a, b, c] = [0, 1, 2].map((k) => hostOf(k)) as [string, string, string];
  // Of which some wait in either worker.
  const slow = Array.from({ length: 8 }, () => ask(a, "/held").catch(() => undefined));
  expect((await ask(b)).text).toBe(b);
  await eventually(
    async () => held,
    (n) => n === 8,
    "the requests are at the upstream",
  );
  const from = proxy.lines.length;
  const spun = ask(a, "/spin").catch(() => undefined);
  // While one worker is lost, a cluster is made that it has not heard of.
  const made = ask(c).catch(() => undefined);
  await proxy.line(/the isolate of the shipped filters was lost .* is built anew/, from);
  released.resolve();
  await Promise.all([...slow, spun, made]);
  for (const host of [a, b, c])
    await eventually(
      () => ask(host).catch(() => undefined),
      (answer) => answer?.text === host,
      `an answer of ${host}`,
    );
  // Each of these may meet either worker.
  for (let k = 0; k < 24; k++) {
    const host = hostOf(k % 6);
    expect((await ask(host)).text).toBe(host);
  }
  const named = { "x-cluster": `DFPCluster:${a}` };
  expect((await ask("x.test", "/by-name", named)).status).toBe(200);
  const stat = await proxy.stats();
  expect([stat("cluster_manager.cluster_added"), stat("cluster_manager.active_clusters")]).toEqual([
    7, 7,
  ]);
  await proxy.untilStat(`cluster.DFPCluster_127.0.1.1_${port}.upstream_rq_active`, 0);
  proxy.reconfigure(configOf({}, [], { connect_timeout: "3s" }, filters));
  await noneLeft();
});
