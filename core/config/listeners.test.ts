import { describe, expect, it } from "vitest";
import { formatDiagnostic, loadListener } from "./load.ts";
import { chain, config, errors, warnings } from "./test-load.ts";
import { TEST_PACKAGES } from "./test-packages.ts";

describe("listeners", () => {
  it("may not share an address, and are told apart when they share a name", () => {
    const two = (port: number) => `static_resources:
  listeners:
  - {name: a, address: {socket_address: {address: 127.0.0.1, port_value: 1234}}, filter_chains: [{}]}
  - {name: a, address: {socket_address: {address: 127.0.0.1, port_value: ${port}}}, filter_chains: [{}]}
`;
    expect(errors(two(1234))[0]).toMatch(
      /front\.yaml:4:\d+: .*address: 127\.0\.0\.1:1234 is the address of listener "a" already$/,
    );
    expect(config(two(1235)).listeners.map((l) => l.name)).toEqual(["a", "a#2"]);
  });

  it("are told of metadata that nothing reads", () => {
    const typed = "metadata: {filter_metadata: {a: {b: 1}}, typed_filter_metadata: {}}";
    expect(warnings(chain(`[{${typed}}]`))).toEqual([
      expect.stringMatching(
        /filter_chains\[0\]\.metadata\.typed_filter_metadata: known to Envoy, not/,
      ),
    ]);
  });

  it("need an address and a filter chain", () => {
    expect(errors("static_resources: {listeners: [{name: a, filter_chains: [{}]}]}")[0]).toMatch(
      /listener "a" has no address$/,
    );
    expect(
      errors(
        "static_resources: {listeners: [{name: a, address: {socket_address: {address: 127.0.0.1, port_value: 0}}}]}",
      )[0],
    ).toMatch(/listener "a" has no filter_chains$/);
  });

  it("may not have two chains for the same connections", () => {
    expect(errors(chain("[{name: x}, {}]"))[0]).toMatch(
      /filter_chains\[1\]: this filter chain has the same matching rules as "x"$/,
    );
    const overlap =
      "[{filter_chain_match: {server_names: [a.b, c.d]}}, {filter_chain_match: {server_names: [c.d, e.f]}}]";
    expect(errors(chain(overlap))[0]).toMatch(
      /filter_chain_match: this filter chain's matching rules overlap with those of filter_chains\[0\]$/,
    );
    const apart =
      "[{filter_chain_match: {destination_port: 1}}, {filter_chain_match: {destination_port: 2}}]";
    expect(config(chain(apart)).listeners[0]!.filterChains).toHaveLength(2);
  });

  const ports = Array.from({ length: 60_000 }, (_, k) => k + 1);
  it.each([
    ["names in capitals", "server_names: [a.b]", "server_names: [A.B]"],
    ["wildcards", 'server_names: ["*.a.b"]', "server_names: [.a.b]"],
    [
      "networks by one of their addresses",
      "prefix_ranges: [{address_prefix: 10.1.2.99, prefix_len: 24}]",
      "prefix_ranges: [{address_prefix: 10.1.2.0, prefix_len: 24}]",
    ],
    [
      "forms of IPv6",
      'source_prefix_ranges: [{address_prefix: "2001:db8::1", prefix_len: 32}]',
      'source_prefix_ranges: [{address_prefix: "2001:0db8:0::", prefix_len: 32}]',
    ],
    ["one of very many", `source_ports: [${ports}]`, "source_ports: [5]"],
  ])("may not overlap, however it is written: %s", (_, one, other) => {
    const chains = `[{filter_chain_match: {${one}}}, {filter_chain_match: {${other}}}]`;
    expect(errors(chain(chains))).toEqual([
      expect.stringMatching(
        /\[1\]\.filter_chain_match: this filter chain's matching rules overlap/,
      ),
    ]);
  });

  it("may not name one value twice in a match", () => {
    const twice = "[{filter_chain_match: {server_names: [a.b, A.b], source_ports: [1, 2, 1]}}]";
    expect(errors(chain(twice))).toEqual([
      expect.stringMatching(/filter_chain_match\.server_names: "a\.b" stands here twice; take one/),
      expect.stringMatching(/filter_chain_match\.source_ports: 1 stands here twice; take one/),
    ]);
  });

  it("take every criterion of filter_chain_match", () => {
    const match =
      '{destination_port: 1, prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], server_names: ["*.a.b"], transport_protocol: tls, application_protocols: [h2], direct_source_prefix_ranges: [{address_prefix: "::", prefix_len: 0}], source_type: external, source_prefix_ranges: [{address_prefix: 1.1.1.1, prefix_len: 32}], source_ports: [5]}';
    expect(
      config(chain(`[{filter_chain_match: ${match}}]`)).listeners[0]!.filterChains[0]!.match,
    ).toEqual({
      destination_port: 1,
      prefix_ranges: [{ address_prefix: "10.0.0.0", prefix_len: 8 }],
      server_names: ["*.a.b"],
      transport_protocol: "tls",
      application_protocols: ["h2"],
      direct_source_prefix_ranges: [{ address_prefix: "::", prefix_len: 0 }],
      source_type: "EXTERNAL",
      source_prefix_ranges: [{ address_prefix: "1.1.1.1", prefix_len: 32 }],
      source_ports: [5],
    });
    config(
      chain(
        '[{filter_chain_match: {server_names: ["*.*.b", "*.b.*"], prefix_ranges: [{address_prefix: 1.1.1.1, prefix_len: 33}]}}]',
      ),
    );
    expect(
      errors(
        chain(
          "[{filter_chain_match: {prefix_ranges: [{address_prefix: 1.1.1.1, prefix_len: 33}, {address_prefix: 1.1.1.1, prefix_len: 32}]}}]",
        ),
      )[0],
    ).toMatch(/"1\.1\.1\.1\/32" stands here twice/);
    expect(errors(chain('[{filter_chain_match: {server_names: ["*"]}}]'))[0]).toMatch(
      /"\*" is not a server name/,
    );
    expect(errors(chain('[{filter_chain_match: {server_names: ["a*.b"]}}]'))[0]).toMatch(
      /partial wildcard "a\*\.b"/,
    );
  });

  it("are made of what a service brings along, too", () => {
    const made = loadListener(
      {
        name: "admin",
        address: { socket_address: { address: "127.0.0.1", port_value: 0 } },
        filter_chains: [
          {
            filters: [
              {
                name: "network/http_connection_manager",
                config: {
                  stat_prefix: "admin",
                  route_config: { virtual_hosts: [] },
                  http_filters: [{ name: "r", package: "http/router", config: { kept: true } }],
                },
              },
            ],
          },
        ],
      },
      TEST_PACKAGES,
      "service/admin",
    );
    expect(made.ok && made.listener).toMatchObject({
      name: "admin",
      filterChains: [
        {
          filters: [
            {
              package: "network/http_connection_manager",
              config: {
                codec_type: "AUTO",
                http_filters: [{ name: "r", package: "http/router", config: { kept: true } }],
              },
            },
          ],
        },
      ],
    });
    const bad = loadListener(
      { name: "admin", filter_chains: [{ filters: [{ name: "nope" }] }] },
      TEST_PACKAGES,
      "service/admin",
    );
    expect(!bad.ok && bad.errors.map(formatDiagnostic)).toEqual([
      'service/admin:1:1: filter_chains[0].filters[0].name: no network filter "nope"; put yours into filters/ beside the config, or name its folder with --filters',
    ]);
  });
});

