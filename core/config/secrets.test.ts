import { type Definition, Type } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import { describe as describePackage } from "./describe-sources.ts";
import { formatDiagnostic, loadConfig } from "./load.ts";
import { TEST_PACKAGES } from "./test-packages.ts";

const MESSAGE = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const TYPE = `type.googleapis.com/${MESSAGE}`;
const tls = {
  kind: "transport",
  name: "envoy.transport_sockets.tls",
  types: [MESSAGE],
  config: Type.Object({ common_tls_context: Type.Unknown() }),
  setup: () => ({}),
} as unknown as Definition;
const packages = [...TEST_PACKAGES, describePackage(tls, "transport/tls")];
const load = (context: string, secrets: string) =>
  loadConfig(
    {
      file: "front.yaml",
      text: `static_resources:
  secrets: ${secrets}
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains:
    - transport_socket: {name: tls, typed_config: {"@type": ${TYPE}, common_tls_context: ${context}}}
`,
    },
    packages,
    { strict: false },
  );
const errors = (context: string, secrets = "[]") => {
  const loaded = load(context, secrets);
  return loaded.ok ? [] : loaded.errors.map(formatDiagnostic);
};

it("names a secret that is not there, and the one that was meant", () => {
  const [reference] = errors(
    "{tls_certificate_sds_secret_configs: [{name: sit}]}",
    "[{name: site, tls_certificate: {private_key: {filename: k}}}]",
  );
  expect(reference).toMatch(/no secret "sit" with tls_certificate .*; did you mean "site"\?$/);
  expect(errors("{validation_context_sds_secret_config: {name: x}}")[0]).toMatch(
    /no secret "x" with validation_context .*; add it there, or say with sds_config/,
  );
  expect(errors("{}", "[{name: a}, {name: a}]")[0]).toMatch(/there is another secret "a"$/);
});

it("stands in its place for those who serve, and by its name for whoever dumps the config", () => {
  const loaded = load(
    "{tls_certificate_sds_secret_configs: [{name: site}]}",
    "[{name: site, tls_certificate: {certificate_chain: {filename: c}, private_key: {inline_bytes: c2VjcmV0}}}]",
  );
  if (!loaded.ok) throw new Error(loaded.errors.map(formatDiagnostic).join("\n"));
  const text = JSON.stringify(loaded.bootstrap);
  expect(text).toContain('"tls_certificate_sds_secret_configs":[{"name":"site"}]');
  expect(text).toContain('"secrets":[{"name":"site"');
  expect(text).not.toContain('"tls_certificates"');
  expect(JSON.stringify(loaded.config)).toContain("c2VjcmV0");
});
