import { appendFileSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Authority } from "./certificates.ts";
import { bootstrap, cluster, downstreamTls, http, listener, route, unlimited } from "./config.ts";
import { StreamLoad } from "./http2-load.ts";
import { Proxy } from "./proxy.ts";
import { FILTER, filterSource, routerSource } from "./reloading.ts";
import { ShippedCopy } from "./shipped-copy.ts";

const WORKERS = 2;
const CONNECTIONS = 4;
const STREAMS = 4;
const EDITS = 4;

/** The balancer as it is shipped, except that it gives all turns to one host. */
const balancerSource = (version: number): string => `import balancer from "./shipped.ts";

const VERSION = ${version};

export default {
  ...balancer,
  setup(config, cx) {
    const made = balancer.setup(config, cx);
    return {
      ...made,
      create: ({ hosts, ...more }) => made.create({ ...more, hosts: [hosts[VERSION % hosts.length]] }),
    };
  },
};
`;

const authority = new Authority("ours");
/** To be edited. */
const shipped = new ShippedCopy();
let proxy: Proxy;
const origins: http2.Http2Server[] = [];
const loads: Record<"plain" | "secure", StreamLoad> = {} as never;

beforeAll(async () => {
  for (const [name, source] of [
    ["http/router", routerSource(0)],
    ["balancer/round_robin", balancerSource(0)],
  ] as const) {
    renameSync(shipped.file(name), shipped.file(name, "shipped.ts"));
    writeFileSync(shipped.file(name), source);
  }
  const ports = await Promise.all([0, 1].map(openOrigin));
  const filter = http([route("/", "origin")], {}, [
    { name: "mark", config: { header: "x-filter" } },
  ]);
  const { certificate, key } = authority.issue("site", "site", "DNS:localhost");
  const transport_socket = downstreamTls({ certificate, key });
  proxy = await Proxy.start({
    config: bootstrap(
      [
        listener("plain", filter),
        { ...listener("secure", filter), filter_chains: [{ filters: [filter], transport_socket }] },
      ],
      [cluster("origin", ports, { ...unlimited, http2_protocol_options: {} })],
    ),
    files: { [FILTER]: filterSource(0) },
    concurrency: WORKERS,
    env: { TSPROXY_SHIPPED_FILTERS: shipped.root },
  });
  for (const name of ["plain", "secure"] as const) {
    const address = `${name === "secure" ? "https" : "http"}://localhost:${proxy.port(name)}`;
    loads[name] = new StreamLoad({
      connect: () =>
        http2.connect(address, {
          ca: authority.root.pem,
          lookup: (_host, _options, done) => done(null, [{ address: "127.0.0.1", family: 4 }]),
        }),
      connections: CONNECTIONS,
      streams: STREAMS,
      body: "complete",
    });
    await loads[name].pass(50);
  }
});
afterAll(async () => {
  await Promise.all(Object.values(loads).map((load) => load.stop()));
  await proxy?.stop();
  for (const origin of origins) origin.close();
  authority.dispose();
  shipped.remove();
});

/** Says its number, and which router has asked. */
async function openOrigin(number: number): Promise<number> {
  const origin = http2.createServer();
  origins.push(origin);
  origin.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    stream.respond({ ":status": 200, "x-origin": number, "x-router": headers["x-router"] });
    stream.end("complete");
  });
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  return (origin.address() as AddressInfo).port;
}

const both = <T>(act: (load: StreamLoad) => Promise<T>): Promise<T[]> =>
  Promise.all([act(loads.plain), act(loads.secure)]);
const failures = (): readonly string[] => [...loads.plain.failures, ...loads.secure.failures];
const opened = (): readonly number[] => [loads.plain.opened, loads.secure.opened];

/** What is edited, and whether an answer comes from its `version`. */
const KEPT: Readonly<
  Record<
    string,
    [(version: number) => void, (head: http2.IncomingHttpHeaders, version: number) => boolean]
  >
> = {
  "a sandboxed filter": [
    (version) => proxy.write(FILTER, filterSource(version)),
    (head, version) => String(head["x-filter"]).startsWith(`${version} `),
  ],
  "the router": [
    (version) => writeFileSync(shipped.file("http/router"), routerSource(version)),
    (head, version) => head["x-router"] === String(version),
  ],
  "the balancer": [
    (version) => writeFileSync(shipped.file("balancer/round_robin"), balancerSource(version)),
    (head, version) => head["x-origin"] === String(version % 2),
  ],
};

test.each(Object.keys(KEPT))(
  `${EDITS} edits of %s serve the next streams of the same connections, and no stream fails`,
  async (name) => {
    const [edit, isNew] = KEPT[name]!;
    const before = opened();
    for (let version = 1; version <= EDITS; version++) {
      edit(version);
      await both((load) => load.untilSameConnections(({ headers }) => isNew(headers, version)));
    }
    const after = await both((load) => load.pass(50));
    expect(after.flat().filter(({ headers }) => !isNew(headers, EDITS))).toEqual([]);
    expect(opened()).toEqual(before);
    expect(failures()).toEqual([]);
  },
);

test.each([
  ["codec/http2", ["plain", "secure"]],
  ["network/http_connection_manager", ["plain", "secure"]],
  ["transport/tls", ["secure"]],
] as const)(
  "edits of %s move clients to new connections, and no stream fails",
  async (name, which) => {
    for (let n = 0; n < 2; n++) {
      const moved = which.map((load) => loads[load].untilMoved());
      const file = shipped.file(name);
      const edits = readFileSync(file, "utf8").split("export const edit").length;
      appendFileSync(file, `\nexport const edit${edits} = ${edits};\n`);
      await Promise.all(moved);
    }
    await both((load) => load.pass(50));
    expect(failures()).toEqual([]);
  },
);

test("the proxy has reset none of the streams, and has answered each that it has seen", async () => {
  await both((load) => load.stop());
  expect(failures()).toEqual([]);
  expect(await proxy.stat("http2.tx_reset")).toBe(0);
  const asked = loads.plain.answers + loads.secure.answers;
  await proxy.untilStat("http.test.downstream_rq_2xx", asked);
  expect(await proxy.stat("http.test.downstream_rq_http2_total")).toBe(asked);
});
