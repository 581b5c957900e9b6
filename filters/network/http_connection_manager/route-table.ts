// Hot path: one lookup a stream. A table with a single `*` virtual host never looks at the host.
import {
  ConfigError,
  compileHeaderRules,
  type HeaderName,
  type HeaderRules,
  type HeaderRulesConfig,
  nameOf,
  type RequestHeaders,
  type Route,
  type RouteAction,
  type RoutePolicies,
  type SetupContext,
} from "@tsproxy/sdk";
import { compilePolicies } from "./policies.ts";
import type { Metadata } from "./policies-config.ts";
import { httpsRedirect, portAt, Redirect } from "./redirect.ts";
import { mergeOverrides, ResolvedRoute, type RouteLevels } from "./route.ts";
import { compileForwardAction, type ForwardAction } from "./route-action.ts";
import type {
  RouteActionConfig,
  RouteConfig,
  RouteEntry,
  VirtualHostConfig,
  WeightedCluster,
} from "./route-config.ts";
import { type Chance, RouteMatch } from "./route-match.ts";

/** Envoy's RouteConfiguration, compiled. */
export class RouteTable {
  /** Names that only internal clients may send, beside Envoy's own. */
  readonly internalOnlyHeaders: readonly HeaderName[];
  /** Some entry of `typed_per_filter_config` switches a filter off or on. */
  readonly switchesFilters: boolean;
  /** Every per-route config of a filter, and where it stands. */
  readonly filterConfigs: ReadonlyMap<unknown, { readonly filter: string; readonly path: string }>;
  readonly #hosts: DomainTable;
  readonly #ignorePort: boolean;

  constructor(config: RouteConfig, path: string, cx: SetupContext) {
    const compiler = new Compiler(config, cx);
    this.#hosts = new DomainTable();
    this.#ignorePort = config.ignore_port_in_host_matching;
    this.internalOnlyHeaders = config.internal_only_headers.map((name, k) =>
      nameOf(name, `${path}.internal_only_headers[${k}]`),
    );
    for (const [v, virtualHost] of config.virtual_hosts.entries()) {
      const at = `${path}.virtual_hosts[${v}]`;
      const host = compiler.virtualHost(virtualHost, at, path);
      for (const [d, domain] of virtualHost.domains.entries()) {
        this.#hosts.add(domain, host, `${at}.domains[${d}]`, config.name);
      }
    }
    this.switchesFilters = compiler.switchesFilters;
    this.filterConfigs = compiler.filterConfigs;
  }

  /** `internal`: the client is one of ours (`require_tls: EXTERNAL_ONLY`). */
  find(headers: RequestHeaders, chance: Chance, internal: boolean): ResolvedRoute | undefined {
    const host = this.#hosts.only ?? this.#hosts.find(this.#hostOf(headers));
    return host?.find(headers, chance, internal);
  }

  #hostOf(headers: RequestHeaders): string {
    const host = (headers.authority ?? "").toLowerCase();
    const port = this.#ignorePort ? portAt(host) : -1;
    return port < 0 ? host : host.slice(0, port);
  }
}

/** Host name -> virtual host: exact, then `*.suffix`, then `prefix.*`, the longest first; then `*`. */
class DomainTable {
  readonly #exact = new Map<string, VirtualHost>();
  readonly #suffixes = new Wildcards();
  readonly #prefixes = new Wildcards();
  #any: VirtualHost | undefined = undefined;

  add(domain: string, host: VirtualHost, path: string, table: string): void {
    const lower = domain.toLowerCase();
    const key = lower.startsWith("*") ? lower.slice(1) : lower.slice(0, -1);
    const known =
      lower === "*"
        ? this.#any !== undefined
        : lower.startsWith("*")
          ? this.#suffixes.has(key)
          : lower.endsWith("*")
            ? this.#prefixes.has(key)
            : this.#exact.has(lower);
    if (known) {
      throw new ConfigError(
        path,
        lower === "*"
          ? `only one virtual host of route table "${table}" may have the domain "*"`
          : `domain "${domain}" is in route table "${table}" already; each may stand there once`,
      );
    }
    if (lower === "*") this.#any = host;
    else if (lower.startsWith("*")) this.#suffixes.add(key, host);
    else if (lower.endsWith("*")) this.#prefixes.add(key, host);
    else this.#exact.set(lower, host);
  }

  /** The virtual host of every request, if there is nothing to choose. */
  get only(): VirtualHost | undefined {
    const choice = this.#exact.size + this.#suffixes.size + this.#prefixes.size;
    return choice === 0 ? this.#any : undefined;
  }

  find(name: string): VirtualHost | undefined {
    return (
      this.#exact.get(name) ??
      this.#suffixes.find(name, (length) => name.slice(-length)) ??
      this.#prefixes.find(name, (length) => name.slice(0, length)) ??
      this.#any
    );
  }
}

