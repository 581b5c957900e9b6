import { describe, expect, it } from "vitest";
import { formatDiagnostic } from "./load.ts";
import { cluster, config, errors, http, load, ROUTER, TYPES, warnings } from "./test-load.ts";

describe("a configuration", () => {
  it("becomes listeners, chains and services with every default filled in", () => {
    const made = config(`${http(`          - ${ROUTER}`)}
node: {id: me, cluster: us}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
`);
    expect(made.node).toEqual({ id: "me", cluster: "us" });
    expect(made.listeners[0]).toMatchObject({
      name: "127.0.0.1:8080",
      statPrefix: "127.0.0.1_8080",
      address: { ip: "127.0.0.1", port: 8080 },
      direction: "UNSPECIFIED",
      listenerFiltersTimeoutMs: 15_000,
      perConnectionBufferLimitBytes: 1_048_576,
      source: "front.yaml:4:5",
    });
    const filter = made.listeners[0]!.filterChains[0]!.filters[0]!;
    expect(filter).toMatchObject({ name: "hcm", package: "network/http_connection_manager" });
    expect(filter.config).toMatchObject({ codec_type: "AUTO", generate_request_id: true });
    expect(made.services.map((s) => s.package)).toEqual([
      "service/cluster_manager",
      "service/admin",
      "service/clock",
    ]);
    expect(made.services[0]!.config).toEqual([]);
    expect(made.services[2]!.config).toEqual({ tick: 1000 });
  });

  it("starts no admin where none is asked for", () => {
    expect(config("static_resources: {}").services.map((s) => s.package)).not.toContain(
      "service/admin",
    );
  });

  it("is read from JSON with the same positions", () => {
    const text = `{"static_resources": {\n  "clusters": [{"name": "a",\n    "lb_polizy": 1}]}}`;
    expect(errors(text, { file: "c.json" })).toEqual([
      'c.json:3:5: static_resources.clusters[0].lb_polizy: unknown field "lb_polizy"; did you mean "lb_policy"?',
    ]);
  });

  it("is given back as canonical v3 JSON for the config dump", () => {
    const loaded = load(
      cluster(
        "connectTimeout: 0.25s\n    type: strict_dns\n    per_connection_buffer_limit_bytes: '5'",
      ),
    );
    expect(loaded.ok && loaded.bootstrap).toEqual({
      static_resources: {
        clusters: [
          {
            name: "a",
            connect_timeout: "0.250s",
            type: "STRICT_DNS",
            per_connection_buffer_limit_bytes: 5,
          },
        ],
      },
    });
  });

  it("is dumped in the order of protobuf's numbers, without what only repeats a default", () => {
    const loaded = load(
      cluster(`lb_policy: ROUND_ROBIN
    respect_dns_ttl: false
    max_requests_per_connection: 0
    health_checks: []
    common_lb_config: {healthy_panic_threshold: {value: 0}}
    alt_stat_name: "0"
    connect_timeout: 1s
    type: STATIC
    metadata: {filter_metadata: {x: {zero: 0, none: ""}}}`),
    );
    if (!loaded.ok) throw new Error(loaded.errors.map(formatDiagnostic).join("\n"));
    // Wrappers, durations and members of oneofs say also zero; a Struct has no defaults.
    expect(JSON.stringify(loaded.bootstrap)).toBe(
      JSON.stringify({
        static_resources: {
          clusters: [
            {
              name: "a",
              type: "STATIC",
              connect_timeout: "1s",
              max_requests_per_connection: 0,
              metadata: { filter_metadata: { x: { zero: 0, none: "" } } },
              common_lb_config: { healthy_panic_threshold: {} },
              alt_stat_name: "0",
            },
          ],
        },
      }),
    );
  });
});

