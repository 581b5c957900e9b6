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
/** Configs of packages that take no empty one. */
const CONFIGS: Readonly<Record<string, object>> = {
  "access_log/file": { path: "/log" },
  "http/buffer": { max_request_bytes: 1024 },
  "http/csrf": { filter_enabled: ALWAYS },
  "http/health_check": { pass_through_mode: false },
  "http/local_ratelimit": { stat_prefix: "test", token_bucket: BUCKET },
  "http/script": {
    onRequest: source('req.headers.set("x-a", "1")'),
    onResponse: source(
      'await stream.sleep(5); const text = await res.text(); if (text !== "") res.body = text.toUpperCase();',
    ),
  },
  "network/script": { onData: source("conn.send(data.bytes())") },
  "network/connection_limit": { stat_prefix: "test", max_connections: 1 },
  "network/local_ratelimit": { stat_prefix: "test", token_bucket: BUCKET },
  "network/rbac": { stat_prefix: "test" },
};
/** They need clusters, codecs, other policies or a Lua VM set up around them; their own tests do that. */
const WITH_OTHERS = [
  "balancer/override_host",
  "balancer/subset",
  "balancer/wrr_locality",
  "http/dynamic_forward_proxy",
  "http/match_delegate",
  "network/http_connection_manager",
  "network/lua",
  "network/tcp_proxy",
];
const KINDS = ["http", "network", "listener", "access_log", "balancer"];
/** What no sandbox has, and what needs it. */
const NOT_APART: Readonly<Record<string, string>> = {
  "balancer/client_side_weighted_round_robin": "hears of the load that responses report",
  "access_log/stderr": "writes to a file that no config names",
  "access_log/stdout": "writes to a file that no config names",
  "http/grpc_stats": "asks for the route's cluster itself",
  "http/health_check": "hears of drains and clusters by topics",
  "http/recorder": "tells core of what went by",
};

for (const { id, entry } of discoverShipped()) {
  if (!KINDS.includes(id.split("/")[0]!) || WITH_OTHERS.includes(id)) continue;
  const { default: definition } = await import(entry);
  const checks = conformance(definition, CONFIGS[id]);
  if (checks.length === 0) continue;
  describe(id, () => {
    test("takes the config", () => expect(refusal(definition, CONFIGS[id])).toBeUndefined());
    for (const { name, run } of checks) test(name, run);
  });
  if (NOT_APART[id] !== undefined) continue;
  describe(`${id}, in a sandbox`, () => {
    const place = sandboxPlace(definition, entry);
    afterAll(() => place.dispose());
    for (const { name, run } of conformance(definition, CONFIGS[id], place)) test(name, run);
  });
}