class Wildcards {
  readonly #hosts = new Map<string, VirtualHost>();
  /** Lengths of the texts beside the star, longest first. */
  #lengths: number[] = [];

  get size(): number {
    return this.#hosts.size;
  }
  has(text: string): boolean {
    return this.#hosts.has(text);
  }
  add(text: string, host: VirtualHost): void {
    this.#hosts.set(text, host);
    this.#lengths = [...new Set([...this.#lengths, text.length])].sort((a, b) => b - a);
  }
  find(name: string, part: (length: number) => string): VirtualHost | undefined {
    for (const length of this.#lengths) {
      // The star stands for one character at least.
      const host = name.length > length ? this.#hosts.get(part(length)) : undefined;
      if (host !== undefined) return host;
    }
    return undefined;
  }
}

class VirtualHost {
  readonly #routes: readonly Choice[];
  readonly #requireTls: VirtualHostConfig["require_tls"];
  readonly #toTls: ResolvedRoute;

  constructor(
    routes: readonly Choice[],
    requireTls: VirtualHostConfig["require_tls"],
    toTls: ResolvedRoute,
  ) {
    this.#routes = routes;
    this.#requireTls = requireTls;
    this.#toTls = toTls;
  }

  find(headers: RequestHeaders, chance: Chance, internal: boolean): ResolvedRoute | undefined {
    if (this.#requireTls !== "NONE" && headers.scheme !== "https") {
      if (this.#requireTls === "ALL" || !internal) return this.#toTls;
    }
    const routes = this.#routes;
    for (let k = 0; k < routes.length; k++) {
      const choice = routes[k]!;
      if (choice.match.matches(headers, chance)) return choice.route(headers, chance);
    }
    return undefined;
  }
}

/** A route of the config, and what it comes to for one stream. */
interface Choice {
  readonly match: RouteMatch;
  route(headers: RequestHeaders, chance: Chance): ResolvedRoute | undefined;
}

/** Turns the config of a table into routes; knows the levels above them. */
class Compiler {
  switchesFilters = false;
  readonly filterConfigs = new Map<unknown, { readonly filter: string; readonly path: string }>();
  readonly #config: RouteConfig;
  readonly #cx: SetupContext;

  constructor(config: RouteConfig, cx: SetupContext) {
    this.#config = config;
    this.#cx = cx;
  }