describe("errors", () => {
  it("are all told at once, each with its line, its path and how to mend it", () => {
    const text = `static_resources:
  clusters:
  - name: a
    connect_timeout: 250ms
    lb_policy: ROUND_ROBBIN
    per_connection_buffer_limit_bytes: 10MB
  - name: b
    conect_timeout: 1s
  listeners:
  - name: l
    address: {socket_address: {address: localhost, port_value: 80}}
    filter_chains: [{}]
`;
    expect(errors(text)).toEqual([
      'front.yaml:4:22: static_resources.clusters[0].connect_timeout: "250ms" is not a duration; write "0.25s"',
      'front.yaml:5:16: static_resources.clusters[0].lb_policy: "ROUND_ROBBIN" is not one of ROUND_ROBIN, LEAST_REQUEST, RING_HASH, RANDOM, MAGLEV, CLUSTER_PROVIDED or LOAD_BALANCING_POLICY_CONFIG; did you mean "ROUND_ROBIN"?',
      'front.yaml:6:40: static_resources.clusters[0].per_connection_buffer_limit_bytes: "10MB" is not a number; write 10485760',
      'front.yaml:8:5: static_resources.clusters[1].conect_timeout: unknown field "conect_timeout"; did you mean "connect_timeout"?',
      "front.yaml:11:41: static_resources.listeners[0].address.socket_address.address: malformed IP address: localhost; listeners take an IP address; names are not resolved",
    ]);
  });

  it("tell how Envoy's YAML writes an octal number", () => {
    const mode = (text: string) =>
      errors(
        `static_resources: {listeners: [{address: {pipe: {path: /a, mode: ${text}}}, filter_chains: [{}]}]}\n`,
      ).map((error) => error.replace(/^.*\.pipe\./, ""));
    expect(mode("0600")).toEqual([]);
    expect(mode("0o600")).toEqual(['mode: "0o600" is not a number; write 0600']);
    expect(mode("0b1")).toEqual(['mode: "0b1" is not a number']);
  });

  it("refuse an empty file, a list at the top and broken YAML", () => {
    expect(errors("")).toEqual(["front.yaml:1:1: the file is empty"]);
    expect(errors("# nothing\n")).toEqual(["front.yaml:1:1: the file is empty"]);
    expect(errors("- a\n")).toEqual(["front.yaml:1:1: the top level must be a map of fields"]);
    expect(errors("a: [\n")[0]).toMatch(/^front\.yaml:2:1: not YAML: /);
    expect(errors("{", { file: "a.json" })).toEqual([
      "a.json:1:2: not JSON: the end where a key in double quotes should be",
    ]);
  });

  it("say in place of a field that waits for a control plane, or of a merge key, what to write", () => {
    expect(errors("dynamic_resources: {cds_config: {ads: {}}}\n")[0]).toMatch(
      /not safe to ignore; write its listeners and clusters under static_resources$/,
    );
    const merged = "static_resources:\n  clusters:\n  - {<<: {type: STATIC}, name: a}\n";
    expect(errors(merged)).toEqual([
      'front.yaml:3:6: static_resources.clusters[0]["<<"]: unknown field "<<"; merge keys are not read, as in Envoy; write the fields out',
    ]);
  });

  it("of a mistake in every entry of a large file tell the first thousand and how many follow", () => {
    const entries = Array.from({ length: 1500 }, (_, k) => `  - {name: c${k}, tipe: STATIC}\n`);
    const told = errors(`static_resources:\n  clusters:\n${entries.join("")}`);
    expect(told.length).toBe(1001);
    expect(told.at(-1)).toBe(
      "front.yaml:1003:19: from here on 500 more, which are not told one by one",
    );
  });

  it("say that a template wants filling in, once", () => {
    expect(errors("node: {{ node }}\nadmin: {nothing: 1}\n")).toEqual([
      'front.yaml:1:8: node: a key must be a word; "{{ … }}" is a template to be filled in first',
    ]);
  });

  it("point at the second of two fields that exclude each other", () => {
    const both = http(
      `          - ${ROUTER}`,
      "[{match: {prefix: /, path: /a}, direct_response: {status: 200}}]",
    );
    expect(errors(both)[0]).toMatch(
      /match\.path: "path" and "prefix" exclude each other; keep one of them$/,
    );
  });

  it("come from the rules that the protos carry", () => {
    expect(errors(cluster("connect_timeout: 0s"))[0]).toMatch(
      /connect_timeout: "0s" must be more than 0s$/,
    );
    expect(errors("static_resources: {clusters: [{}]}")[0]).toMatch(
      /clusters\[0\]\.name: is required$/,
    );
    const noMatch = http(`          - ${ROUTER}`, "[{direct_response: {status: 200}}]");
    expect(errors(noMatch)[0]).toMatch(/routes\[0\]\.match: is required$/);
    const status = http(
      `          - ${ROUTER}`,
      "[{match: {prefix: /}, direct_response: {status: 99}}]",
    );
    expect(errors(status)[0]).toMatch(/status: 99 must be at least 200$/);
    const separated = http(
      `          - ${ROUTER}`,
      "[{match: {path_separated_prefix: /a/}, direct_response: {status: 200}}]",
    );
    expect(errors(separated)).toContainEqual(
      expect.stringMatching(/path_separated_prefix: "\/a\/" does not match/),
    );
    const port = `{socket_address: {address: 1.1.1.1, port_value: 70000}}`;
    expect(
      errors(
        cluster(`load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: ${port}}}]}]}`),
      ),
    ).toContainEqual(expect.stringMatching(/port_value: 70000 must be at most 65535$/));
  });
});

