// node test/bench/route-table.ts: a table of 10,000 virtual hosts and 100,000 routes: time and memory to compile it as the canary
// does, which only looks for errors, and as workers do; and the time of one lookup by host, for exact names and wildcards, on its
// way to the tenth route.
import { RequestHeaders } from "@tsproxy/sdk";
import { TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { TestRequest } from "../../filters/network/http_connection_manager/route-check.ts";
import { RouteConfig } from "../../filters/network/http_connection_manager/route-config.ts";
import { RouteTable } from "../../filters/network/http_connection_manager/route-table.ts";

const HOSTS = 10_000;
const ROUTES = 10;
const LOOKUPS = 200_000;

const domain = (v: number): string =>
  v % 10 === 0 ? `*.wild${v}.test` : v % 10 === 1 ? `prefix${v}.*` : `host${v}.test`;
const config = withDefaults(RouteConfig, {
  name: "big",
  validate_clusters: false,
  virtual_hosts: Array.from({ length: HOSTS }, (_, v) => ({
    name: `host${v}`,
    domains: [domain(v)],
    request_headers_to_add: [{ header: { key: "x-host", value: `${v}` } }],
    routes: Array.from({ length: ROUTES }, (_, r) => ({
      match: { prefix: `/service/${r}/` },
      route: { cluster: `cluster${r}` },
    })),
  })),
});

function compile(role: TestContext["role"]): RouteTable {
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  const begun = cpuMs();
  const made = new RouteTable(config, "route_config", Object.assign(new TestContext(), { role }));
  const ms = cpuMs() - begun;
  globalThis.gc?.();
  const mib = (process.memoryUsage().heapUsed - before) / 2 ** 20;
  console.log(`${role}: compiled in ${ms.toFixed(0)} ms, ${mib.toFixed(0)} MiB`);
  return made;
}

compile("canary");
// Virtual hosts that nobody has asked for are not compiled there.
const table = compile("worker");

for (const [kind, host] of [
  ["exact", (v: number) => `host${v * 10 + 5}.test`],
  ["suffix", (v: number) => `a.wild${v * 10}.test`],
  ["prefix", (v: number) => `prefix${v * 10 + 1}.com`],
  ["unknown", (v: number) => `no${v}.where`],
] as const) {
  const subjects = Array.from({ length: 1000 }, (_, v) => {
    const subject = new TestRequest({ input: { authority: host(v), path: "/service/9/x" } });
    // A head as the codec leaves it: bytes.
    return Object.assign(subject, { request: fromWire(host(v)) });
  });
  for (const subject of subjects) table.find(subject);
  let found = 0;
  const from = cpuMs();
  for (let k = 0; k < LOOKUPS; k++) if (table.find(subjects[k % 1000]!) !== undefined) found++;
  const ns = ((cpuMs() - from) * 1e6) / LOOKUPS;
  console.log(`${kind}: ${ns.toFixed(0)} ns a lookup, ${found} of ${LOOKUPS} found`);
}

/** CPU time of this thread. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

function fromWire(host: string): RequestHeaders {
  const headers = new RequestHeaders();
  const path = "/service/9/x";
  headers.memory = Buffer.from(path);
  headers.pathEnd = headers.blockEnd = path.length;
  headers.authority = host;
  return headers;
}
