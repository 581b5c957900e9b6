import { expect, test } from "vitest";
import { upgrade } from "./upgrade.ts";

const V2 = `# The edge.
static_resources:
  clusters:
    # One of ours.
    - name: "on"   # quoted, for Envoy reads it as true
      connect_timeout: 0.250s
      type: strict_dns   # by name
      dns_lookup_family: 1
      hosts:   # where it is
        - socket_address: { address: localhost, port_value: 80 }   # the only one

    - name: other
      connect_timeout: 1s
      tls_context: { sni: a.test }
      hosts: [{ pipe: { path: /run/other.sock } }]
# The end.
`;

test("writes v2 in v3's words, and keeps comments, quotes and numbers as they were", () => {
  const { text, from, errors } = upgrade({ file: "a.yaml", text: V2 });
  expect({ from, errors }).toEqual({ from: "v2", errors: [] });
  expect(text).toBe(`# The edge.
static_resources:
  clusters:
    # One of ours.
    - name: "on" # quoted, for Envoy reads it as true
      connect_timeout: 0.250s
      type: STRICT_DNS # by name
      dns_lookup_family: V4_ONLY
      # where it is
      load_assignment:
        cluster_name: "on"
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: { address: localhost, port_value: 80 } # the only one

    - name: other
      connect_timeout: 1s
      load_assignment:
        cluster_name: other
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address: { pipe: { path: /run/other.sock } }
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: a.test

# The end.
`);
});

test("leaves the short form of extensions as it is", () => {
  const filter = (name: string) => `static_resources:
  listeners:
    - name: main
      filter_chains:
        - filters:
            - { config: { stat_prefix: main }, name: ${name} }
`;
  for (const name of ["network/tcp_proxy", "hello"])
    expect(upgrade({ file: "a.yaml", text: filter(name) })).toEqual({
      text: filter(name),
      from: "v3",
      errors: [],
    });
});

test("what it has written needs no further upgrade", () => {
  const { text } = upgrade({ file: "a.yaml", text: V2 });
  expect(upgrade({ file: "b.yaml", text: text! })).toEqual({ text, from: "v3", errors: [] });
});

test("leaves a file that needs no change byte for byte, however it is laid out", () => {
  const yaml = `# v3

admin:
    address: {socket_address: {address: 127.0.0.1,   port_value: 0x10}}   # aligned by hand
static_resources:
  clusters:
  - name: a
    connect_timeout: 1s
    load_assignment: ~


# The end.`;
  for (const [file, text] of [
    ["a.yaml", yaml],
    ["a.json", '{"node": {"id":"n"}, "static_resources": {}}'],
  ] as const)
    expect(upgrade({ file, text })).toEqual({ text, from: "v3", errors: [] });
});

test("gives configs of routes their types", () => {
  const { text } = upgrade({
    file: "a.json",
    text: JSON.stringify({
      static_resources: {
        listeners: [
          {
            address: { pipe: { path: "/a" } },
            filter_chains: [
              {
                filters: [
                  {
                    name: "envoy.http_connection_manager",
                    config: {
                      stat_prefix: "a",
                      route_config: {
                        virtual_hosts: [
                          {
                            name: "v",
                            domains: ["*"],
                            per_filter_config: { "envoy.buffer": { disabled: true } },
                          },
                        ],
                      },
                    },
                  },
                ],
              },
            ],
          },
        ],
      },
    }),
  });
  const [virtualHost] = JSON.parse(text!).static_resources.listeners[0].filter_chains[0].filters[0]
    .typed_config.route_config.virtual_hosts;
  expect(virtualHost.typed_per_filter_config).toEqual({
    "envoy.buffer": {
      "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
      disabled: true,
    },
  });
});

test("tells what has no place in v3, at its line", () => {
  const { text, errors } = upgrade({
    file: "a.yaml",
    text: "static_resources: {}\nflags_pat: a\n",
  });
  expect(text).toContain("static_resources");
  expect(errors).toMatchObject([{ line: 2, message: 'unknown field "flags_pat"' }]);
});

test("a value that is wrong stays as it was, and one that is missing is not made up", () => {
  const v2 = `node: { id: n } # the node
static_resources:
  listeners:
    - address: { pipe: { path: "@a" } }
      filter_chains:
        - filters:
            - name: envoy.tcp_proxy
              deprecated_v1: true
              config: { value: { stat_prefix: t } } # as of v1
  clusters:
    - name: a
      connect_timeout: [1s]
      hosts: [{ pipe: { path: /a } }]
      upstream_bind_config: {}
      http_protocol_options: 7
      health_checks: [~]
`;
  const { text, errors } = upgrade({ file: "a.yaml", text: v2 });
  expect(errors).toHaveLength(5);
  expect(text).toContain(`node: { id: n } # the node`);
  expect(text).toContain(`config: { value: { stat_prefix: t } } # as of v1`);
  expect(text).toContain(`connect_timeout: [ 1s ]`);
  expect(text).toContain(`http_protocol_options: 7`);
  expect(text).not.toContain(`""`);
  const json = upgrade({ file: "a.json", text: '{"node":{"id":7},"admin":{"address":[]}}' });
  expect(JSON.parse(json.text!)).toEqual({ node: { id: 7 }, admin: { address: [] } });
});