describe("proto JSON", () => {
  const accepted: readonly [string, string, object][] = [
    ["an enum name in any case", "type: Strict_Dns", { type: "STRICT_DNS" }],
    ["an enum number", "type: 1", { type: "STRICT_DNS" }],
    [
      "a quoted number",
      'per_connection_buffer_limit_bytes: "5"',
      { per_connection_buffer_limit_bytes: 5 },
    ],
    [
      "5.0 for an integer",
      "per_connection_buffer_limit_bytes: 5.0",
      { per_connection_buffer_limit_bytes: 5 },
    ],
    [
      "a duration as a map",
      "connect_timeout: {seconds: 1, nanos: 500000000}",
      { connect_timeout: 1500 },
    ],
    [
      "a wrapper as a map",
      'per_connection_buffer_limit_bytes: {value: "5"}',
      { per_connection_buffer_limit_bytes: 5 },
    ],
    [
      "a wrapper as an empty map, for zero",
      "per_connection_buffer_limit_bytes: {}",
      { per_connection_buffer_limit_bytes: 0 },
    ],
    ["lowerCamelCase", "connectTimeout: 0.5s", { connect_timeout: 500 }],
    ["null for an absent field", "circuit_breakers: null", { name: "a" }],
  ];
  for (const [what, field, value] of accepted)
    it(`takes ${what}`, () => {
      const clusters = config(cluster(field)).services[0]!.config as object[];
      expect(clusters[0]).toMatchObject(value);
    });

  it("takes a lone value for a list of one", () => {
    const clusters = config("static_resources: {clusters: {name: foo}}").services[0]!.config;
    expect(clusters).toMatchObject([{ name: "foo" }]);
  });

  it("refuses a negative unsigned number, a number for a duration and a boolean for a string", () => {
    expect(errors(cluster("per_connection_buffer_limit_bytes: -1"))[0]).toMatch(
      /: -1 must not be negative$/,
    );
    expect(errors(cluster("connect_timeout: 1"))[0]).toMatch(/: 1 is not a duration; write "1s"$/);
    expect(errors("node: {id: y}")[0]).toMatch(
      /node\.id: y is read as true, not a string; write "y"$/,
    );
  });

  it("warns of a key written twice, and takes the last", () => {
    const text = cluster("type: STATIC\n    type: STRICT_DNS");
    expect(warnings(text)).toEqual([
      'front.yaml:5:5: static_resources.clusters[0].type: "type" is written twice; this one counts',
    ]);
    expect(config(text).services[0]!.config).toMatchObject([{ type: "STRICT_DNS" }]);
  });

  it("knows anchors and no merge keys, and reads the first document alone", () => {
    const anchors =
      "static_resources:\n  clusters: [{name: a, load_assignment: &l {cluster_name: x}}, {name: b, load_assignment: *l}]\n---\nnonsense: 1\n";
    expect(config(anchors).services[0]!.config).toMatchObject([
      { load_assignment: { cluster_name: "x" } },
      { load_assignment: { cluster_name: "x" } },
    ]);
    expect(
      errors("static_resources:\n  clusters:\n  - &a {name: a}\n  - {<<: *a, name: b}\n")[0],
    ).toMatch(/clusters\[1\]\["<<"\]: unknown field "<<"/);
  });

  it("bounds what aliases may grow into", () => {
    const lines = ["a: &l0 [x, x, x, x, x, x, x, x, x, x]"];
    for (let i = 1; i < 9; i++)
      lines.push(
        `b${i}: &l${i} [${Array(10)
          .fill(`*l${i - 1}`)
          .join(", ")}]`,
      );
    expect(errors(lines.join("\n"))).toContainEqual(
      expect.stringMatching(/aliases make the file too large$/),
    );
  });
});

