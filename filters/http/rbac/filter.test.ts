import { TestConnection, TestContext, TestStream, withDefaults } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { Config, RouteConfig } from "./config.ts";
import rbac from "./filter.ts";

const ANY = [{ any: true }];
const path = (prefix: string) => ({ url_path: { path: { prefix } } });
/** With the defaults that core fills in. */
const header = (name: string, more: object) => ({
  header: { name, invert_match: false, treat_missing_header_as_empty: false, ...more },
});
const uriTemplate = (path_template: string) => {
  const type = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3";
  const typed_config = { "@type": `${type}.UriTemplateMatchConfig`, path_template };
  return { uri_template: { name: "t", typed_config } };
};
const method = (exact: string) =>
  header(":method", { string_match: { exact, ignore_case: false } });

function harness(config: object, route?: object) {
  const cx = new TestContext();
  cx.statPrefix = "http.x.";
  const factory = cx.setup(rbac, withDefaults(Config, config));
  const routeConfigs = route === undefined ? [] : [withDefaults(RouteConfig, route)];
  const stream = (ip = "192.0.2.1") =>
    new TestStream(cx, factory, {
      routeConfigs,
      info: {
        downstreamRemoteAddress: { ip, port: 1 },
        downstreamDirectAddress: { ip: "10.0.0.9", port: 1 },
      },
      downstreamConnection: Object.assign(new TestConnection(), {
        remoteAddress: { ip: "172.16.0.1", port: 1 },
      }),
    });
  const ask = (verb: string, where: string, headers = {}, ip?: string) =>
    stream(ip).requestHeaders(verb, where, headers);
  return { ask, stat: (name: string) => cx.stats.value(`http.x.rbac.${name}`) };
}
const allow = (policies: object) => ({ rules: { action: "ALLOW", policies } });

describe("ALLOW", () => {
  const config = allow({
    read: {
      permissions: [{ and_rules: { rules: [method("GET"), { not_rule: path("/admin") }] } }],
      principals: [
        {
          or_ids: {
            ids: [
              { remote_ip: { address_prefix: "192.0.2.0", prefix_len: 24 } },
              header("x-pass", { present_match: true }),
            ],
          },
        },
      ],
    },
    admin: {
      permissions: [path("/admin")],
      principals: [header("x-role", { string_match: { exact: "admin", ignore_case: false } })],
    },
  });

  it("lets through what some policy allows, and says which", () => {
    const { ask, stat } = harness(config);
    const s = ask("GET", "/page?q=/admin");
    expect(s.reply).toBeUndefined();
    expect(s.metadata.get("envoy.filters.http.rbac")).toEqual({
      enforced_effective_policy_id: "read",
      enforced_engine_result: "allowed",
    });
    expect(ask("DELETE", "/admin/x", { "x-role": "admin" }).reply).toBeUndefined();
    expect(ask("GET", "/page", { "x-pass": "" }, "198.51.100.1").reply).toBeUndefined();
    expect(stat("allowed")).toBe(3);
  });

  it("refuses the rest", () => {
    const { ask, stat } = harness(config);
    expect(ask("POST", "/page").reply).toMatchObject({
      status: 403,
      body: "RBAC: access denied",
      details: "rbac_access_denied_matched_policy[none]",
    });
    expect(ask("GET", "/admin").reply?.status).toBe(403);
    expect(ask("GET", "/page", {}, "198.51.100.1").reply?.status).toBe(403);
    expect(stat("denied")).toBe(3);
  });

  it("without policies lets nothing through, and no rules everything", () => {
    expect(harness(allow({})).ask("GET", "/").reply?.status).toBe(403);
    expect(harness({}).ask("GET", "/").reply).toBeUndefined();
  });
});

describe("DENY", () => {
  it("refuses what some policy names", () => {
    const rules = {
      action: "DENY",
      policies: { "bad ones": { permissions: [path("/x")], principals: ANY } },
    };
    const { ask } = harness({ rules });
    expect(ask("GET", "/x").reply?.details).toBe("rbac_access_denied_matched_policy[bad_ones]");
    expect(ask("GET", "/y").reply).toBeUndefined();
  });
});

describe("shadow rules", () => {
  it("only count and tell", () => {
    const shadow_rules = {
      action: "DENY",
      policies: { spy: { permissions: [path("/secret")], principals: ANY } },
    };
    const { ask, stat } = harness({ shadow_rules, shadow_rules_stat_prefix: "s_" });
    const s = ask("GET", "/secret");
    expect(s.reply).toBeUndefined();
    expect(s.metadata.get("envoy.filters.http.rbac")).toEqual({
      s_shadow_effective_policy_id: "spy",
      s_shadow_engine_result: "denied",
    });
    expect(stat("s_.shadow_denied")).toBe(1);
  });

  it("of a route tell under the route's prefix where it has one, and count under the filter's", () => {
    const rules = { action: "DENY", policies: {} };
    const own = { rules, rules_stat_prefix: "own_" };
    const keysOf = (route: object) => {
      const { ask, stat } = harness(own, { rbac: { rules, ...route } });
      const told = ask("GET", "/").metadata.get("envoy.filters.http.rbac");
      expect(stat("own_.allowed")).toBe(1);
      return Object.keys(told ?? {});
    };
    expect(keysOf({ rules_stat_prefix: "route." })).toEqual(["route.enforced_engine_result"]);
    expect(keysOf({})).toEqual(["own_enforced_engine_result"]);
  });
});

