import { describe, expect, it } from "vitest";
import { formatDiagnostic, loadConfig } from "./load.ts";
import { TEST_PACKAGES } from "./test-packages.ts";
import { upgrade } from "./upgrade.ts";

function load(text: string) {
  return loadConfig({ file: "v2.yaml", text }, TEST_PACKAGES, { strict: false });
}
function errors(text: string): string[] {
  const loaded = load(text);
  return loaded.ok ? [] : loaded.errors.map(formatDiagnostic);
}
function dump(text: string): unknown {
  const loaded = load(text);
  if (!loaded.ok) throw new Error(loaded.errors.map(formatDiagnostic).join("\n"));
  return loaded.bootstrap;
}
// biome-ignore lint/suspicious/noExplicitAny: a test reads the JSON it expects.
const listener = (text: string) => (dump(text) as any).static_resources.listeners[0];
const hcmOf = (text: string) => listener(text).filter_chains[0].filters[0].typed_config;

const front = (
  hcm = "",
  routes = "[{match: {prefix: /}, route: {cluster: a}}]",
) => `static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: 80}}
    filter_chains:
    - filters:
      - name: envoy.http_connection_manager
        config:
          codec_type: auto
          stat_prefix: ingress_http
          ${hcm}
          route_config: {name: r, virtual_hosts: [{name: v, domains: ["*"], routes: ${routes}}]}
          http_filters:
          - name: envoy.router
            config: {}
`;
const routeOf = (route: string) =>
  hcmOf(front("", `[${route}]`)).route_config.virtual_hosts[0].routes[0];

describe("forms that v3 has deprecated", () => {
  const v3 = (route: string, filters: string) => `static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: 80}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          route_config: {virtual_hosts: [{name: v, domains: ["*"], cors: {max_age: "7"}, routes: [{match: {prefix: /}, route: ${route}}]}]}
          http_filters: [${filters}{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
`;
  const cors =
    "{name: mine, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}, ";
  const hostOf = (text: string) => hcmOf(text).route_config.virtual_hosts[0];

  it("give cors of hosts and routes to the chain's filter by its name", () => {
    const host = hostOf(v3("{cluster: a, cors: {expose_headers: x}}", cors));
    expect(host.typed_per_filter_config.mine).toMatchObject({ max_age: "7" });
    const [route] = host.routes;
    expect(route.typed_per_filter_config.mine).toMatchObject({ expose_headers: "x" });
    expect([host.cors, route.route.cors]).toEqual([undefined, undefined]);
  });

  it("drop cors where no filter reads it", () => {
    expect(hostOf(v3("{cluster: a}", ""))).not.toHaveProperty("typed_per_filter_config");
  });

  it("make a policy of internal_redirect_action", () => {
    const action = "internal_redirect_action: HANDLE_INTERNAL_REDIRECT, max_internal_redirects: 3";
    const [route] = hostOf(v3(`{cluster: a, ${action}}`, "")).routes;
    expect(route.route).toMatchObject({ internal_redirect_policy: { max_internal_redirects: 3 } });
  });
});

