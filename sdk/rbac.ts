import { celCondition } from "./cel/condition.ts";
import { ConfigError, type SetupContext } from "./extension.ts";
import { compileFilterStateMatch, FilterStateMatcher } from "./filter-state-match.ts";
import { compileHeaderMatch, HeaderMatcher } from "./header-match.ts";
import { CidrRange, CidrRanges, parseIp } from "./ip.ts";
import { type CompiledMatcher, compileMatcher, MatcherOf } from "./matcher.ts";
import type { MatchSubject } from "./matcher-inputs.ts";
import { compileMetadataMatch, MetadataMatcher } from "./metadata-match.ts";
import type { Route } from "./route.ts";
import { Enum, type Static, Type, UInt32 } from "./schema.ts";
import { compileStringMatch, StringMatcher } from "./string-match.ts";
import type { TlsInfo } from "./transport.ts";
import { UriTemplate, UriTemplateMatch } from "./uri-template.ts";

const PathMatcher = Type.Object({ path: StringMatcher });
const SourcedMetadata = Type.Object({
  metadata_matcher: MetadataMatcher,
  metadata_source: Enum(["DYNAMIC", "ROUTE"], { default: "DYNAMIC" }),
});

const common = {
  any: Type.Optional(Type.Boolean()),
  header: Type.Optional(HeaderMatcher),
  url_path: Type.Optional(PathMatcher),
  metadata: Type.Optional(MetadataMatcher),
  sourced_metadata: Type.Optional(SourcedMetadata),
};
type Common = { [K in keyof typeof common]?: Static<(typeof common)[K]> };

/** Envoy's `rbac.v3.Permission`: what may be done. One of its fields is given. */
export interface RbacPermission extends Common {
  readonly and_rules?: { readonly rules: readonly RbacPermission[] };
  readonly or_rules?: { readonly rules: readonly RbacPermission[] };
  readonly not_rule?: RbacPermission;
  readonly destination_ip?: CidrRange;
  readonly destination_port?: number;
  readonly destination_port_range?: { readonly start: number; readonly end: number };
  readonly requested_server_name?: StringMatcher;
  readonly uri_template?: UriTemplateMatch;
}
export const RbacPermission = Type.Unsafe<RbacPermission>(
  Type.Recursive(
    (Rule) => {
      const set = Type.Optional(Type.Object({ rules: Type.Array(Rule, { minItems: 1 }) }));
      return Type.Object({
        ...common,
        and_rules: set,
        or_rules: set,
        not_rule: Type.Optional(Rule),
        destination_ip: Type.Optional(CidrRange),
        destination_port: Type.Optional(UInt32({ maximum: 65_535 })),
        destination_port_range: Type.Optional(
          Type.Object({ start: Type.Integer({ default: 0 }), end: Type.Integer({ default: 0 }) }),
        ),
        requested_server_name: Type.Optional(StringMatcher),
        uri_template: Type.Optional(UriTemplateMatch),
      });
    },
    { $id: "Permission" },
  ),
);

/** Envoy's `rbac.v3.Principal`: who may do it. One of its fields is given. */
export interface RbacPrincipal extends Common {
  readonly and_ids?: { readonly ids: readonly RbacPrincipal[] };
  readonly or_ids?: { readonly ids: readonly RbacPrincipal[] };
  readonly not_id?: RbacPrincipal;
  readonly direct_remote_ip?: CidrRange;
  readonly remote_ip?: CidrRange;
  readonly source_ip?: CidrRange;
  readonly authenticated?: { readonly principal_name?: StringMatcher };
  readonly filter_state?: FilterStateMatcher;
}
export const RbacPrincipal = Type.Unsafe<RbacPrincipal>(
  Type.Recursive(
    (Id) => {
      const set = Type.Optional(Type.Object({ ids: Type.Array(Id, { minItems: 1 }) }));
      return Type.Object({
        ...common,
        and_ids: set,
        or_ids: set,
        not_id: Type.Optional(Id),
        direct_remote_ip: Type.Optional(CidrRange),
        remote_ip: Type.Optional(CidrRange),
        source_ip: Type.Optional(CidrRange),
        authenticated: Type.Optional(Type.Object({ principal_name: Type.Optional(StringMatcher) })),
        filter_state: Type.Optional(FilterStateMatcher),
      });
    },
    { $id: "Principal" },
  ),
);

/** Conditions are expressions of CEL, parsed (`google.api.expr.v1alpha1`). */
const Policy = Type.Object({
  permissions: Type.Array(RbacPermission, { minItems: 1 }),
  principals: Type.Array(RbacPrincipal, { minItems: 1 }),
  condition: Type.Optional(Type.Unknown()),
  checked_condition: Type.Optional(Type.Object({ expr: Type.Unknown() })),
});
type Policy = Static<typeof Policy>;

const Rules = Type.Object({
  action: Enum(["ALLOW", "DENY", "LOG"], { default: "ALLOW" }),
  policies: Type.Record(Type.String(), Policy, { default: {} }),
});
type Rules = Static<typeof Rules>;

