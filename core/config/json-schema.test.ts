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

const isConfig = (text: string) => /^static_resources:/m.test(text);
/** Clusters of v2 have hosts; the schema describes v3. */
const isV2 = (text: string) => /^ +hosts:/m.test(text);
const examples = fs
  .globSync("examples/*/*.yaml", { cwd: root })
  .map((file) => [file, fs.readFileSync(root + file, "utf8")] as const)
  .filter(([, text]) => isConfig(text) && !isV2(text));

test("there are examples", () => expect(examples.length).toBeGreaterThan(10));

test.each(examples)("%s is what the schema describes", (_, text) => {
  expect(errors(parse(text))).toEqual([]);
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

test("the mode of a socket file may be octal, which editors read as decimal", () => {
  const text = "static_resources: {listeners: [{address: {pipe: {path: /a, mode: 0777}}}]}";
  expect(errors(parse(text))).toEqual([]);
});

/** Paths of fields that no map there may have. */
const unknown = (config: unknown) =>
  validate(config)
    ? []
    : (validate.errors ?? [])
        .filter((e) => e.keyword === "additionalProperties")
        .map((e) => `${e.instancePath}/${e.params.additionalProperty}`);

test("a misspelt field is an error: in clusters, and in configs of filters by name and by type", () => {
  const cluster = { name: "a", connectTimeout: "1s", conect_timeout: "1s" };
  expect(unknown({ static_resources: { clusters: [cluster] } })).toEqual([
    "/static_resources/clusters/0/conect_timeout",
  ]);
  const at = "/static_resources/listeners/0/filter_chains/0/filters/0";
  const tcp = { stat_prefix: "a", cluster: "b", clutser: "b" };
  expect(unknown(listener({ name: "network/tcp_proxy", config: tcp }))).toEqual([
    `${at}/config/clutser`,
  ]);
  const type = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
  expect(unknown(listener({ name: "t", typed_config: { "@type": type, ...tcp } }))).toEqual([
    `${at}/typed_config/clutser`,
  ]);
});

test("a field that Envoy alone implements is a warning, and so is no error", () => {
  expect(unknown({ static_resources: {}, fatal_actions: [] })).toEqual([]);
  const fields = schema.$defs as Record<string, { properties: Record<string, object> }>;
  const { properties } = fields["fields of envoy.config.bootstrap.v3.Bootstrap"]!;
  expect(properties.fatal_actions).toMatchObject({
    deprecationMessage: "known to Envoy, not implemented in tsproxy",
  });
  expect(properties.static_resources).not.toHaveProperty("deprecationMessage");
});

const corpus = new URL("../../../shared/corpus/envoy", import.meta.url).pathname;

test.skipIf(!fs.existsSync(corpus))("Envoy's own configs have no unknown fields", () => {
  const texts = fs
    .globSync("{v1.37-dev,examples-2026}/**/*.yaml", { cwd: corpus })
    .filter((file) => !/unknown|invalid|deprecated|bad_/.test(file))
    .map((file) => [file, fs.readFileSync(`${corpus}/${file}`, "utf8")] as const)
    .filter(([, text]) => isConfig(text) && !isV2(text) && !/\{[{%]/.test(text));
  expect(texts.length).toBeGreaterThan(20);
  for (const [file, text] of texts) expect(unknown(parse(text)), file).toEqual([]);
});