describe("what Envoy knows and no package implements", () => {
  it("is a warning with its path", () => {
    expect(warnings(cluster("alt_stat_name: b"))).toEqual([
      "front.yaml:4:5: static_resources.clusters[0].alt_stat_name: known to Envoy, not implemented here",
    ]);
  });

  it("is an error for those who want it strict", () => {
    expect(errors(cluster("alt_stat_name: b"), { strict: true })).toEqual([
      "front.yaml:4:5: static_resources.clusters[0].alt_stat_name: known to Envoy, not implemented here",
    ]);
  });

  it("is no matter where it says what holds anyway", () => {
    expect(warnings(cluster("ignore_health_on_host_removal: false"))).toEqual([]);
  });

  it("is an error where leaving it out would be unsafe", () => {
    const tls = `transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}}`;
    expect(errors(cluster(tls))).toEqual([
      "front.yaml:4:5: static_resources.clusters[0].transport_socket: known to Envoy, not implemented here, and not safe to ignore",
    ]);
  });

  it("is an error where it is the one chosen of several that must be", () => {
    const rds = http(`          - ${ROUTER}`).replace(
      /route_config: .*/,
      "rds: {route_config_name: r, config_source: {ads: {}}}",
    );
    expect(errors(rds)[0]).toMatch(/typed_config\.rds: known to Envoy, not implemented here, and/);
  });

  it("is an error where it is a value of a field that is implemented", () => {
    expect(errors(cluster("lb_policy: RING_HASH"))).toEqual([
      'front.yaml:4:16: static_resources.clusters[0].lb_policy: "RING_HASH" is known to Envoy, not implemented here; write ROUND_ROBIN or LEAST_REQUEST',
    ]);
  });
});

describe("clusters", () => {
  it("have what the bootstrap says for those that do not say it themselves", () => {
    const bind = (ip: string) =>
      `upstream_bind_config: {source_address: {address: ${ip}, port_value: 0}}`;
    const made = config(`
cluster_manager: {${bind("127.0.0.9")}}
static_resources:
  clusters:
  - {name: a}
  - {name: b, ${bind("127.0.0.7")}}
`);
    const [clusters] = made.services.filter(
      (service) => service.package === "service/cluster_manager",
    );
    expect(JSON.stringify(clusters?.config)).toMatch(/"a".*127\.0\.0\.9.*"b".*127\.0\.0\.7/);
  });
});

describe("runtime layers", () => {
  it("may not share a name, have one admin layer, and hold no lists", () => {
    expect(
      errors(
        "layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: a, admin_layer: {}}]}",
      )[0],
    ).toMatch(/layers\[1\]\.name: duplicate runtime layer name "a"$/);
    expect(
      errors(
        "layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: b, admin_layer: {}}]}",
      )[0],
    ).toMatch(/layers\[1\]\.admin_layer: a second admin layer; at most one may be specified$/);
    expect(
      errors("layered_runtime: {layers: [{name: a, static_layer: {foo: [{bar: baz}]}}]}")[0],
    ).toMatch(/static_layer\.foo: "foo" is no runtime value/);
    // A fraction is not looked into.
    expect(
      errors("layered_runtime: {layers: [{name: a, static_layer: {f: {numerator: null}}}]}"),
    ).toEqual([]);
    expect(errors("layered_runtime: {layers: [{name: a}]}")[0]).toMatch(
      /one of static_layer, disk_layer, admin_layer or rtds_layer is required$/,
    );
  });
});

