/** A name without the parts that are values of tags, and those tags in the order they were found. */
interface Tagged {
  readonly name: string;
  readonly tags: readonly (readonly [tag: string, value: string])[];
}

/**
 * Group 1 is taken out of the name, group 2 is the tag's value. The tags and what they stand for are Envoy's defaults, in
 * Envoy's order, which is the order of labels in Prometheus.
 */
export interface Rule {
  readonly tag: string;
  readonly pattern: RegExp;
  /** A value that this part of a name may have without being a tag. */
  readonly except?: string;
  /** What the value stands for; absent: itself. */
  readonly read?: (value: string) => string;
}

const rule = (tag: string, pattern: RegExp, except?: string): Rule => ({
  tag: `envoy.${tag}`,
  pattern: new RegExp(pattern.source, "d"),
  ...(except === undefined ? {} : { except }),
});

const RESPONSE = [
  rule("response_code", /_rq(_(\d{3}))$/),
  rule("response_code_class", /_rq_((\d))xx$/),
];
/** Like these, the number of a worker comes before the tags that all stats have, whatever the stat's root. */
const WORKER: Readonly<Record<string, Rule>> = {
  listener: rule(
    "worker_id",
    /^listener\.(?:\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}_\d+|\[[a-fA-F_\d]+\]_\d+|[^.]+)\.worker_((\d+)\.)/,
  ),
  server: rule("worker_id", /^server\.worker_((\d+)\.)/),
  listener_manager: rule("worker_id", /^listener_manager\.worker_((\d+)\.)/),
};
const RATE_LIMIT = [
  rule("local_http_ratelimit_prefix", /^(([^.]+)\.)http_local_rate_limit\./),
  rule("rbac_prefix", /^(([^.]+)\.)rbac\./),
];

/** By the first part of the stat's name, so that only a few are tried for each. */
const RULES: Readonly<Record<string, readonly Rule[]>> = {
  cluster: [
    rule("grpc_bridge_method", /^cluster\.[^.]+\.grpc\.[^.]+\.(([^.]+)\.)/),
    rule("ssl_curve", /^cluster\..*?\.ssl\.curves(\.([\w-]+))$/),
    rule("ssl_sigalg", /^cluster\..*?\.ssl\.sigalgs(\.([\w-]+))$/),
    rule("ssl_version", /^cluster\..*?\.ssl\.versions(\.(TLSv\d\.\d))$/),
    { ...rule("", /^cluster\.[^.]+\.ssl\.ciphers(\.([\w-]+))$/), tag: "cipher_suite" },
    rule("grpc_bridge_service", /^cluster\.[^.]+\.grpc\.(([^.]+)\.)/),
    rule("cluster_name", /^cluster\.(([^.]+)\.)/),
    {
      ...rule(
        "endpoint_address",
        /^cluster\.[^.]+\.endpoint(\.(.+))\.(?:[cr][qx]_[a-z_]+|healthy)$/,
      ),
      // Names of stats have no colons.
      read: (address) => address.replaceAll("_", ":"),
    },
    rule("ext_authz_prefix", /^cluster\.[^.]+\.ext_authz\.(([^.]+)\.)/),
    rule("tls_certificate", /^cluster\..*?\.ssl\.certificate\.(([^.]+)\.)/),
  ],
  http: [
    rule("http_user_agent", /^http\.[^.]+\.user_agent\.(([^.]+)\.)/),
    rule("fault_downstream_cluster", /^http\.[^.]+\.fault\.(([^.]+)\.)/),
    rule("ext_authz_prefix", /^http\.[^.]+\.ext_authz\.(([^.]+)\.)/),
    rule("http_conn_manager_prefix", /^http\.(([^.]+)\.)/),
    rule("rds_route_config", /^http\.[^.]+\.rds\.(([\w./-]+)\.)\w+?$/),
    rule("scoped_rds_config", /^http\.[^.]+\.scoped_rds\.(([\w.-]+)\.)\w+?$/),
    rule(
      "rbac_policy_name",
      /^http\.[^.]+\.rbac\.(?:[^.]+\.)?policy\.(([^.]+)\.)(?:allowed|shadow_allowed|denied|shadow_denied)$/,
    ),
    rule("rbac_http_prefix", /^http\.[^.]+\.rbac\.(([^.]+)\.)/, "policy"),
  ],
  listener: [
    rule("ssl_cipher", /^listener\..*?\.ssl\.ciphers(\.([\w-]+))$/),
    rule("ssl_curve", /^listener\..*?\.ssl\.curves(\.([\w-]+))$/),
    rule("ssl_sigalg", /^listener\..*?\.ssl\.sigalgs(\.([\w-]+))$/),
    rule("ssl_version", /^listener\..*?\.ssl\.versions(\.(TLSv\d\.\d))$/),
    rule("http_conn_manager_prefix", /^listener\..*?\.http\.(([^.]+)\.)/),
    rule(
      "listener_address",
      /^listener\.((\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}_\d+|\[[a-fA-F_\d]+\]_\d+|[^.]+)\.)/,
      "admin",
    ),
    rule("tls_certificate", /^listener\..*?\.ssl\.certificate\.(([^.]+)\.)/),
  ],
  vhost: [
    rule("virtual_cluster", /^vhost\.[^.]+\.vcluster\.(([^.]+)\.)/),
    rule("virtual_host", /^vhost\.(([^.]+)\.)/),
    rule("route", /^vhost\.[^.]+\.route\.(([^.]+)\.)/),
  ],
  tcp: [rule("tcp_prefix", /^tcp\.(([^.]+)\.)/)],
  udp: [rule("udp_prefix", /^udp\.(([^.]+)\.)/)],
  auth: [rule("clientssl_prefix", /^auth\.clientssl\.(([^.]+)\.)/)],
  ratelimit: [rule("ratelimit_prefix", /^ratelimit\.(([^.]+)\.)/)],
  thrift: [rule("thrift_prefix", /^thrift\.(([^.]+)\.)/)],
  redis: [rule("redis_prefix", /^redis\.(([^.]+)\.)/)],
  local_rate_limit: [rule("local_network_ratelimit_prefix", /^local_rate_limit\.(([^.]+)\.)/)],
  listener_local_ratelimit: [
    rule("local_listener_ratelimit_prefix", /^listener_local_ratelimit\.(([^.]+)\.)/),
  ],
  dns_filter: [rule("dns_filter_prefix", /^dns_filter\.(([^.]+)\.)/)],
  connection_limit: [rule("connection_limit_prefix", /^connection_limit\.(([^.]+)\.)/)],
  grpc: [rule("google_grpc_client_prefix", /^grpc\.(([^.]+)\.)/)],
  sds: [rule("xds_resource_name", /^sds\.(([^.]+)\.)/)],
};

