import {
  type CidrRange,
  CidrRanges,
  ConfigError,
  compileHeaderMatch,
  compileMetadataMatch,
  compileStringMatch,
  type HttpStream,
  parseIp,
  type SetupContext,
} from "@tsproxy/sdk";
import type { Permission, Policy, Principal, Rules } from "./config.ts";

/** A condition on a request. */
type Match = (stream: HttpStream) => boolean;

interface CompiledPolicy {
  readonly name: string;
  readonly matches: Match;
}

/** What rules say of a request: the name of the policy that decided, if one did. */
export interface Decision {
  readonly allowed: boolean;
  readonly policy: string | undefined;
}

/** Envoy's RBAC engine: policies are tried in the order of their names. */
export class CompiledRules {
  readonly action: Rules["action"];
  readonly #policies: readonly CompiledPolicy[];

  constructor(rules: Rules, path: string, cx: SetupContext) {
    this.action = rules.action;
    this.#policies = Object.keys(rules.policies)
      .sort()
      .map((name) => {
        const at = `${path}.policies[${JSON.stringify(name)}]`;
        return { name, matches: compilePolicy(rules.policies[name]!, at, cx) };
      });
  }

  decide(stream: HttpStream): Decision {
    const found = this.#policies.find(({ matches }) => matches(stream));
    const policy = found?.name;
    const matched = found !== undefined;
    if (this.action === "LOG") return { allowed: true, policy };
    return { allowed: this.action === "ALLOW" ? matched : !matched, policy };
  }
}

function compilePolicy(policy: Policy, path: string, cx: SetupContext): Match {
  if (policy.condition !== undefined)
    throw new ConfigError(`${path}.condition`, "conditions are not implemented; write permissions");
  const permissions = policy.permissions.map((rule, k) =>
    compileRule(rule, `${path}.permissions[${k}]`, cx),
  );
  const principals = policy.principals.map((id, k) =>
    compileRule(id, `${path}.principals[${k}]`, cx),
  );
  return (stream) =>
    permissions.some((matches) => matches(stream)) && principals.some((matches) => matches(stream));
}

type Rule = Permission & Principal;

function compileRule(given: Permission | Principal, path: string, cx: SetupContext): Match {
  const rule = given as Rule;
  const fields = Object.keys(rule).filter((key) => rule[key as keyof Rule] !== undefined);
  if (fields.length !== 1)
    throw new ConfigError(path, "give exactly one condition that is implemented here");
  const field = fields[0] as keyof Rule;
  const at = `${path}.${field}`;
  const each = (list: readonly (Permission | Principal)[], name: string) =>
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
  (stream) =>
    list.every((matches) => matches(stream));
const some =
  (list: readonly Match[]): Match =>
  (stream) =>
    list.some((matches) => matches(stream));
const not =
  (matches: Match): Match =>
  (stream) =>
    !matches(stream);

function compileCondition(rule: Rule, field: keyof Rule, at: string, cx: SetupContext): Match {
  switch (field) {
    case "header": {
      const match = compileHeaderMatch(rule.header!, at, cx);
      return ({ request }) => match.matches(request);
    }
    case "url_path": {
      const matches = compileStringMatch(rule.url_path!.path, `${at}.path`, cx);
      return ({ request }) => matches(request.path.replace(/[?#].*$/s, ""));
    }
    case "metadata": {
      const matches = compileMetadataMatch(rule.metadata!, at, cx);
      return ({ metadata }) => matches(metadata);
    }
    case "sourced_metadata": {
      const { metadata_matcher: matcher, metadata_source: source } = rule.sourced_metadata!;
      const matches = compileMetadataMatch(matcher, `${at}.metadata_matcher`, cx);
      if (source === "DYNAMIC") return ({ metadata }) => matches(metadata);
      return ({ route }) => matches(routeMetadata(route));
    }
    case "requested_server_name": {
      const matches = compileStringMatch(rule.requested_server_name!, at, cx);
      return (stream) => matches((stream as { serverName?: string }).serverName ?? "");
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
    case "remote_ip":
    case "source_ip":
      return compileIp(rule[field]!, at, ({ info }) => info.downstreamRemoteAddress.ip);
    default:
      throw new ConfigError(at, "is not implemented");
  }
}

function compileIp(range: CidrRange, at: string, of: (stream: HttpStream) => string): Match {
  const ranges = new CidrRanges([range], at);
  return (stream) => {
    const ip = parseIp(of(stream));
    return ip !== undefined && ranges.contains(ip);
  };
}

function routeMetadata(route: HttpStream["route"]) {
  const { routeMetadata: values } = (route ?? {}) as {
    readonly routeMetadata?: Readonly<Record<string, unknown>>;
  };
  return new Map(Object.entries(values ?? {})) as ReadonlyMap<string, Record<string, unknown>>;
}