describe("a link that runtime is read from, in a folder that does not exist", () => {
  const loaded = (root: string, serves: boolean) =>
    load(`layered_runtime: {layers: [{name: a, disk_layer: {symlink_root: ${root}}}]}`, { serves });
  const said = expect.stringMatching(
    /layers\[0\]\.disk_layer\.symlink_root: cannot watch "\/no\/such\/current": "\/no\/such" does not exist; make that folder first$/,
  );

  it("is refused with the line where the config is to serve, and a warning elsewhere", () => {
    const refused = loaded("/no/such/current", true);
    expect(refused.ok ? [] : refused.errors.map(formatDiagnostic)).toEqual([said]);
    const warned = loaded("/no/such/current", false);
    expect([warned.ok, warned.warnings.map(formatDiagnostic)]).toEqual([true, [said]]);
    expect(loaded("/no-such-link", true).ok).toBe(true);
  });
});

it.each([
  ["/tmp", "it is a folder"],
  // Nobody may write it; in containers its disk may be read-only.
  ["/proc/sys/kernel/random/uuid", "(this user may not write there|the disk is read-only)"],
])("refuses a log that cannot be written: %s", (path, why) => {
  const text = `cluster_manager: {outlier_detection: {event_log_path: ${path}}}`;
  const refused = load(text, { serves: true });
  expect(refused.ok ? [] : refused.errors.map(formatDiagnostic)).toEqual([
    expect.stringMatching(`cannot write to "${path}": ${why}; name another file`),
  ]);
});

it("refuses a log of ejections in a folder that does not exist, also where no cluster ejects", () => {
  const text = "cluster_manager: {outlier_detection: {event_log_path: /no/such/ev.log}}";
  const refused = load(text, { serves: true });
  expect(refused.ok ? [] : refused.errors.map(formatDiagnostic)).toEqual([
    expect.stringMatching(
      /event_log_path: cannot write to "\/no\/such\/ev\.log": .* does not exist/,
    ),
  ]);
});

describe("any text", () => {
  it("is taken or refused with a reason, never dropped", () => {
    const text = http(
      `          - {name: shield, config: {limit: 3, window: 1s}}\n          - ${ROUTER}`,
      "[{match: {prefix: /, headers: [{name: a, exact_match: b}]}, route: {cluster: a, timeout: 1s}}]",
    );
    const junk = ["", "~", "[]", "{}", "-1", "yes", "[~]", "{a: [1]}", "*x", "10MB", "{name: r}"];
    const starts = [...text.matchAll(/[[{:,] ?/g)].map((m) => m.index + m[0].length);
    for (const at of starts)
      for (const piece of junk) {
        const rest = text.slice(at).replace(/^[^\s,:}\]]*/, piece);
        const loaded = load(text.slice(0, at) + rest);
        expect(loaded.ok || loaded.errors.length > 0).toBe(true);
      }
  });
});

