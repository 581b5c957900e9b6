import type { Route } from "@tsproxy/sdk";
import { TestContext, TestStream, withDefaults } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { Config } from "./config.ts";
import limit from "./filter.ts";

const all = { default_value: { numerator: 100, denominator: "HUNDRED" } };
const none = { default_value: { numerator: 0, denominator: "HUNDRED" } };
const bucket = (max_tokens: number, fill_interval = 60_000, tokens_per_fill = max_tokens) => ({
  max_tokens,
  tokens_per_fill,
  fill_interval,
});
const on = { stat_prefix: "rl", filter_enabled: all, filter_enforced: all };

function harness(config: object, options: { route?: object; cx?: TestContext } = {}) {
  const cx = options.cx ?? new TestContext();
  const factory = cx.setup(limit, withDefaults(Config, { stat_prefix: "rl", ...config }));
  const routeConfigs = options.route === undefined ? [] : [withDefaults(Config, options.route)];
  const route = { action: { type: "route", cluster: "a" } } as Route;
  const stream = () => new TestStream(cx, factory, { routeConfigs, route });
  const get = (headers: Record<string, string> = {}, path = "/") =>
    stream().requestHeaders("GET", path, headers);
  const stat = (name: string, prefix = "rl") =>
    cx.stats.value(`${prefix}.http_local_rate_limit.${name}`);
  const statuses = (n: number, headers = {}) =>
    Array.from({ length: n }, () => get(headers).reply?.status ?? 200).join(" ");
  return { cx, stream, get, stat, statuses };
}

describe("a bucket", () => {
  it("lets through what it holds and refuses the rest", () => {
    const { get, stat, statuses } = harness({ ...on, token_bucket: bucket(2) });
    expect(statuses(3)).toBe("200 200 429");
    expect(get().reply).toMatchObject({ body: "local_rate_limited", flags: ["RL"] });
    expect(["enabled", "ok", "rate_limited", "enforced"].map((s) => stat(s))).toEqual([4, 2, 2, 2]);
  });

  it("fills evenly", () => {
    const { cx, statuses } = harness({ ...on, token_bucket: bucket(2, 1000) });
    expect(statuses(3)).toBe("200 200 429");
    cx.clock.advance(500);
    expect(statuses(2)).toBe("200 429");
  });

  it("is one over all workers and over reloads, and full again at another rate", () => {
    const one = harness({ ...on, token_bucket: bucket(3) });
    expect(one.statuses(2)).toBe("200 200");
    const cx = new TestContext();
    cx.cells = one.cx.cells;
    expect(harness({ ...on, token_bucket: bucket(3) }, { cx }).statuses(2)).toBe("200 429");
    expect(harness({ ...on, token_bucket: bucket(4) }, { cx }).statuses(2)).toBe("200 200");
  });

  it("of each connection is its own where the config says so", () => {
    const { get, stream } = harness({
      ...on,
      token_bucket: bucket(1),
      local_rate_limit_per_downstream_connection: true,
    });
    expect([get().reply, get().reply]).toEqual([undefined, undefined]);
    const s = stream();
    s.requestHeaders("GET", "/");
    expect(s.connectionState.size).toBe(1);
  });
});

describe("shares", () => {
  it("are 0 when they are absent", () => {
    const { stat, statuses } = harness({ token_bucket: bucket(1) });
    expect(statuses(3)).toBe("200 200 200");
    expect(stat("enabled")).toBe(0);
  });

  it("mark what would be refused when nothing is", () => {
    const { get, stat } = harness({
      ...on,
      filter_enforced: none,
      token_bucket: bucket(1),
      request_headers_to_add_when_not_enforced: [{ header: { key: "x-would", value: "yes" } }],
    });
    expect(get().upstream.header("x-would")).toBeUndefined();
    expect(get().upstream.header("x-would")).toBe("yes");
    expect([stat("rate_limited"), stat("enforced")]).toEqual([1, 0]);
  });
});

