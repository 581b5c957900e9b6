import {
  CidrRange,
  Enum,
  HeaderMatcher,
  MetadataMatcher,
  type Static,
  StringMatcher,
  Type,
  UInt32,
} from "@tsproxy/sdk";

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

export interface Permission extends Common {
  readonly and_rules?: { readonly rules: readonly Permission[] };
  readonly or_rules?: { readonly rules: readonly Permission[] };
  readonly not_rule?: Permission;
  readonly destination_ip?: CidrRange;
  readonly destination_port?: number;
  readonly destination_port_range?: { readonly start: number; readonly end: number };
  readonly requested_server_name?: StringMatcher;
}
const Permission = Type.Unsafe<Permission>(
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
      });
    },
    { $id: "Permission" },
  ),
);

export interface Principal extends Common {
  readonly and_ids?: { readonly ids: readonly Principal[] };
  readonly or_ids?: { readonly ids: readonly Principal[] };
  readonly not_id?: Principal;
  readonly direct_remote_ip?: CidrRange;
  readonly remote_ip?: CidrRange;
  readonly source_ip?: CidrRange;
}
const Principal = Type.Unsafe<Principal>(
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
      });
    },
    { $id: "Principal" },
  ),
);

/** `condition`: read to be refused, since a policy without its condition would let more through. */
const Policy = Type.Object({
  permissions: Type.Array(Permission, { minItems: 1 }),
  principals: Type.Array(Principal, { minItems: 1 }),
  condition: Type.Optional(Type.Unknown()),
});
export type Policy = Static<typeof Policy>;

export const Rules = Type.Object({
  action: Enum(["ALLOW", "DENY", "LOG"], { default: "ALLOW" }),
  policies: Type.Record(Type.String(), Policy, { default: {} }),
});
export type Rules = Static<typeof Rules>;

/** Envoy's `http.rbac.v3.RBAC`. The matcher trees are read to be refused. */
export const Config = Type.Object({
  rules: Type.Optional(Rules),
  rules_stat_prefix: Type.String({ default: "" }),
  shadow_rules: Type.Optional(Rules),
  shadow_rules_stat_prefix: Type.String({ default: "" }),
  track_per_rule_stats: Type.Boolean({ default: false }),
  matcher: Type.Optional(Type.Unknown()),
  shadow_matcher: Type.Optional(Type.Unknown()),
});
export type Config = Static<typeof Config>;

/** Without `rbac` the filter is off for the route. */
export const RouteConfig = Type.Object({ rbac: Type.Optional(Config) });
export type RouteConfig = Static<typeof RouteConfig>;
