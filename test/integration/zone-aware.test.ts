import type http from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { get } from "./client.ts";
import { address, bootstrap, listener, http as manager, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

let near: Upstream<http.Server>;
let far: Upstream<http.Server>;
let proxy: Proxy;

beforeAll(async () => {
  const named = (name: string) => httpUpstream((_request, response) => response.end(name));
  [near, far] = await Promise.all([named("near"), named("far")]);
  proxy = await Proxy.start({ config: config() });
});
afterAll(async () => {
  await proxy?.stop();
  await Promise.all([near?.close(), far?.close()]);
});

const zone = (name: string, ports: readonly number[]) => ({
  locality: { zone: name },
  lb_endpoints: ports.map((port) => ({ endpoint: { address: address(port) } })),
});

/** This proxy runs in zone `a`, where half of all proxies are. */
function config() {
  const upstreams = [
    zone("a", [near.port, near.port, near.port]),
    zone("b", [far.port, far.port, far.port]),
  ];
  const cluster = (name: string, endpoints: object[]) => ({
    name,
    type: "STATIC",
    load_assignment: { cluster_name: name, endpoints },
  });
  return {
    ...bootstrap(
      [listener("main", manager([route("/", "service")]))],
      [cluster("proxies", [zone("a", [1]), zone("b", [2])]), cluster("service", upstreams)],
    ),
    node: { id: "n", cluster: "c", locality: { zone: "a" } },
    cluster_manager: { local_cluster_name: "proxies" },
  };
}

test("requests stay in the zone that the proxy runs in", async () => {
  for (let k = 0; k < 12; k++) expect((await get(proxy.port("main"), "/")).text).toBe("near");
  const stat = await proxy.stats();
  expect(stat("cluster.service.lb_zone_routing_all_directly")).toBe(12);
});

test("a local cluster that there is none of is refused", async () => {
  const wrong = { ...config(), cluster_manager: { local_cluster_name: "nobody" } };
  await expect(Proxy.start({ config: wrong })).rejects.toThrow(
    'local cluster "nobody" must be defined',
  );
});
