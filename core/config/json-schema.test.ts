import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { Ajv } from "ajv";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { describeFromSources } from "./describe-sources.ts";
import { jsonSchema } from "./json-schema.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const schema = jsonSchema(await describeFromSources(`${root}filters`));
const validate = new Ajv({ strict: false, allErrors: true }).compile(schema);
const errors = (config: unknown) =>
  validate(config) ? [] : (validate.errors ?? []).map((e) => e.instancePath);

test.each([
  "examples/front-proxy/front-envoy.yaml",
  "examples/echo-balancer/envoy.yaml",
  "examples/tcp/envoy.yaml",
  "examples/first-filter/envoy.yaml",
])("%s is what the schema describes", (file) => {
  expect(errors(parse(fs.readFileSync(root + file, "utf8")))).toEqual([]);
});

const listener = (filter: unknown) => ({
  static_resources: {
    listeners: [
      {
        address: { socket_address: { address: "::1", port_value: 1 } },
        filter_chains: [{ filters: [filter] }],
      },
    ],
  },
});

test("durations are text, and what has a default may be left out", () => {
  const cluster = { name: "a", connect_timeout: "0.5s" };
  expect(errors({ static_resources: { clusters: [cluster] } })).toEqual([]);
  expect(
    errors({ static_resources: { clusters: [{ ...cluster, connect_timeout: 5 }] } }),
  ).toContain("/static_resources/clusters/0/connect_timeout");
});

test("the config of a filter is that of its package, by name or by type", () => {
  const tcp = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
  const good = { stat_prefix: "a", cluster: "b" };
  const bad = { ...good, max_connect_attempts: "many" };
  expect(errors(listener({ name: "network/tcp_proxy", config: good }))).toEqual([]);
  expect(errors(listener({ name: "network/tcp_proxy", config: bad }))).not.toEqual([]);
  const typed = (config: object) => ({ name: "t", typed_config: { "@type": tcp, ...config } });
  expect(errors(listener(typed(good)))).toEqual([]);
  expect(errors(listener(typed(bad)))).not.toEqual([]);
});