describe("answers", () => {
  it("tell the limit on every response, and that they were limited on refusals", () => {
    const { get } = harness({
      ...on,
      token_bucket: bucket(2),
      enable_x_ratelimit_headers: "DRAFT_VERSION_03",
      response_headers_to_add: [{ header: { key: "x-limited", value: "true" } }],
    });
    const seen = () => [...(get().responseHeaders(200).response ?? [])].flat().join(" ");
    const tell = (n: number, reset: number) =>
      `x-ratelimit-limit 2 x-ratelimit-remaining ${n} x-ratelimit-reset ${reset}`;
    expect(seen()).toBe(tell(1, 0));
    expect(seen()).toBe(tell(0, 30));
    expect([...(get().response ?? [])].flat().join(" ")).toBe(`x-limited true ${tell(0, 30)}`);
  });

  it("have the status of the config, unless that is no error", () => {
    const status = (code: string) => {
      const { get } = harness({ ...on, token_bucket: bucket(1), status: { code } });
      get();
      return get().reply?.status;
    };
    expect(["ServiceUnavailable", "OK"].map(status)).toEqual([503, 429]);
  });

  it("say RESOURCE_EXHAUSTED to gRPC clients where they should", () => {
    const { get } = harness({
      ...on,
      token_bucket: bucket(1),
      rate_limited_as_resource_exhausted: true,
    });
    get();
    expect(get().reply?.grpcStatus).toBe(8);
  });
});

