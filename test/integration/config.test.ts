import { afterEach, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, http, type Json, listener } from "./config.ts";
import { Proxy, StartFailure } from "./proxy.ts";

let proxy: Proxy | undefined;
afterEach(async () => {
  await proxy?.stop();
  proxy = undefined;
});

const HCM =
  "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/** A front that answers by itself. `filters` and `more` are lines of YAML at the depth of its config. */
function front(filters: string, more = ""): string {
  return `admin:
  address:
    socket_address: { address: 127.0.0.1, port_value: 0 }
static_resources:
  listeners:
  - name: main
    address:
      socket_address: { address: 127.0.0.1, port_value: 0 }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": ${HCM}
          stat_prefix: main
${more}          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: { prefix: / }
                direct_response: { status: 200, body: { inline_string: "hello" } }
          http_filters:
${filters}
`;
}
const ROUTER = `          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router`;

async function refusal(config: string): Promise<string> {
  const failure = await Proxy.start({ config }).catch((error: unknown) => error);
  if (failure instanceof Proxy) await failure.stop();
  expect(failure).toBeInstanceOf(StartFailure);
  expect((failure as StartFailure).code).toBe(1);
  return (failure as StartFailure).output;
}

/** Line and column, from 1, where a text begins in a file. */
function placeOf(text: string, file: string): string {
  const before = file.slice(0, file.indexOf(text)).split("\n");
  return `${before.length}:${before.at(-1)!.length + 1}`;
}

test("a filter that nobody knows is named with its place and the one that was meant", async () => {
  const config = front("          - name: http/ruoter\n            config: {}");
  const output = await refusal(config);
  expect(output).toContain(`envoy.yaml:${placeOf("http/ruoter", config)}: `);
  expect(output).toContain('did you mean "http/router"?');
});

test("a field that nobody knows is named with its place and the one that was meant", async () => {
  const config = front(ROUTER, "          stat_prefx: main\n");
  const output = await refusal(config);
  expect(output).toMatch(new RegExp(`envoy.yaml:${placeOf("stat_prefx", config)}: .*stat_prefx`));
  expect(output).toContain("stat_prefix");
});

test("all errors of a file are told at once", async () => {
  const config = front(ROUTER, "          codec_type: HTTP9\n          stat_prefx: main\n");
  const output = await refusal(config);
  expect(output).toContain("HTTP9");
  expect(output).toContain("stat_prefx");
});

test("all errors that only setups find are told at once", async () => {
  const bad = ["nowhere", "gone", "lost"];
  const routes = bad.map(
    (name) => `
              - match: { prefix: / }
                route: { cluster: ${name} }`,
  );
  const config = front(ROUTER).replace(
    "              routes:",
    `              routes:${routes.join("")}
              - match: { safe_regex: { regex: "(" } }
                direct_response: { status: 200 }`,
  );
  const output = await refusal(config);
  for (const name of bad)
    expect(output).toMatch(
      new RegExp(`envoy.yaml:${placeOf(`${name} }`, config)}: .*unknown cluster "${name}"`),
    );
  expect(output).toMatch(/envoy.yaml:\d+:\d+: .*\.safe_regex\.regex: .*missing closing/);
});

test("errors of some parts do not hide what setups refuse of the others", async () => {
  const wrongShapes = "stats_config: [1]\n";
  const routes =
    "routes:\n              - match: { prefix: /lost }\n                route: { cluster: gone }";
  const config = wrongShapes.concat(
    front(ROUTER).replace("routes:", routes),
    "  - name: [other]\n",
  );
  const output = await refusal(config);
  expect(output).toContain("stats_config: is a list");
  expect(output).toMatch(/static_resources.listeners\[1\].name: /);
  expect(output).toMatch(
    new RegExp(`envoy.yaml:${placeOf("gone }\n", config)}: .*unknown cluster "gone"`),
  );
});

test("errors of the shape of listeners do not hide what the cluster manager refuses", async () => {
  const config = front(ROUTER, "          stat_prefx: main\n").concat(`  clusters:
  - { name: twice, type: STATIC, load_assignment: { cluster_name: x } }
  - { name: twice, type: STATIC, load_assignment: { cluster_name: x } }
`);
  const output = await refusal(config);
  expect(output).toContain("stat_prefx");
  expect(output).toMatch(
    /envoy.yaml:\d+:\d+: static_resources.clusters\[1\].name: "twice" is already/,
  );
  expect(output).not.toContain("unknown cluster");
});

