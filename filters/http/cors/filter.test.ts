import type { Route } from "@tsproxy/sdk";
import { TestContext, TestStream, withDefaults } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { Policy } from "./config.ts";
import cors from "./filter.ts";

const ROUTE = { action: { type: "route" } } as Route;
const ok = { allow_origin_string_match: [{ exact: "https://ok.test" }] };

function harness(...levels: object[]) {
  const cx = new TestContext();
  cx.statPrefix = "http.x.";
  const factory = cx.setup(cors, {});
  const routeConfigs = levels.map((level) => withDefaults(Policy, level));
  const request = (method: string, headers: Record<string, string>) =>
    new TestStream(cx, factory, { routeConfigs, route: ROUTE }).requestHeaders(
      method,
      "/",
      headers,
    );
  const preflight = (origin: string, more: Record<string, string> = {}) =>
    request("OPTIONS", { origin, "access-control-request-method": "PUT", ...more });
  return { cx, request, preflight };
}

const answer = (s: TestStream) => Object.fromEntries([...(s.response ?? [])]);

describe("a preflight", () => {
  it("is answered with what the policy allows", () => {
    const s = harness({
      ...ok,
      allow_methods: "GET, PUT",
      allow_headers: "x-a",
      expose_headers: "x-b",
      max_age: "600",
      allow_credentials: true,
    }).preflight("https://ok.test");
    expect(s.reply).toMatchObject({ status: 200, details: "cors_response", body: "" });
    expect(answer(s)).toEqual({
      "access-control-allow-origin": "https://ok.test",
      "access-control-allow-credentials": "true",
      "access-control-allow-methods": "GET, PUT",
      "access-control-allow-headers": "x-a",
      "access-control-max-age": "600",
      "access-control-expose-headers": "x-b",
    });
  });

  it("carries texts beyond Latin-1 as UTF-8", () => {
    const s = harness({ ...ok, allow_methods: "ж" }).preflight("https://ok.test");
    expect(answer(s)["access-control-allow-methods"]).toBe(Buffer.from("ж").toString("latin1"));
  });

  it("gets what it asks for where the policy says *", () => {
    const s = harness({ ...ok, allow_methods: "*", allow_headers: "*" }).preflight(
      "https://ok.test",
      { "access-control-request-headers": "x-1, x-2" },
    );
    expect(answer(s)).toMatchObject({
      "access-control-allow-methods": "PUT",
      "access-control-allow-headers": "x-1, x-2",
    });
  });

  it("of another origin goes upstream, or is answered without leave", () => {
    const forwarded = harness(ok).preflight("https://bad.test");
    expect(forwarded.reply).toBeUndefined();
    expect(forwarded.upstream.head).toBeDefined();
    const kept = harness({ ...ok, forward_not_matching_preflights: false });
    const refused = kept.preflight("https://bad.test");
    expect(refused.reply?.status).toBe(200);
    expect(answer(refused)).toEqual({});
    expect(kept.cx.stats.value("http.x.cors.origin_invalid")).toBe(1);
  });

  it("learns of private networks only when it asks", () => {
    const { preflight } = harness({ ...ok, allow_private_network_access: true });
    const asks = { "access-control-request-private-network": "true" };
    const allowed = { "access-control-allow-private-network": "true" };
    expect(answer(preflight("https://ok.test", asks))).toMatchObject(allowed);
    expect(answer(preflight("https://ok.test"))).not.toMatchObject(allowed);
  });
});

describe("other requests", () => {
  it("have their answers marked, over what the upstream said", () => {
    const { cx, request } = harness({ ...ok, allow_credentials: true, expose_headers: "x-b" });
    const s = request("GET", { origin: "https://ok.test" });
    s.responseHeaders(200, { "access-control-allow-origin": "*", "x-up": "1" });
    expect(s.downstream.headers).toEqual([
      ["access-control-allow-origin", "https://ok.test"],
      ["x-up", "1"],
      ["access-control-allow-credentials", "true"],
      ["access-control-expose-headers", "x-b"],
    ]);
    expect(cx.stats.value("http.x.cors.origin_valid")).toBe(1);
  });

  it("of another origin, or of none, are left alone", () => {
    const { request } = harness(ok);
    for (const headers of [{ origin: "https://bad.test" }, {}]) {
      const s = request("GET", headers).responseHeaders(200, { "x-up": "1" });
      expect(s.downstream.headers).toEqual([["x-up", "1"]]);
    }
  });
});

describe("levels", () => {
  it("are merged field by field, the most specific first", () => {
    const s = harness(
      { ...ok, allow_methods: "GET", max_age: "9" },
      { allow_methods: "POST" },
    ).preflight("https://ok.test");
    expect(answer(s)).toMatchObject({
      "access-control-allow-methods": "POST",
      "access-control-max-age": "9",
    });
  });

  it("in shadow only count", () => {
    const zero = { default_value: { numerator: 0, denominator: "HUNDRED" } };
    const all = { default_value: { numerator: 100, denominator: "HUNDRED" } };
    const { cx, preflight } = harness({ ...ok, filter_enabled: zero, shadow_enabled: all });
    expect(preflight("https://ok.test").reply).toBeUndefined();
    expect(cx.stats.value("http.x.cors.origin_valid")).toBe(1);
    const off = harness({ ...ok, filter_enabled: zero });
    off.preflight("https://ok.test");
    expect(off.cx.stats.value("http.x.cors.origin_valid")).toBe(0);
  });

  it("refuse a matcher that says nothing", () => {
    const s = harness({ allow_origin_string_match: [{}] }).preflight("https://ok.test");
    expect(String(s.error)).toContain("give one of exact");
  });
});