/** Finds the tags of stats by their names: Envoy's defaults as far as the config leaves them, then the config's own. */
export class Tagger {
  /** The config's own: as in Envoy, those that begin with a root (`^cluster\.`, `^http(?=\.)`) come after the defaults of that root. */
  readonly #rooted: readonly Rule[];
  readonly #rootless: readonly Rule[];
  readonly #isDefault: (tag: string) => boolean;
  readonly #fixed: readonly (readonly [string, string])[];

  constructor(
    rules: { readonly own: readonly Rule[]; readonly isDefault: (tag: string) => boolean } = {
      own: [],
      isDefault: () => true,
    },
    fixed: readonly (readonly [string, string])[] = [],
  ) {
    const isRooted = ({ pattern }: Rule) => /^\^\w+(?:\\\.|\(\?=\\\.\)|\$$)/.test(pattern.source);
    this.#rooted = rules.own.filter(isRooted);
    this.#rootless = rules.own.filter((rule) => !isRooted(rule));
    this.#isDefault = rules.isDefault;
    this.#fixed = fixed;
  }

  extract(name: string): Tagged {
    const dot = name.indexOf(".");
    const root = dot < 0 ? name : name.slice(0, dot);
    const rooted = Object.hasOwn(RULES, root) ? RULES[root]! : RATE_LIMIT;
    const tags: [string, string][] = [];
    const cuts: (readonly [number, number])[] = [];
    const apply = ({ tag, pattern, except, read }: Rule) => {
      const match = pattern.exec(name);
      if (match === null || match[1] === undefined) return;
      // In a pattern with one group that group is both: what is taken out, and the value.
      const value = match[2] ?? match[1];
      if (value === except) return;
      tags.push([tag, read === undefined ? value : read(value)]);
      cuts.push(match.indices![1]!);
    };
    for (const rule of RESPONSE) if (this.#isDefault(rule.tag)) apply(rule);
    const worker = Object.hasOwn(WORKER, root) ? WORKER[root] : undefined;
    if (worker !== undefined && this.#isDefault(worker.tag)) apply(worker);
    for (const [tag, value] of this.#fixed) tags.push([tag, value]);
    for (const rule of this.#rootless) apply(rule);
    for (const rule of rooted) if (this.#isDefault(rule.tag)) apply(rule);
    for (const rule of this.#rooted) apply(rule);
    return { name: without(name, cuts), tags };
  }
}

/** Two rules may take the same part out. */
function without(name: string, cuts: (readonly [number, number])[]): string {
  let rest = "";
  let at = 0;
  for (const [from, to] of cuts.sort((a, b) => a[0] - b[0])) {
    if (from > at) rest += name.slice(at, from);
    at = Math.max(at, to);
  }
  return rest + name.slice(at);
}
