import type http from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, cluster, http as httpFilter, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

let upstream: Upstream<http.Server>;
let proxy: Proxy;

beforeAll(async () => {
  upstream = await httpUpstream((_, response) => void response.end("hi"));
  proxy = await Proxy.start({
    config: {
      ...bootstrap(
        [listener("main", httpFilter([route("/", "origin")]))],
        [cluster("origin", [upstream.port])],
      ),
      stats_flush_interval: "0.1s",
    },
    concurrency: 2,
  });
  await get(proxy.port("main"), "/");
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

test("/ready says LIVE", async () => {
  expect(await proxy.admin("/ready")).toBe("LIVE\n");
});

test("/stats counts what passed, and filters by regex", async () => {
  const stat = await proxy.stats();
  expect(stat("http.test.downstream_rq_total")).toBe(1);
  expect(stat("http.test.downstream_rq_2xx")).toBe(1);
  expect(stat("cluster.origin.upstream_rq_200")).toBe(1);
  const some = await proxy.admin("/stats?filter=^cluster\\.origin\\.upstream_cx_total$");
  expect(some).toBe("cluster.origin.upstream_cx_total: 1\n");
  const { stats } = JSON.parse(await proxy.admin("/stats?format=json&usedonly"));
  expect(stats).toContainEqual({ name: "cluster.origin.upstream_cx_total", value: 1 });
});

test("/stats lists what may be missing of filters' configs for listeners of the config alone", async () => {
  expect(await proxy.admin("/stats?filter=extension_config_missing$")).toMatch(
    /^listener\.[\d._]+\.extension_config_missing: 0\nlistener\.[\d._]+\.network_extension_config_missing: 0\n$/,
  );
});

test("/stats?usedonly lists gauges that were set, if only to 0", async () => {
  const used = await eventually(
    () => proxy.admin("/stats?usedonly"),
    (seen) => seen.includes("circuit_breakers.default.cx_open"),
    "the circuit breakers are shown",
  );
  const zeros = [
    "cluster.origin.circuit_breakers.default.rq_pending_open",
    "cluster.origin.warming_state",
    "listener_manager.total_listeners_warming",
  ];
  for (const name of zeros) expect(used).toContain(`${name}: 0\n`);
  expect(used).toMatch(/^cluster\.origin\.upstream_cx_rx_bytes_buffered: \d+$/m);
  expect(used).toMatch(/^http\.test\.downstream_cx_rx_bytes_buffered: \d+$/m);
  expect(used).toMatch(/^listener\..*_\d+\.downstream_pre_cx_active: 0$/m);
  expect(used).not.toMatch(/circuit_breakers\.(high|default\.rq_retry)|cluster_updated/);
});

test("/stats/prometheus has the same with labels", async () => {
  const total = /envoy_cluster_upstream_rq_time_bucket\{[^}]*le="\+Inf"\} 1\n/;
  const page = () => proxy.admin("/stats/prometheus");
  const text = await eventually(page, (seen) => total.test(seen), "an interval has ended");
  expect(text).toContain("# TYPE envoy_cluster_upstream_cx_total counter\n");
  expect(text).toContain('envoy_cluster_upstream_cx_total{envoy_cluster_name="origin"} 1\n');
});

test("/clusters shows each host and what it has done", async () => {
  const text = await proxy.admin("/clusters");
  const host = `origin::127.0.0.1:${upstream.port}::`;
  expect(text).toContain(`${host}cx_total::1\n`);
  expect(text).toContain(`${host}rq_total::1\n`);
  expect(text).toContain(`${host}health_flags::healthy\n`);
  const { cluster_statuses } = JSON.parse(await proxy.admin("/clusters?format=json"));
  expect(cluster_statuses).toMatchObject([
    {
      name: "origin",
      host_statuses: [{ address: { socket_address: { port_value: upstream.port } } }],
    },
  ]);
});

test("/listeners shows the addresses that were bound", async () => {
  expect(await proxy.admin("/listeners")).toContain(`main::127.0.0.1:${proxy.port("main")}\n`);
});

test("/config_dump shows the configuration that runs, in v3's names", async () => {
  const { configs } = JSON.parse(await proxy.admin("/config_dump"));
  const types = configs.map((c: { "@type": string }) => c["@type"].replace(/.*\./, ""));
  expect(types).toContain("BootstrapConfigDump");
  expect(types).toContain("ListenersConfigDump");
  expect(JSON.stringify(configs)).toContain('"name":"origin"');
});

test("/server_info tells version, state and options", async () => {
  expect(JSON.parse(await proxy.admin("/server_info"))).toMatchObject({
    state: "LIVE",
    command_line_options: { concurrency: 2 },
  });
});

test("what changes something wants POST", async () => {
  const refused = await get(proxy.adminPort, "/reset_counters");
  expect(refused.status).toBe(405);
  await get(proxy.port("main"), "/");
  expect(await proxy.admin("/reset_counters", "POST")).toBe("OK\n");
  expect(await proxy.stat("http.test.downstream_rq_total")).toBe(0);
});

test("a page that is none answers 404 with the list of those that are", async () => {
  const { status, text } = await get(proxy.adminPort, "/nonsense");
  expect(status).toBe(404);
  expect(text).toContain("invalid path");
  expect(text).toContain("/stats");
});

test("/quitquitquit ends the proxy with 0", async () => {
  const other = await Proxy.start({ config: bootstrap([]) });
  await other.admin("/quitquitquit", "POST");
  expect(await other.exited).toBe(0);
  await other.stop();
});