const ACTION = "envoy.config.rbac.v3.Action";
const Tree = MatcherOf({
  [ACTION]: Type.Object({
    name: Type.String({ minLength: 1 }),
    action: Enum(["ALLOW", "DENY", "LOG"], { default: "ALLOW" }),
  }),
});

type Tree = Static<typeof Tree>;

/** The fields that Envoy's HTTP and network RBAC filters have in common. */
export const rbacFields = {
  rules: Type.Optional(Rules),
  matcher: Type.Optional(Tree),
  shadow_rules: Type.Optional(Rules),
  shadow_matcher: Type.Optional(Tree),
  shadow_rules_stat_prefix: Type.String({ default: "" }),
};

/** What rules look at: an HttpStream is one, and a connection that has no requests makes one. */
export interface RbacSubject extends MatchSubject {
  readonly downstream?: { readonly tls?: TlsInfo | undefined } | undefined;
  readonly route?: Pick<Route, "routeMetadata"> | undefined;
}

/** A condition on a request. */
type Match = (subject: RbacSubject) => boolean;

interface CompiledPolicy {
  readonly name: string;
  readonly matches: Match;
}

/** What rules say of a request. */
export interface RbacDecision {
  readonly allowed: boolean;
  /** Name of the policy that decided; undefined: none did. */
  readonly policy: string | undefined;
  /** For the action LOG: whether access loggers should write this request. Absent: the action is another one. */
  readonly logHint?: boolean;
}

/** Envoy's RBAC engine: decides on one request or connection. */
export interface Rbac {
  decide(subject: RbacSubject): RbacDecision;
}

/** Undefined: neither is configured. Where both are, the tree counts, as in Envoy. */
export function compileRbac(
  config: { readonly rules?: Rules | undefined; readonly matcher?: Tree | undefined },
  path: { readonly rules: string; readonly matcher: string },
  cx: SetupContext,
): Rbac | undefined {
  if (config.matcher !== undefined) return new RbacTree(config.matcher, path.matcher, cx);
  return config.rules && new RbacRules(config.rules, path.rules, cx);
}

/** What no branch of the tree allows is denied. */
class RbacTree implements Rbac {
  readonly #tree: CompiledMatcher<RbacDecision>;

  constructor(tree: Tree, path: string, cx: SetupContext) {
    this.#tree = compileMatcher(tree, path, cx, ({ name: policy, action }) => ({
      allowed: action !== "DENY",
      policy,
      ...(action === "LOG" && { logHint: true }),
    }));
  }

  decide(subject: RbacSubject): RbacDecision {
    return this.#tree.match(subject) ?? DENIED;
  }
}

const DENIED: RbacDecision = { allowed: false, policy: undefined };

/** Policies are tried in the order of their names. */
class RbacRules implements Rbac {
  readonly #action: Rules["action"];
  readonly #policies: readonly CompiledPolicy[];

  constructor(rules: Rules, path: string, cx: SetupContext) {
    this.#action = rules.action;
    this.#policies = Object.keys(rules.policies)
      .sort()
      .map((name) => {
        const at = `${path}.policies[${JSON.stringify(name)}]`;
        return { name, matches: compilePolicy(rules.policies[name]!, at, cx) };
      });
  }