describe("internal listeners", () => {
  const TYPE =
    "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener";
  const listener = (name: string, more: string) => `
static_resources:
  listeners:
  - {${name}internal_listener: {}, ${more}filter_chains: [{}]}
`;
  const extension = `bootstrap_extensions: [{name: any, typed_config: {"@type": ${TYPE}, buffer_size_kb: 64}}]`;

  it("have a name in the place of an address, and the extension's buffer", () => {
    expect(config(listener("name: inner, ", "") + extension).listeners[0]).toMatchObject({
      name: "inner",
      statPrefix: "envoy_internal_inner",
      address: { path: "envoy://inner/" },
      bindToPort: false,
      internalBufferBytes: 65_536,
    });
  });

  it("want the extension, a name, and nothing that is a socket's", () => {
    expect(errors(listener("name: inner, ", ""))[0]).toContain("want a bootstrap extension");
    expect(errors(listener("", "") + extension)[0]).toContain("needs a name");
    expect(errors(listener("name: inner, ", "tcp_backlog_size: 1, ") + extension)[0]).toContain(
      "has no socket: tcp_backlog_size",
    );
    const both = "address: {socket_address: {address: 127.0.0.1, port_value: 1}}, ";
    expect(errors(listener("name: inner, ", both) + extension)[0]).toContain("has an address");
    const address = "address: {envoy_internal_address: {server_listener_name: a}}";
    expect(
      errors(`static_resources: {listeners: [{name: b, ${address}, filter_chains: [{}]}]}`)[0],
    ).toContain("write internal_listener: {}");
  });
});