describe("descriptors", () => {
  const byUser = {
    rate_limits: [
      { actions: [{ request_headers: { header_name: "x-user", descriptor_key: "user" } }] },
    ],
  };
  const of = (value: string, max: number) => ({
    entries: [{ key: "user", value }],
    token_bucket: bucket(max),
  });

  it("have buckets of their own, beside the default one", () => {
    const config = { ...on, ...byUser, token_bucket: bucket(5), descriptors: [of("a", 1)] };
    const { statuses } = harness(config);
    expect(statuses(2, { "x-user": "a" })).toBe("200 429");
    expect(statuses(5, { "x-user": "b" })).toBe("200 200 200 200 429");
  });

  it("spare the default bucket where the config says so", () => {
    const { statuses } = harness({
      ...on,
      ...byUser,
      token_bucket: bucket(1),
      descriptors: [of("a", 3)],
      always_consume_default_token_bucket: false,
    });
    expect(statuses(4, { "x-user": "a" })).toBe("200 200 200 429");
    expect(statuses(2)).toBe("200 429");
  });

  it("count as many requests as the filter's own entries say, and give nothing to none", () => {
    const own = (more: object) => ({
      ...on,
      token_bucket: bucket(100),
      descriptors: [of("a", 7)],
      rate_limits: [{ ...byUser.rate_limits[0], ...more }],
    });
    const a = { "x-user": "a" };
    expect(harness(own({ hits_addend: { number: 3 } })).statuses(3, a)).toBe("200 200 429");
    expect(harness(own({ hits_addend: { number: 0 } })).statuses(1, a)).toBe("429");
    expect(harness(own({ apply_on_stream_done: true })).statuses(9, a)).not.toContain("429");
    const { statuses } = harness(own({ hits_addend: { format: "%REQ(x-hits)%" } }));
    expect(statuses(3, { ...a, "x-hits": "3" })).toBe("200 200 429");
    expect(statuses(1, { ...a, "x-hits": "many" })).toBe("200");
  });

  /** Whether the actions make exactly `value` under `key` of a request with these headers. */
  const makes = (actions: object, key: string, value: string, headers: object, path = "/") => {
    const { get } = harness({
      ...on,
      token_bucket: bucket(100),
      rate_limits: [{ actions: [actions] }],
      descriptors: [{ entries: [{ key, value }], token_bucket: bucket(1) }],
    });
    get(headers as Record<string, string>, path);
    return get(headers as Record<string, string>, path).reply?.status === 429;
  };

  it("are what an expression comes to", () => {
    const expr = (text: string, more: object = {}) => ({
      extension: {
        name: "expr",
        typed_config: {
          "@type": "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor",
          descriptor_key: "e",
          skip_if_error: false,
          text,
          ...more,
        },
      },
    });
    expect(makes(expr("request.path.startsWith('/a')"), "e", "true", {}, "/ab")).toBe(true);
    expect(makes(expr("request.headers['x-user']"), "e", "me", { "x-user": "me" })).toBe(true);
    expect(makes(expr("request.headers['x-user']"), "e", "me", {})).toBe(false);
    expect(() => makes(expr("1 +"), "e", "", {})).toThrow("ends too early");
    expect(() => makes(expr("1", { parsed: {} }), "e", "", {})).toThrow("one of text and parsed");
  });

  it("say from which networks a request comes, with a value that a format writes", () => {
    const from = (address_prefix: string, more: object = {}, value = "here") => {
      const ranges = [{ address_prefix, prefix_len: 8 }];
      const address_matcher = { ranges, invert_match: false, ...more };
      const remote_address_match = { descriptor_value: "here", ...more, address_matcher };
      return makes({ remote_address_match }, "remote_address_match", value, {});
    };
    expect([from("192.0.0.0"), from("10.0.0.0"), from("2001::")]).toEqual([true, false, false]);
    const invert_match = true;
    expect([from("192.0.0.0", { invert_match }), from("10.0.0.0", { invert_match })]).toEqual([
      false,
      true,
    ]);
    expect(from("192.0.0.0", { ranges: [] })).toBe(false);
    const descriptor_value = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)%";
    expect(from("192.0.0.0", { descriptor_value }, "192.0.0.0/16")).toBe(true);
    const empty = { descriptor_value: "%REQ(x-none)%" };
    expect(from("192.0.0.0", empty, "")).toBe(false);
    expect(from("192.0.0.0", { ...empty, default_value: "d" }, "d")).toBe(true);
    expect(() => from("local")).toThrow('"local" is not an IP address');
    expect(() => from("192.0.0.0", { descriptor_value: "50%" })).toThrow(
      "a percent sign is written",
    );
  });

  it("tell an empty header or parameter from a missing one", () => {
    const request_headers = { header_name: "x-a", descriptor_key: "a" };
    expect(makes({ request_headers }, "a", "", { "x-a": "" })).toBe(true);
    expect(makes({ request_headers }, "a", "", {})).toBe(false);
    const query_parameters = { query_parameter_name: "q", descriptor_key: "a" };
    expect(makes({ query_parameters }, "a", "", {}, "/?q=")).toBe(true);
    expect(makes({ query_parameters }, "a", "x y", {}, "/?q=x%20y")).toBe(true);
    expect(makes({ query_parameters }, "a", "", {}, "/?p=")).toBe(false);
  });

  it("of the filter itself have neither stage nor override", () => {
    for (const more of [
      { stage: 1 },
      { disable_key: "k" },
      { limit: { dynamic_metadata: { metadata_key: { key: "a", path: [{ key: "b" }] } } } },
    ]) {
      const rate_limits = [{ ...byUser.rate_limits[0], ...more }];
      expect(() => harness({ ...on, token_bucket: bucket(1), rate_limits })).toThrow(
        "not supported here",
      );
    }
  });

  it("with an open value have a bucket for each", () => {
    const config = { ...on, ...byUser, token_bucket: bucket(100), descriptors: [of("", 1)] };
    const { statuses } = harness(config);
    expect(statuses(2, { "x-user": "a" })).toBe("200 429");
    expect(statuses(2, { "x-user": "b" })).toBe("200 429");
    expect(statuses(2)).toBe("200 200");
  });
});

describe("a route", () => {
  it("has its own limit in the filter's place, counted by itself", () => {
    const route = { ...on, stat_prefix: "own", token_bucket: bucket(1) };
    const { stat, statuses } = harness({ ...on, token_bucket: bucket(9) }, { route });
    expect(statuses(2)).toBe("200 429");
    expect([stat("enforced", "own"), stat("enabled")]).toEqual([1, 0]);
  });

  it("needs a bucket", () => {
    const { get } = harness(on, { route: on });
    expect(String(get().error)).toContain("token_bucket is missing");
  });
});

it("refuses fills faster than Envoy's", () => {
  expect(() => harness({ ...on, token_bucket: bucket(1, 20) })).toThrow("shorter than 50 ms");
});