  virtualHost(config: VirtualHostConfig, path: string, tablePath: string): VirtualHost {
    const outer = [
      { config, path },
      { config: this.#config, path: tablePath },
    ];
    const routes = config.routes.map((route, r) =>
      this.#choice(route, config, outer, `${path}.routes[${r}]`),
    );
    const names = { route: "", virtualHost: config.name };
    const none: RouteLevels = { request: [], response: [], filters: new Map() };
    return new VirtualHost(
      routes,
      config.require_tls,
      new ResolvedRoute(names, httpsRedirect, none),
    );
  }

  #choice(entry: RouteEntry, virtualHost: VirtualHostConfig, outer: Level[], path: string): Choice {
    const match = new RouteMatch(entry.match, `${path}.match`, this.#cx);
    const levels = [{ config: entry, path }, ...outer];
    const names = { route: entry.name, virtualHost: virtualHost.name };
    const resolve = (action: Route["action"], inner: Level[] = []) =>
      new ResolvedRoute(
        names,
        action,
        this.#levels([...inner, ...levels]),
        entry.metadata?.filter_metadata,
      );
    const { route, redirect, direct_response: direct } = entry;
    if ([route, redirect, direct].filter((action) => action !== undefined).length !== 1) {
      throw new ConfigError(path, "give one of route, redirect and direct_response");
    }
    if (redirect !== undefined) {
      return fixed(match, resolve(new Redirect(redirect, match, `${path}.redirect`, this.#cx)));
    }
    if (direct !== undefined) {
      const body = direct.body?.inline_string ?? "";
      const max = this.#config.max_direct_response_body_size_bytes;
      if (body.length > max) {
        throw new ConfigError(
          `${path}.direct_response.body.inline_string`,
          `has ${body.length} bytes; raise max_direct_response_body_size_bytes, now ${max}`,
        );
      }
      return fixed(match, resolve({ type: "direct_response", status: direct.status, body }));
    }
    const policies = (weighted?: Metadata) =>
      compilePolicies(
        { action: route!, entry, virtualHost, table: this.#config },
        { action: `${path}.route`, virtualHost: outer[0]!.path, table: outer[1]!.path },
        this.#cx,
        weighted,
      );
    return this.#forward(match, route!, resolve, policies, `${path}.route`);
  }

  #forward(
    match: RouteMatch,
    action: RouteActionConfig,
    resolve: (action: RouteAction, inner?: Level[]) => ResolvedRoute,
    policies: (weighted?: Metadata) => RoutePolicies | undefined,
    path: string,
  ): Choice {
    const forms = (["cluster", "cluster_header", "weighted_clusters"] as const).filter(
      (form) => action[form] !== undefined,
    );
    if (forms.length !== 1) {
      throw new ConfigError(path, "give one of cluster, cluster_header and weighted_clusters");
    }
    const forward = (entry?: WeightedCluster) =>
      compileForwardAction(action, match, path, this.#cx, policies(entry?.metadata_match), {
        hostLiteral: entry?.host_rewrite_literal,
      });
    if (action.cluster !== undefined) {
      this.#checkCluster(action.cluster, `${path}.cluster`);
      return fixed(match, resolve(forward().to(action.cluster)));
    }
    if (action.cluster_header !== undefined) {
      const header = nameOf(action.cluster_header, `${path}.cluster_header`);
      const unnamed = forward();
      return byHeader(match, header, resolve(unnamed), unnamed);
    }
    const at = `${path}.weighted_clusters.clusters`;
    const entries = action.weighted_clusters!.clusters.map((entry, k) => ({
      weight: entry.weight,
      choice: this.#weightedEntry(entry, match, forward, resolve, `${at}[${k}]`),
    }));
    return weighted(match, entries, `${path}.weighted_clusters`);
  }

  #weightedEntry(
    entry: WeightedCluster,
    match: RouteMatch,
    forward: (entry: WeightedCluster) => ForwardAction,
    resolve: (action: RouteAction, inner: Level[]) => ResolvedRoute,
    path: string,
  ): Choice {
    const inner = [{ config: entry, path }];
    const action = forward(entry);
    const { name = "", cluster_header: header = "" } = entry;
    if ((name === "") === (header === "")) {
      throw new ConfigError(path, "give one of name and cluster_header");
    }
    if (name !== "") {
      this.#checkCluster(name, `${path}.name`);
      return fixed(match, resolve(action.to(name), inner));
    }
    const headerName = nameOf(header, `${path}.cluster_header`);
    return byHeader(match, headerName, resolve(action, inner), action);
  }

  #checkCluster(name: string, path: string): void {
    if (!this.#config.validate_clusters || this.#cx.clusters.get(name) !== undefined) return;
    throw new ConfigError(
      path,
      `unknown cluster "${name}"; add it to static_resources.clusters, or set validate_clusters: false`,
    );
  }

  /** From the most specific level outwards. */
  #levels(levels: readonly Level[]): RouteLevels {
    const outermostFirst = [...levels].reverse();
    const ordered = this.#config.most_specific_header_mutations_wins ? outermostFirst : levels;
    const rules = (direction: "request" | "response") =>
      ordered
        .map((level) => compileHeaderRules(level.config, direction, level.path))
        .filter((rules): rules is HeaderRules => rules !== undefined);
    for (const { config, path } of levels) {
      for (const [name, ref] of Object.entries(config.typed_per_filter_config ?? {})) {
        if (ref.config === undefined) continue;
        const at = `${path}.typed_per_filter_config[${JSON.stringify(name)}]`;
        this.filterConfigs.set(ref.config, { filter: name, path: at });
      }
    }
    const filters = mergeOverrides(outermostFirst.map((l) => l.config.typed_per_filter_config));
    for (const override of filters.values()) {
      if (override.disabled !== undefined) this.switchesFilters = true;
    }
    return { request: rules("request"), response: rules("response"), filters };
  }
}

interface Level {
  readonly config: HeaderRulesConfig & Pick<WeightedCluster, "typed_per_filter_config">;
  readonly path: string;
}

const fixed = (match: RouteMatch, route: ResolvedRoute): Choice => ({ match, route: () => route });

function byHeader(
  match: RouteMatch,
  header: HeaderName,
  unnamed: ResolvedRoute,
  action: ForwardAction,
): Choice {
  return {
    match,
    route: (headers) => {
      const name = headers.get(header);
      return name === undefined || name === "" ? unnamed : unnamed.withAction(action.to(name));
    },
  };
}

function weighted(
  match: RouteMatch,
  entries: readonly { readonly weight: number; readonly choice: Choice }[],
  path: string,
): Choice {
  const total = entries.reduce((sum, entry) => sum + entry.weight, 0);
  if (total === 0)
    throw new ConfigError(path, "the weights are 0 in sum; give one cluster a weight");
  if (total > 0xffff_ffff)
    throw new ConfigError(path, `the weights are ${total} in sum, above 4294967295`);
  return {
    match,
    route: (headers, chance) => {
      let left = chance.random % total;
      for (const entry of entries) {
        if (left < entry.weight) return entry.choice.route(headers, chance);
        left -= entry.weight;
      }
      return undefined;
    },
  };
}
