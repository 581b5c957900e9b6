import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import v8 from "node:v8";
import vm from "node:vm";
import { defineHttpFilter, Type } from "@tsproxy/sdk";
import { conformance, refusal, sandboxPlace } from "@tsproxy/sdk/testing";
import { afterAll, describe, expect, test } from "vitest";
import { discoverShipped } from "./packages.ts";
import "../sandbox/place.ts";

// What holds for every package of a kind holds for those that come with the proxy.

// As under `tsproxy filter test`: what a filter keeps of a body can be measured.
v8.setFlagsFromString("--expose-gc");
globalThis.gc = vm.runInNewContext("gc") as typeof globalThis.gc;

test("a filter that keeps all that goes by is caught", async () => {
  const kept: Uint8Array[] = [];
  const hoarder = defineHttpFilter({
    name: "hoarder",
    config: Type.Object({}),
    setup: () => () => ({ onResponseBody: (chunk) => void kept.push(chunk.copy()) }),
  });
  const check = conformance(hoarder).find(({ name }) => name === "bounds what it keeps of a body")!;
  await expect(check.run()).rejects.toThrow(/24 MiB of a response went by, and 2\d MiB/);
});

const BUCKET = { max_tokens: 1000, tokens_per_fill: 1, fill_interval: 1000 };
const ALWAYS = { default_value: { numerator: 100, denominator: "HUNDRED" } };
/** A script as core hands it over: with its place in the config. */
const source = (code: string) => ({ code, file: "front.yaml", line: 1, indent: 0 });
const ROUND_ROBIN = { typed_extension_config: { name: "balancer/round_robin", config: {} } };
const lua = (inline_string: string) => ({ inline_string });
const setHeader = (key: string) => ({ append: { header: { key, value: "1" } } });
const anybody = {
  policies: { all: { permissions: [{ any: true }], principals: [{ any: true }] } },
};
/** Configs with which packages act on every stream; without an entry: the empty one. */
const CONFIGS: Readonly<Record<string, object>> = {
  "access_log/file": { path: "/log" },
  "balancer/least_request": { choice_count: 3, slow_start_config: { slow_start_window: 10_000 } },
  "balancer/maglev": {
    table_size: 101,
    consistent_hashing_lb_config: { hash_balance_factor: 150 },
  },
  "balancer/override_host": {
    fallback_policy: { policies: [ROUND_ROBIN] },
    override_host_sources: [{ header: "x-host" }],
  },
  "balancer/ring_hash": { minimum_ring_size: 64, hash_balance_factor: 150 },
  "balancer/subset": { subset_lb_policy: { policies: [ROUND_ROBIN] }, subset_selectors: [] },
  "balancer/wrr_locality": { endpoint_picking_policy: { policies: [ROUND_ROBIN] } },
  "http/buffer": { max_request_bytes: 1024 },
  "http/csrf": { filter_enabled: ALWAYS },
  "http/fault": {
    delay: { fixed_delay: 50, percentage: { numerator: 100, denominator: "HUNDRED" } },
    response_rate_limit: {
      fixed_limit: { limit_kbps: 1024 },
      percentage: { numerator: 100, denominator: "HUNDRED" },
    },
  },
  "http/grpc_stats": { stats_for_all_methods: true, emit_filter_state: true },
  "http/header_mutation": {
    mutations: {
      request_mutations: [setHeader("x-request"), { remove: "x-odd" }],
      response_mutations: [setHeader("x-response"), { remove: "x-odd" }],
      request_trailers_mutations: [setHeader("x-trailer")],
      response_trailers_mutations: [{ remove: "x-checksum" }],
      query_parameter_mutations: [{ append: { record: { key: "a", value: "ü" } } }],
    },
  },
  "http/health_check": { pass_through_mode: false },
  "http/local_ratelimit": {
    stat_prefix: "test",
    token_bucket: BUCKET,
    filter_enabled: ALWAYS,
    filter_enforced: ALWAYS,
    enable_x_ratelimit_headers: "DRAFT_VERSION_03",
  },
  "http/lua": {
    default_source_code: lua(`
      function envoy_on_request(handle)
        for chunk in handle:bodyChunks() do handle:headers():add("x-lua", tostring(chunk:length())) end
      end
      function envoy_on_response(handle)
        handle:headers():replace("x-lua", handle:headers():get(":status") or "")
      end`),
  },
  "http/match_delegate": {
    extension_config: { name: "http/buffer", config: { max_request_bytes: 1 } },
  },
  "http/rbac": { rules: { action: "ALLOW", ...anybody }, track_per_rule_stats: true },
  "http/script": {
    onRequest: source('req.headers.set("x-a", "1")'),
    onResponse: source(
      'await stream.sleep(5); const text = await res.text(); if (text !== "") res.body = text.toUpperCase();',
    ),
  },
  "http/set_metadata": { metadata: [{ metadata_namespace: "ns", value: { a: 1 } }] },
  "http/stateful_session": {
    session_state: {
      name: "cookie",
      typed_config: {
        "@type":
          "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
        cookie: { name: "session", path: "/", ttl: 60_000 },
      },
    },
  },
  "network/connection_limit": { stat_prefix: "test", max_connections: 1 },
  "network/direct_response": { response: lua("hello") },
  "network/local_ratelimit": { stat_prefix: "test", token_bucket: BUCKET },
  "network/lua": {
    source_code: lua("function onData(data, connection) connection:write(data) end"),
  },
  "network/rbac": { stat_prefix: "test", rules: { action: "ALLOW", ...anybody } },
  "network/script": { onData: source("conn.send(data.bytes())") },
};
const KINDS = ["http", "network", "listener", "access_log", "balancer"];
/** Packages that cannot live in a sandbox, with what their code needs and no sandbox has. */
const NOT_APART: Readonly<Record<string, RegExp>> = {
  "access_log/stderr": /cx\.file\("\/dev\/stderr"/,
  "access_log/stdout": /cx\.file\("\/dev\/stdout"/,
  "balancer/client_side_weighted_round_robin": /\.onLoadReport = /,
  "balancer/override_host": /cx\.extension\(/,
  "balancer/subset": /cx\.extension\(/,
  "balancer/wrr_locality": /cx\.extension\(/,
  "http/admin": /terminal: true/,
  "http/dynamic_forward_proxy": /\.clusters\.get\(/,
  "http/grpc_stats": /\.clusters\.get\(/,
  "http/health_check": /\.subscribe\(/,
  "http/match_delegate": /cx\.extension\(/,
  "http/recorder": /\.operation\(/,
  "http/router": /terminal: true/,
  "http/upstream_codec": /terminal: true/,
  "network/http_connection_manager": /cx\.extension\(/,
  "network/tcp_proxy": /\.clusters\.get\(/,
};
/** They need clusters, codecs, or other policies set up around them, as their own tests do. */
const WITH_OTHERS = [
  "balancer/override_host",
  "balancer/subset",
  "balancer/wrr_locality",
  "http/dynamic_forward_proxy",
  "http/match_delegate",
  "network/http_connection_manager",
  "network/tcp_proxy",
];

const shipped = discoverShipped().filter(({ id }) => KINDS.includes(id.split("/")[0]!));

test("every package is known here by a name that is there", () => {
  const ids = shipped.map(({ id }) => id);
  const known = [...Object.keys(CONFIGS), ...Object.keys(NOT_APART), ...WITH_OTHERS];
  expect(known.filter((id) => !ids.includes(id))).toEqual([]);
  expect(WITH_OTHERS.filter((id) => NOT_APART[id] === undefined)).toEqual([]);
});

for (const { id, entry } of shipped) {
  const { default: definition } = await import(entry);
  const need = NOT_APART[id];
  if (!WITH_OTHERS.includes(id))
    describe(id, () => {
      test("takes the config", () => expect(refusal(definition, CONFIGS[id])).toBeUndefined());
      for (const { name, run } of conformance(definition, CONFIGS[id])) test(name, run);
    });
  if (need !== undefined) {
    test(`${id} needs what no sandbox has`, () => {
      const files = readdirSync(path.dirname(entry)).filter((file) =>
        /(?<!\.test)\.ts$/.test(file),
      );
      const code = files.map((file) => readFileSync(path.join(path.dirname(entry), file), "utf8"));
      expect(code.join("\n")).toMatch(need);
    });
    continue;
  }
  describe(`${id}, in a sandbox`, () => {
    const place = sandboxPlace(definition, entry);
    afterAll(() => place.dispose());
    test("is set up", async () => void (await place.use(CONFIGS[id])));
    for (const { name, run } of conformance(definition, CONFIGS[id], place)) test(name, run);
  });
}