test("two clusters of one name are no reason to call the clusters of routes unknown", async () => {
  const clusters = ["up", "twice", "twice", "twice"].map(
    (name) => `
  - { name: ${name}, type: STATIC, load_assignment: { cluster_name: x } }`,
  );
  const config = front(ROUTER)
    .replace(
      'direct_response: { status: 200, body: { inline_string: "hello" } }',
      "route: { cluster: up }",
    )
    .concat(`  clusters:${clusters.join("")}\n`);
  const output = await refusal(config);
  expect(output.match(/"twice" is already the name of another cluster/g)).toHaveLength(2);
  expect(output).not.toContain("unknown cluster");
});

test("what the cluster manager refuses hides nothing of what routes are refused for", async () => {
  const config = front(ROUTER)
    .replace(
      "routes:",
      `routes:
              - match: { prefix: /up }
                route: { cluster: up }
              - match: { safe_regex: { regex: "(" } }
                direct_response: { status: 200 }`,
    )
    .concat(`  clusters:
  - { name: up, type: STATIC, load_assignment: { cluster_name: x } }
  - { name: bad, type: STATIC, lb_policy: RING_HASH, ring_hash_lb_config: { minimum_ring_size: 9, maximum_ring_size: 2 }, load_assignment: { cluster_name: x } }
`);
  const output = await refusal(config);
  expect(output).toMatch(/envoy.yaml:\d+:\d+: static_resources.clusters\[1\]/);
  expect(output).toMatch(/envoy.yaml:\d+:\d+: .*\.safe_regex\.regex: .*missing closing/);
  expect(output).not.toContain("unknown cluster");
});

test("YAML that is none is told with its line", async () => {
  expect(await refusal("static_resources:\n  listeners: [\n")).toMatch(/envoy\.yaml:[23]:\d+: /);
});

test("a file that is not there is an error, not a stack", async () => {
  const failure = await Proxy.start({ config: "nowhere.yaml", folder: "/tmp" }).catch(
    (error: unknown) => error,
  );
  expect(failure).toBeInstanceOf(StartFailure);
  expect((failure as StartFailure).output).toContain("nowhere.yaml");
  expect((failure as StartFailure).output).not.toMatch(/^\s+at /m);
});

test("a filter behind the terminal one is refused, with the place of the terminal one", async () => {
  const output = await refusal(front(`${ROUTER}\n${ROUTER}`));
  expect(output).toMatch(/envoy\.yaml:\d+:\d+: .*http_filters\[0\].*must be the last/);
});

test("a field that Envoy knows and we do not is a warning, and the rest serves", async () => {
  proxy = await Proxy.start({
    config: front(ROUTER, "          http3_protocol_options: { allow_extended_connect: true }\n"),
  });
  expect(await proxy.line(/http3_protocol_options/)).toMatchObject({ level: "warn" });
  expect((await get(proxy.port("main"), "/")).text).toBe("hello");
});

test("YAML and JSON, snake_case and lowerCamelCase, say the same", async () => {
  const config = front(ROUTER)
    .replace("stat_prefix", "statPrefix")
    .replace("route_config", "routeConfig");
  proxy = await Proxy.start({ config });
  expect((await get(proxy.port("main"), "/")).text).toBe("hello");
});

test("weights of clusters that come from the runtime are summed when a config is loaded, as its own layers have them", async () => {
  const config = (runtime: Json, weight = 0) => {
    const clusters = ["first", "second"].map((name) => ({ name, weight }));
    const split = {
      match: { prefix: "/" },
      route: { weighted_clusters: { runtime_key_prefix: "split", clusters } },
    };
    const statics = clusters.map(({ name }) => ({ name, load_assignment: { cluster_name: name } }));
    return {
      ...bootstrap([listener("main", http([split]))], statics),
      layered_runtime: {
        layers: [
          { name: "static", static_layer: { split: runtime } },
          { name: "admin", admin_layer: {} },
        ],
      },
    };
  };
  const refused = 'with the runtime\'s "split.…" the weights are 0 in sum';
  expect(await refusal(JSON.stringify(config({ first: 0 })))).toContain(refused);
  proxy = await Proxy.start({ config: config({ first: 5 }) });
  /** No cluster has a host, so the status tells whether the route matched. */
  const status = async () => (await get(proxy!.port("main"), "/")).status;
  expect(await status()).toBe(503);

  proxy.reconfigure(config({ first: 0, second: 0 }, 1));
  await proxy.line(/with the runtime's "split\.…" the weights are 0 in sum/);
  expect(await proxy.admin("/runtime")).toContain('"5"');
  proxy.reconfigure(config({ second: 7 }));
  await eventually(
    () => proxy!.admin("/runtime"),
    (text) => text.includes('"7"'),
    "the second config's runtime",
  );
  expect(await status()).toBe(503);
  await proxy.admin("/runtime_modify?split.second=0", "POST");
  await eventually(status, (code) => code === 404, "no match, as no cluster has a weight");
});