describe("conditions", () => {
  const meets = (permission: object, principal: object = { any: true }) =>
    harness(allow({ p: { permissions: [permission], principals: [principal] } })).ask("GET", "/")
      .reply === undefined;

  it.each([
    [{ destination_port: 10_000 }, true],
    [{ destination_port: 1 }, false],
    [{ destination_port_range: { start: 10_000, end: 10_001 } }, true],
    [{ destination_port_range: { start: 1, end: 10_000 } }, false],
    [{ destination_ip: { address_prefix: "127.0.0.0", prefix_len: 8 } }, true],
    [{ or_rules: { rules: [{ any: false }, { any: true }] } }, true],
    [{ requested_server_name: { exact: "a.test" } }, false],
    [uriTemplate("/{any=**}"), true],
    [uriTemplate("/a/{any=**}"), false],
  ])("%j is %s", (permission, expected) => {
    expect(meets(permission)).toBe(expected);
  });

  it("know the client behind proxies from the one that is connected", () => {
    const net = (address_prefix: string) => ({ address_prefix, prefix_len: 8 });
    expect(meets({ any: true }, { direct_remote_ip: net("10.0.0.0") })).toBe(true);
    expect(meets({ any: true }, { remote_ip: net("10.0.0.0") })).toBe(false);
    expect(meets({ any: true }, { source_ip: net("172.0.0.0") })).toBe(true);
    expect(meets({ any: true }, { source_ip: net("192.0.0.0") })).toBe(false);
    expect(meets({ any: true }, { not_id: { remote_ip: net("10.0.0.0") } })).toBe(true);
  });

  it("may be expressions, whose errors let nobody in", () => {
    const lookup = (name: string) => ({
      call_expr: {
        function: "_[_]",
        args: [
          { select_expr: { operand: { ident_expr: { name: "request" } }, field: "headers" } },
          { const_expr: { string_value: name } },
        ],
      },
    });
    const equals = (a: object, text: string) => ({
      call_expr: { function: "_==_", args: [a, { const_expr: { string_value: text } }] },
    });
    const policy = (more: object) => ({ permissions: ANY, principals: ANY, ...more });
    const passes = (more: object) =>
      harness(allow({ p: policy(more) })).ask("GET", "/").reply === undefined;
    expect(passes({ condition: equals(lookup(":method"), "GET") })).toBe(true);
    expect(passes({ condition: equals(lookup(":method"), "PUT") })).toBe(false);
    expect(passes({ condition: equals(lookup("x-none"), "") })).toBe(false);
    expect(passes({ checked_condition: { expr: equals(lookup(":path"), "/") } })).toBe(true);
  });

  it("that nobody carries out refuse the config", () => {
    expect(() => meets({})).toThrow("exactly one condition");
    const policy = { permissions: ANY, principals: ANY, condition: {} };
    expect(() => harness(allow({ p: policy }))).toThrow("an expression has one of const_expr");
  });
});

describe("a matcher tree", () => {
  const ACTION = "type.googleapis.com/envoy.config.rbac.v3.Action";
  const to = (name: string, action: string) => ({
    action: { name, typed_config: { "@type": ACTION, name, action } },
  });
  const input = {
    name: "h",
    typed_config: {
      "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
      header_name: "x-kind",
    },
  };
  const matcher = {
    matcher_tree: {
      input,
      exact_match_map: { map: { good: to("ok", "ALLOW"), bad: to("no way", "DENY") } },
    },
  };

  it("allows and denies by the action it comes to, and denies what it has none for", () => {
    const { ask } = harness({ matcher });
    expect(ask("GET", "/", { "x-kind": "good" }).reply).toBeUndefined();
    expect(ask("GET", "/", { "x-kind": "bad" }).reply?.details).toBe(
      "rbac_access_denied_matched_policy[no_way]",
    );
    expect(ask("GET", "/").reply?.details).toBe("rbac_access_denied_matched_policy[none]");
  });

  it("serves as shadow rules too", () => {
    const { ask, stat } = harness({ shadow_matcher: matcher });
    expect(ask("GET", "/", { "x-kind": "bad" }).reply).toBeUndefined();
    expect(stat("shadow_denied")).toBe(1);
  });
});

it("is replaced by a route's rules, or switched off there", () => {
  expect(harness(allow({}), {}).ask("GET", "/").reply).toBeUndefined();
  const { ask, stat } = harness({}, { rbac: allow({}) });
  expect(ask("GET", "/").reply?.status).toBe(403);
  expect(stat("denied")).toBe(1);
});

it("counts the policies of rules that ask for it, a route's or its own", () => {
  const rbac = { ...allow({ p: { permissions: ANY, principals: ANY } }) };
  const counted = { ...rbac, track_per_rule_stats: true };
  const counts = (config: object, route?: object) => {
    const { ask, stat } = harness(config, route);
    ask("GET", "/");
    return [stat("allowed"), stat("policy.p.allowed")];
  };
  expect(counts(counted)).toEqual([1, 1]);
  expect(counts(counted, { rbac })).toEqual([1, 0]);
  expect(counts(rbac, { rbac: counted })).toEqual([1, 1]);
});
