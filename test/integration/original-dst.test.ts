import type http from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, listener, http as manager } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

let upstreams: Upstream<http.Server>[];
let proxy: Proxy;

beforeAll(async () => {
  const upstream = () => httpUpstream((_, response) => response.end("ok"));
  upstreams = [await upstream(), await upstream()];
  const cluster = {
    name: "there",
    type: "ORIGINAL_DST",
    lb_policy: "CLUSTER_PROVIDED",
    cleanup_interval: "1s",
    original_dst_lb_config: { use_http_header: true },
    common_http_protocol_options: { idle_timeout: "1s" },
  };
  const routes = [{ match: { prefix: "/" }, route: { cluster: "there" } }];
  proxy = await Proxy.start({
    config: bootstrap([listener("main", manager(routes))], [cluster]),
    concurrency: 2,
  });
});
afterAll(async () => {
  await proxy?.stop();
  for (const upstream of upstreams) await upstream.close();
});

test("hosts that requests name are members while they are used, each once for all workers", async () => {
  const members = () => proxy.stat("cluster.there.membership_total");
  const ask = (port: number) =>
    get(proxy.port("main"), "/", { headers: { "x-envoy-original-dst-host": `127.0.0.1:${port}` } });
  for (let k = 0; k < 4; k++)
    for (const { port } of upstreams) expect((await ask(port)).text).toBe("ok");
  await eventually(members, (count) => count === 2, "both are members");
  await eventually(members, (count) => count === 0, "no host is left");
});