  decide(subject: RbacSubject): RbacDecision {
    const found = this.#policies.find(({ matches }) => matches(subject));
    const policy = found?.name;
    const matched = found !== undefined;
    if (this.#action === "LOG") return { allowed: true, policy, logHint: matched };
    return { allowed: this.#action === "ALLOW" ? matched : !matched, policy };
  }
}

function compilePolicy(policy: Policy, path: string, cx: SetupContext): Match {
  const condition = compilePolicyCondition(policy, path, cx);
  const permissions = policy.permissions.map((rule, k) =>
    compileRule(rule, `${path}.permissions[${k}]`, cx),
  );
  const principals = policy.principals.map((id, k) =>
    compileRule(id, `${path}.principals[${k}]`, cx),
  );
  return (subject) =>
    permissions.some((matches) => matches(subject)) &&
    principals.some((matches) => matches(subject)) &&
    condition?.(subject) !== false;
}

function compilePolicyCondition(policy: Policy, path: string, cx: SetupContext): Match | undefined {
  const { condition, checked_condition: checked } = policy;
  if (condition !== undefined && checked !== undefined)
    throw new ConfigError(path, "give one of condition and checked_condition");
  if (checked !== undefined)
    return celCondition(checked.expr, `${path}.checked_condition.expr`, cx);
  return condition === undefined ? undefined : celCondition(condition, `${path}.condition`, cx);
}

type Rule = RbacPermission & RbacPrincipal;

function compileRule(given: RbacPermission | RbacPrincipal, path: string, cx: SetupContext): Match {
  const rule = given as Rule;
  const fields = Object.keys(rule).filter((key) => rule[key as keyof Rule] !== undefined);
  if (fields.length !== 1)
    throw new ConfigError(path, "give exactly one condition that is implemented here");
  const field = fields[0] as keyof Rule;
  const at = `${path}.${field}`;
  const each = (list: readonly (RbacPermission | RbacPrincipal)[], name: string) =>
    list.map((item, k) => compileRule(item, `${at}.${name}[${k}]`, cx));
  switch (field) {
    case "any":
      return () => rule.any === true;
    case "and_rules":
      return all(each(rule.and_rules!.rules, "rules"));
    case "and_ids":
      return all(each(rule.and_ids!.ids, "ids"));
    case "or_rules":
      return some(each(rule.or_rules!.rules, "rules"));
    case "or_ids":
      return some(each(rule.or_ids!.ids, "ids"));
    case "not_rule":
      return not(compileRule(rule.not_rule!, at, cx));
    case "not_id":
      return not(compileRule(rule.not_id!, at, cx));
    default:
      return compileCondition(rule, field, at, cx);
  }
}

const all =
  (list: readonly Match[]): Match =>
  (subject) =>
    list.every((matches) => matches(subject));
const some =
  (list: readonly Match[]): Match =>
  (subject) =>
    list.some((matches) => matches(subject));
const not =
  (matches: Match): Match =>
  (subject) =>
    !matches(subject);

const withoutQuery = (path: string): string => path.replace(/[?#].*$/s, "");

function compileCondition(rule: Rule, field: keyof Rule, at: string, cx: SetupContext): Match {
  switch (field) {
    case "header": {
      const match = compileHeaderMatch(rule.header!, at, cx);
      return ({ request }) => request !== undefined && match.matches(request);
    }
    case "url_path": {
      const matches = compileStringMatch(rule.url_path!.path, `${at}.path`, cx);
      return ({ request }) => request !== undefined && matches(withoutQuery(request.path));
    }
    case "uri_template": {
      const { path_template } = rule.uri_template!.typed_config;
      const template = new UriTemplate(path_template, `${at}.typed_config.path_template`, cx);
      return ({ request }) => request !== undefined && template.matches(withoutQuery(request.path));
    }
    case "metadata": {
      const matches = compileMetadataMatch(rule.metadata!, at, cx);
      return ({ metadata }) => matches(metadata ?? NONE);
    }
    case "sourced_metadata": {
      const { metadata_matcher: matcher, metadata_source: source } = rule.sourced_metadata!;
      const matches = compileMetadataMatch(matcher, `${at}.metadata_matcher`, cx);
      if (source === "DYNAMIC") return ({ metadata }) => matches(metadata ?? NONE);
      return ({ route }) => matches(routeMetadata(route));
    }
    case "requested_server_name": {
      const matches = compileStringMatch(rule.requested_server_name!, at, cx);
      return ({ serverName }) => matches(serverName ?? "");
    }
    case "destination_port":
      return ({ info }) => info.downstreamLocalAddress.port === rule.destination_port;
    case "destination_port_range": {
      const { start, end } = rule.destination_port_range!;
      return ({ info: { downstreamLocalAddress: to } }) => to.port >= start && to.port < end;
    }
    case "destination_ip":
      return compileIp(rule.destination_ip!, at, ({ info }) => info.downstreamLocalAddress.ip);
    case "direct_remote_ip":
      return compileIp(rule.direct_remote_ip!, at, ({ info }) => info.downstreamDirectAddress.ip);
    case "source_ip":
      // The connection's address, from a PROXY header too, but never from `x-forwarded-for`.
      return compileIp(rule.source_ip!, at, ({ downstreamConnection: connection, info }) => {
        return (connection?.remoteAddress ?? info.downstreamRemoteAddress).ip;
      });
    case "remote_ip":
      return compileIp(rule.remote_ip!, at, ({ info }) => info.downstreamRemoteAddress.ip);
    case "filter_state": {
      const matches = compileFilterStateMatch(rule.filter_state!, at, cx);
      return ({ filterState }) => matches(filterState);
    }
    case "authenticated":
      return compileAuthenticated(rule.authenticated!, at, cx);
    default:
      throw new ConfigError(at, "is not implemented");
  }
}

const NONE: ReadonlyMap<string, Record<string, unknown>> = new Map();

/** The pattern is tried on the peer's URIs, DNS names and subject. Without a pattern any TLS connection matches. */
function compileAuthenticated(
  { principal_name: name }: NonNullable<RbacPrincipal["authenticated"]>,
  at: string,
  cx: SetupContext,
): Match {
  if (name === undefined) return ({ downstream }) => downstream?.tls !== undefined;
  const matches = compileStringMatch(name, `${at}.principal_name`, cx);
  return ({ downstream }) => {
    const tls = downstream?.tls;
    if (tls === undefined) return false;
    const names = (type: "URI" | "DNS") =>
      tls.peer?.names.some((n) => n.type === type && matches(n.value)) === true;
    return names("URI") || names("DNS") || matches(tls.peer?.subject ?? "");
  };
}

function compileIp(range: CidrRange, at: string, of: (subject: RbacSubject) => string): Match {
  const ranges = new CidrRanges([range], at);
  return (subject) => {
    const ip = parseIp(of(subject));
    return ip !== undefined && ranges.contains(ip);
  };
}

function routeMetadata(route: RbacSubject["route"]) {
  return new Map(Object.entries(route?.routeMetadata ?? {})) as ReadonlyMap<
    string,
    Record<string, unknown>
  >;
}
