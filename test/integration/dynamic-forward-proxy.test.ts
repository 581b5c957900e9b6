import type http from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, listener, http as manager } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

let upstream: Upstream<http.Server>;
let proxy: Proxy;

const PER_ROUTE = "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig";
const perRoute = (config: object) => ({
  "http/dynamic_forward_proxy": {
    "@type": `type.googleapis.com/${PER_ROUTE}`,
    ...config,
  },
});

beforeAll(async () => {
  upstream = await httpUpstream((request, response) => response.end(request.headers.host));
  const dns_cache_config = {
    name: "names",
    dns_lookup_family: "V4_ONLY",
    max_hosts: 3,
    host_ttl: "1s",
    dns_refresh_rate: "1s",
    dns_min_refresh_rate: "1s",
  };
  const routes = [
    {
      match: { prefix: "/fixed" },
      route: { cluster: "forward" },
      typed_per_filter_config: perRoute({ host_rewrite_literal: `localhost:${upstream.port}` }),
    },
    {
      match: { prefix: "/header" },
      route: { cluster: "forward" },
      typed_per_filter_config: perRoute({ host_rewrite_header: "x-to" }),
    },
    { match: { prefix: "/" }, route: { cluster: "forward" } },
  ];
  const forward = {
    name: "forward",
    lb_policy: "CLUSTER_PROVIDED",
    cluster_type: {
      name: "envoy.clusters.dynamic_forward_proxy",
      typed_config: {
        "@type":
          "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
        dns_cache_config,
      },
    },
  };
  const filter = { name: "http/dynamic_forward_proxy", config: { dns_cache_config } };
  proxy = await Proxy.start({
    config: bootstrap(
      [listener("main", manager(routes, {}, [filter])), listener("bare", manager(routes))],
      [forward],
    ),
    concurrency: 2,
  });
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

const ask = (host: string, path = "/", headers: Record<string, string> = {}) =>
  get(proxy.port("main"), path, { headers: { host, ...headers } });

test("a request goes to the host that it names, on every worker, and a route may name another", async () => {
  const host = `localhost:${upstream.port}`;
  for (let k = 0; k < 6; k++) expect((await ask(host)).text).toBe(host);
  expect((await ask("x.invalid", "/fixed")).text).toBe(host);
  const literal = `127.0.0.1:${upstream.port}`;
  expect((await ask("x.invalid", "/header", { "x-to": literal })).text).toBe(literal);
  expect(await proxy.stat("dns_cache.names.host_added")).toBe(2);
  expect(await proxy.stat("cluster.forward.membership_total")).toBe(2);
});

test("a name without an address, and one too many, are answered here", async () => {
  expect(await ask("nothing.invalid")).toMatchObject({
    status: 503,
    text: "DNS resolution failure",
  });
  // At once, as a host that nobody asks for soon makes room for another.
  const several = ["a", "b", "c", "d"].map((name) => ask(`${name}.invalid`));
  expect((await Promise.all(several)).map(({ text }) => text)).toContain("DNS cache overflow");
  expect(await proxy.stat("dns_cache.names.host_overflow")).toBeGreaterThan(0);
});

test("a host that nobody asks for goes, and comes back when somebody does", async () => {
  await eventually(
    () => proxy.stat("dns_cache.names.num_hosts"),
    (count) => count === 0,
    "all hosts are gone",
  );
  const host = `localhost:${upstream.port}`;
  expect((await ask(host)).text).toBe(host);
});

test("without the filter a request waits in the cluster", async () => {
  const bare = (host: string) => get(proxy.port("bare"), "/", { headers: { host } });
  const host = `a.localhost:${upstream.port}`;
  expect(await Promise.all([bare(host), bare(host)])).toMatchObject([
    { text: host },
    { text: host },
  ]);
  expect(await bare("nothing.invalid")).toMatchObject({ status: 503, text: "no healthy upstream" });
  expect(await proxy.stat("cluster.forward.upstream_cx_none_healthy")).toBe(0);
});

test("a host may be named with port 0, where nobody answers; an empty name is none", async () => {
  expect(await ask("127.0.0.1:0")).toMatchObject({
    status: 503,
    text: /remote connection failure/,
  });
  expect(await ask("x.invalid", "/header", { "x-to": "" })).toMatchObject({
    status: 400,
    text: "Empty host header",
  });
});