describe("a v2 file", () => {
  it("becomes v3: the front proxy of 2018", () => {
    const text = `${front("access_log: [{name: envoy.file_access_log, config: {path: /dev/null}}]")}  clusters:
  - name: service1
    connect_timeout: 0.25s
    type: strict_dns
    lb_policy: round_robin
    http2_protocol_options: {}
    hosts:
    - socket_address: {address: service1, port_value: 80}
admin:
  access_log_path: "/dev/null"
  address: {socket_address: {address: 0.0.0.0, port_value: 8001}}
`;
    const loaded = load(text);
    expect(loaded.ok && loaded.config.listeners[0]!.filterChains[0]!.filters[0]).toMatchObject({
      name: "envoy.http_connection_manager",
      package: "network/http_connection_manager",
      config: {
        codec_type: "AUTO",
        http_filters: [{ name: "envoy.router", package: "http/router", config: {} }],
        access_log: [{ package: "access_log/file", config: { path: "/dev/null" } }],
      },
    });
    expect(loaded.ok && loaded.config.services[0]!.config).toMatchObject([
      {
        name: "service1",
        connect_timeout: 250,
        type: "STRICT_DNS",
        load_assignment: {
          cluster_name: "service1",
          endpoints: [
            {
              lb_endpoints: [
                {
                  endpoint: {
                    address: { socket_address: { address: "service1", port_value: 80 } },
                  },
                },
              ],
            },
          ],
        },
      },
    ]);
    expect(loaded.warnings.map(formatDiagnostic)).toEqual([
      "v2.yaml:20:5: static_resources.clusters[0].http2_protocol_options: known to Envoy, not implemented here",
    ]);
  });

  it("is refused at its own lines", () => {
    const text = `static_resources:
  clusters:
  - name: a
    hosts:
    - socket_address: {address: 1.1.1.1, port_value: 99999}
`;
    expect(errors(text)).toEqual([
      "v2.yaml:5:54: static_resources.clusters[0].hosts[0].socket_address.port_value: 99999 must be at most 65535",
    ]);
    expect(errors(front().replace("envoy.router", "envoy.lua"))).toContainEqual(
      expect.stringMatching(
        /^v2\.yaml:13:19: .*name: Envoy's envoy\.filters\.http\.lua is not implemented here$/,
      ),
    );
  });

  it("may name v2 types", () => {
    const text = front().replace(
      "config:\n          codec_type",
      'typed_config:\n          "@type": type.googleapis.com/envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager\n          codec_type',
    );
    expect(hcmOf(text)["@type"]).toBe(
      "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    );
  });

  it("may leave the config of a filter out", () => {
    expect(hcmOf(front().replace("            config: {}\n", "")).http_filters).toEqual([
      {
        name: "envoy.router",
        typed_config: {
          "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        },
      },
    ]);
  });

  it("keeps what its routes matched and did", () => {
    expect(routeOf("{match: {regex: /a.*}, route: {cluster: a}}").match).toEqual({
      safe_regex: { regex: "/a.*" },
    });
    expect(
      routeOf(
        "{match: {prefix: /, headers: [{name: a, value: b}, {name: c, value: d, regex: true}, {name: e, regex_match: f}]}, route: {cluster: a}}",
      ).match.headers,
    ).toEqual([
      { name: "a", string_match: { exact: "b" } },
      { name: "c", string_match: { safe_regex: { regex: "d" } } },
      { name: "e", string_match: { safe_regex: { regex: "f" } } },
    ]);
    expect(
      routeOf(
        "{match: {prefix: /, query_parameters: [{name: a, value: b}, {name: c, value: d, regex: true}, {name: e}]}, route: {cluster: a}}",
      ).match.query_parameters,
    ).toEqual([
      { name: "a", string_match: { exact: "b" } },
      { name: "c", string_match: { safe_regex: { regex: "d" } } },
      { name: "e", present_match: true },
    ]);
    expect(
      routeOf("{match: {prefix: /}, route: {cluster: a, host_rewrite: b, use_websocket: true}}")
        .route,
    ).toEqual({
      cluster: "a",
      host_rewrite_literal: "b",
      upgrade_configs: [{ upgrade_type: "websocket", enabled: true }],
    });
  });

  it("keeps per-route config by the filter's old name", () => {
    const text = front(
      "",
      "[{match: {prefix: /}, route: {cluster: a}, per_filter_config: {envoy.buffer: {disabled: true}}}]",
    );
    const loaded = load(text);
    expect(
      loaded.ok && loaded.config.listeners[0]!.filterChains[0]!.filters[0]!.config,
    ).toMatchObject({
      route_config: {
        virtual_hosts: [
          {
            routes: [
              {
                typed_per_filter_config: {
                  "envoy.buffer": { package: "http/buffer", config: { disabled: true } },
                },
              },
            ],
          },
        ],
      },
    });
  });

  it("moves what v3 has elsewhere", () => {
    const text = front("idle_timeout: 5s\n          tracing: {operation_name: egress}");
    expect(hcmOf(text).common_http_protocol_options).toEqual({ idle_timeout: "5s" });
    expect(hcmOf(text).tracing).toEqual({});
    expect(listener(text).traffic_direction).toBe("OUTBOUND");
    expect(
      dump(
        "runtime: {symlink_root: /a, subdirectory: b, override_subdirectory: c}\nstatic_resources: {clusters: [{name: a, hosts: []}]}\n",
      ),
    ).toMatchObject({
      layered_runtime: {
        layers: [
          { name: "root", disk_layer: { symlink_root: "/a", subdirectory: "b" } },
          {
            name: "override",
            disk_layer: { symlink_root: "/a", subdirectory: "c", append_service_cluster: true },
          },
          { name: "admin", admin_layer: {} },
        ],
      },
    });
  });

  it("with tls_context is refused rather than served in plain", () => {
    const text = "static_resources: {clusters: [{name: a, hosts: [], tls_context: {sni: b}}]}";
    expect(errors(text)).toEqual([
      "v2.yaml:1:52: static_resources.clusters[0].tls_context: known to Envoy, not implemented here, and not safe to ignore",
    ]);
  });

  it("with a v1 body inside is refused with a clear word", () => {
    expect(errors(front("deprecated_v1: true"))).toEqual([
      expect.stringMatching(
        /config\.deprecated_v1: a v1 filter config cannot be read; write it in v2 or v3 form$/,
      ),
    ]);
  });
});

describe("a v3 file", () => {
  const v3 = (field: string) => `static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: 80}}
    filter_chains:
    - filters:
      - name: t
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: a}
  clusters:
  - name: a
    ${field}
`;
  it("may not hold v2's fields, and hears what v3 calls them", () => {
    expect(errors(v3("hosts: [{socket_address: {address: 1.1.1.1, port_value: 80}}]"))).toEqual([
      `v2.yaml:10:5: static_resources.clusters[0].hosts: unknown field "hosts"; that is Envoy's v2; write load_assignment`,
    ]);
  });

  it("hears nothing of v2 for a field that every object of JavaScript has", () => {
    expect(errors(v3("constructor: 1"))).toEqual([
      'v2.yaml:10:5: static_resources.clusters[0].constructor: unknown field "constructor"',
    ]);
  });
  it("may not hold untyped config", () => {
    const untyped = `${v3("type: STATIC")}tracing: {http: {name: envoy.zipkin, config: {collector_cluster: a, collector_endpoint: /b}}}\n`;
    expect(errors(untyped)).toEqual([
      'v2.yaml:11:38: tracing.http.config: unknown field "config"; write typed_config with its @type',
    ]);
  });
});

it("turns the gzip filter into the compressor with its library", () => {
  const text = front().replace(
    "          - name: envoy.router",
    "          - name: envoy.gzip\n" +
      "            config: {memory_level: 3, compression_level: SPEED, content_length: 50, disable_on_etag_header: true}\n" +
      "          - name: envoy.router",
  );
  const { text: made, errors: found } = upgrade({ file: "a.yaml", text });
  expect(found).toEqual([]);
  for (const line of [
    "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
    "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip",
    "compression_level: BEST_SPEED",
    "min_content_length: 50",
    "disable_on_etag_header: true",
  ])
    expect(made).toContain(line);
});

it("finds bind_to_port where v2 had it", () => {
  const text = "static_resources: {listeners: [{name: a, deprecated_v1: {bind_to_port: false}}]}\n";
  const made = upgrade({ file: "a.yaml", text });
  expect(made.text).toBe("static_resources: { listeners: [ { name: a, bind_to_port: false } ] }\n");
});
