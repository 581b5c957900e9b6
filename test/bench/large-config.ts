// node test/bench/large-config.ts: what large configs cost: CPU to check a file, to write it down for threads, and to set it up in
// one isolate, with the memory that this leaves there. 10,000 virtual hosts with 100,000 routes; 1,000 clusters of 10 endpoints,
// plain and as in production.

import { loadConfig } from "../../core/config/load.ts";
import { Catalog } from "../../core/packages/catalog.ts";
import { Canary } from "../../core/reload/canary.ts";
import { WrittenConfig } from "../../core/reload/written-config.ts";

const type = (name: string) => `type.googleapis.com/envoy.extensions.filters.${name}`;
const address = (ip: string, port_value: number) => ({
  socket_address: { address: ip, port_value },
});

/** `more`: further fields of each cluster. */
function bootstrap(hosts: number, clusters: number, more: object = {}): object {
  const virtual_hosts = Array.from({ length: hosts }, (_, v) => ({
    name: `host${v}`,
    domains: [`host${v}.test`],
    routes: Array.from({ length: 10 }, (_, r) => ({
      match: { prefix: `/service/${r}/` },
      route: { cluster: "cluster0" },
    })),
  }));
  const router = { "@type": type("http.router.v3.Router") };
  const manager = {
    "@type": type("network.http_connection_manager.v3.HttpConnectionManager"),
    stat_prefix: "main",
    route_config: { name: "routes", virtual_hosts },
    http_filters: [{ name: "envoy.filters.http.router", typed_config: router }],
  };
  const filters = [
    { name: "envoy.filters.network.http_connection_manager", typed_config: manager },
  ];
  return {
    static_resources: {
      listeners: [{ name: "main", address: address("127.0.0.1", 0), filter_chains: [{ filters }] }],
      clusters: Array.from({ length: clusters }, (_, c) => ({
        name: `cluster${c}`,
        ...more,
        load_assignment: {
          cluster_name: `cluster${c}`,
          endpoints: [
            {
              lb_endpoints: Array.from({ length: 10 }, (_, e) => ({
                endpoint: { address: address(`10.${c >> 8}.${c & 255}.${e + 1}`, 8080) },
              })),
            },
          ],
        },
      })),
    },
  };
}

const catalog = await Catalog.open([]);
const built = (await catalog.units([])).flatMap((unit) => unit.next ?? []);
const packages = built.flatMap(({ infos }) => infos);
const modules = built.flatMap((made) => made.modules);

async function measure(name: string, config: object): Promise<void> {
  const text = JSON.stringify(config, undefined, 1);
  const marks = [process.cpuUsage()];
  const loaded = loadConfig({ text, format: "json" }, packages, { strict: false });
  if (!loaded.ok) throw new Error(loaded.errors[0]?.message);
  marks.push(process.cpuUsage());
  const size = WrittenConfig.of(loaded.config).text().length;
  marks.push(process.cpuUsage());
  const node = { id: "", cluster: "" };
  const canary = new Canary({ prelude: catalog.preludes, node: () => node, sandboxed: "left out" });
  const before = process.memoryUsage.rss();
  const change = { generation: 1, modules, removed: [], config: loaded.config };
  const refusals = await canary.prepare(change);
  if (refusals.length > 0) throw new Error(refusals[0]!.message);
  marks.push(process.cpuUsage());
  const ms = marks.slice(1).map(({ user, system }, k) => {
    const last = marks[k]!;
    return Math.round((user + system - last.user - last.system) / 1000);
  });
  const mib = Math.round((process.memoryUsage.rss() - before) / 2 ** 20);
  const file = (text.length / 2 ** 20).toFixed(1);
  const sent = (size / 2 ** 20).toFixed(1);
  console.log(
    `${name}: file ${file} MiB; CPU: checked ${ms[0]} ms, written ${ms[1]} ms (${sent} MiB), set up ${ms[2]} ms, ${mib} MiB more`,
  );
  canary.dispose();
}

await measure("one of each", bootstrap(1, 1));
await measure("one of each, again", bootstrap(1, 1));
await measure("10,000 virtual hosts, 100,000 routes", bootstrap(10_000, 1));
await measure("1,000 clusters, 10,000 endpoints", bootstrap(1, 1_000));
const guards = {
  outlier_detection: { consecutive_5xx: 5 },
  circuit_breakers: { thresholds: [{ max_connections: 1_000, max_requests: 2_000 }] },
};
await measure("the same with outlier detection and circuit breakers", bootstrap(1, 1_000, guards));
catalog.dispose();
process.exit(0);