describe("a package's refusal", () => {
  const source = (text: string) => {
    const loaded = load(text);
    if (!loaded.ok) throw new Error(loaded.errors.map(formatDiagnostic).join("\n"));
    return loaded.source;
  };
  const refusal = (place: string, path: string) => ({
    package: "p",
    message: "is bad",
    place,
    path,
  });

  it("is told at the line in its config, though v2 wrote it elsewhere", () => {
    const text = `static_resources:
  clusters:
  - name: a
    hosts:
    - socket_address: {address: 127.0.0.1, port_value: 80}
    - socket_address: {address: here, port_value: 81}
`;
    const path =
      "[0].load_assignment.endpoints[0].lb_endpoints[1].endpoint.address.socket_address.address";
    expect(formatDiagnostic(source(text).diagnostic(refusal("/services/0/config", path)))).toBe(
      "front.yaml:6:33: static_resources.clusters[0].hosts[1].socket_address.address: is bad",
    );
  });

  it("is told at a filter within a filter, and at a key with dots in it", () => {
    const text = http(
      `          - {name: shield, config: {limit: 3}}\n          - ${ROUTER}`,
      `[{match: {prefix: /}, direct_response: {status: 200}, typed_per_filter_config: {my.shield: {"@type": ${TYPES}.http.buffer.v3.BufferPerRoute, disabled: true}}}]`,
    );
    const found = source(text);
    const filter = "/listeners/0/filterChains/0/filters/0/config";
    expect(
      formatDiagnostic(found.diagnostic(refusal(`${filter}/http_filters/0/config`, "limit"))),
    ).toBe(
      "front.yaml:13:44: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].config.limit: is bad",
    );
    expect(
      found.diagnostic(
        refusal(
          filter,
          "route_config.virtual_hosts[0].routes[0].typed_per_filter_config.my.shield.config.disabled",
        ),
      ).path,
    ).toMatch(/routes\[0\]\.typed_per_filter_config\["my\.shield"\]\.disabled$/);
  });

  it("is told at the filter's own line, though its owner has set it up", () => {
    const shield = "{name: shield, config: {limit: 3}}";
    const found = source(http(`          - ${shield}\n          - ${ROUTER}`)).diagnostic(
      refusal("/listeners/0/filterChains/0/filters/0/config/http:shield", "limit"),
    );
    expect(formatDiagnostic(found)).toMatch(
      /^front\.yaml:\d+:44: .*\.http_filters\[0\]\.config\.limit: is bad$/,
    );
  });

  it("is told at the filter's own line, though routes before it have configs for it", () => {
    const text = http(
      `          - {name: shield, config: {limit: 3}}\n          - ${ROUTER}`,
      "[{match: {prefix: /}, direct_response: {status: 200}, typed_per_filter_config: {shield: {disabled: true}}}]",
    );
    const found = source(text).diagnostic(
      refusal("/listeners/0/filterChains/0/filters/0/config/http:shield", "limit"),
    );
    expect(found.path).toMatch(/\.http_filters\[0\]\.config\.limit$/);
  });

  it("within what a service makes for one cluster is told at that cluster", () => {
    const text = `static_resources:
  clusters:
  - {name: a, type: STATIC}
  - name: b/1
    type: STATIC
    load_assignment: {cluster_name: b, endpoints: []}
`;
    const place = "/services/0/config/b~11";
    expect(
      formatDiagnostic(source(text).diagnostic(refusal(place, "load_assignment.endpoints"))),
    ).toBe("front.yaml:6:51: static_resources.clusters[1].load_assignment.endpoints: is bad");
  });

  it("about a default is told where the default would stand", () => {
    const found = source(http(`          - ${ROUTER}`)).diagnostic(
      refusal("/listeners/0/filterChains/0/filters/0/config", "codec_type"),
    );
    expect(formatDiagnostic(found)).toBe(
      "front.yaml:9:11: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.codec_type: is bad",
    );
  });
});

describe("a Struct", () => {
  const metadata = 'n: null, f: 1.5, big: 12345678901, i: 3, q: "x", l: [null, .5, {f: 2.0}]';
  const layer = (text: string, file: string) => {
    const loaded = load(text, { file });
    if (!loaded.ok) throw new Error(loaded.errors.map(formatDiagnostic).join("\n"));
    const dump = JSON.parse(JSON.stringify(loaded.bootstrap));
    return dump.node.metadata;
  };

  it("keeps null, and of YAML's numbers those that are integers of 32 bits", () => {
    expect(layer(`node: {id: a, metadata: {${metadata}}}`, "front.yaml")).toEqual({
      n: null,
      f: "1.5",
      big: "12345678901",
      i: 3,
      q: "x",
      l: [null, ".5", { f: "2.0" }],
    });
  });

  it("keeps JSON's numbers", () => {
    const text = '{"node": {"id": "a", "metadata": {"f": 1.5, "big": 12345678901, "n": null}}}';
    expect(layer(text, "front.json")).toEqual({ f: 1.5, big: 12345678901, n: null });
  });
});

it("hands the log of outliers to the clusters that look for them", () => {
  const text = `cluster_manager: {outlier_detection: {event_log_path: /ev.log}}
static_resources:
  clusters:
  - {name: a, outlier_detection: {}}
  - {name: b}
`;
  const loaded = load(text);
  if (!loaded.ok) throw new Error(loaded.errors.map(formatDiagnostic).join("\n"));
  expect(loaded.warnings.map(formatDiagnostic).join()).not.toContain("cluster_manager");
  expect(JSON.parse(JSON.stringify(loaded.bootstrap)).static_resources.clusters[0]).toEqual({
    name: "a",
    outlier_detection: {},
  });
});
