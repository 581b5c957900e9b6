// Hot path: every request walks the routes of one virtual host until one matches.
import {
  type CompiledMatcher,
  compileHeaderMatch,
  type HeadMatch,
  headerName,
  type RequestHeaders,
  type SetupContext,
  type StatSet,
  type VirtualCluster,
} from "@tsproxy/sdk";
import type { ResolvedRoute } from "./route.ts";
import type { VirtualHostConfig } from "./route-config.ts";
import type { RouteMatch, RouteSubject } from "./route-match.ts";

const FORWARDED_PROTO = headerName("x-forwarded-proto");

/** A route of the config, and how it is resolved for one stream. */
export interface Choice {
  /** Its place in the config, and its name if it has one. */
  readonly label: string;
  readonly match: RouteMatch;
  route(subject: RouteSubject): ResolvedRoute | undefined;
}

/** Why a request takes its route. */
export interface Explanation {
  readonly route: ResolvedRoute | undefined;
  readonly label: string;
  /** Routes that were tried before, and why they did not match. */
  readonly skipped: readonly { readonly label: string; readonly why: string }[];
}

/** The compiled routes of a virtual host. */
export interface RouteSource {
  readonly routes: readonly Choice[];
  /** Used instead of `routes` if there is one: chooses a list of routes first. */
  readonly matcher: CompiledMatcher<readonly Choice[]> | undefined;
}

export class VirtualHost {
  readonly name: string;
  /** `metadata.filter_metadata` */
  readonly metadata: Readonly<Record<string, unknown>> | undefined;
  #made: RouteSource | undefined = undefined;
  readonly #make: () => RouteSource;
  readonly #requireTls: VirtualHostConfig["require_tls"];
  readonly #toTls: ResolvedRoute;

  /** `make` is called once, when the routes are first needed. */
  constructor(config: VirtualHostConfig, make: () => RouteSource, toTls: ResolvedRoute) {
    this.name = config.name;
    this.metadata = config.metadata?.filter_metadata;
    this.#make = make;
    this.#requireTls = config.require_tls;
    this.#toTls = toTls;
  }

  get #source(): RouteSource {
    this.#made ??= this.#make();
    return this.#made;
  }

  /** Labels of the routes in `routes`; those in a matcher have none. */
  get labels(): readonly string[] {
    return this.#source.routes.map((route) => `${this.name} ${route.label}`);
  }

  find(subject: RouteSubject): ResolvedRoute | undefined {
    if (this.#requireTls !== "NONE" && this.#wantsTls(subject)) return this.#toTls;
    const source = this.#source;
    const { matcher } = source;
    const routes = matcher === undefined ? source.routes : matcher.match(subject);
    if (routes === undefined) return undefined;
    for (let k = 0; k < routes.length; k++) {
      const choice = routes[k]!;
      if (!choice.match.matches(subject)) continue;
      const route = choice.route(subject);
      if (route !== undefined) return route;
    }
    return undefined;
  }

  /** Finds the route as `find` does, and tells why. */
  explain(subject: RouteSubject): Explanation {
    if (this.#requireTls !== "NONE" && this.#wantsTls(subject)) {
      return { route: this.#toTls, label: `require_tls: ${this.#requireTls}`, skipped: [] };
    }
    const source = this.#source;
    const { matcher } = source;
    const routes = matcher === undefined ? source.routes : matcher.match(subject);
    const skipped: { readonly label: string; readonly why: string }[] = [];
    if (routes === undefined) skipped.push({ label: "matcher", why: "no entry of it matches" });
    for (const choice of routes ?? []) {
      const why = choice.match.mismatch(subject);
      const route = why === undefined ? choice.route(subject) : undefined;
      if (route !== undefined) return { route, label: `${this.name} ${choice.label}`, skipped };
      skipped.push({ label: choice.label, why: why ?? "all its clusters have weight 0 by now" });
    }
    return { route: undefined, label: "", skipped };
  }

  #wantsTls(subject: RouteSubject): boolean {
    // Envoy's measure; a client may write any `:scheme` over HTTP/2.
    if (subject.request.get(FORWARDED_PROTO) === "https") return false;
    return this.#requireTls === "ALL" || !subject.internal;
  }
}

/** Counters of a virtual cluster, or of a route with a `stat_prefix`, that exist before its first request. */
export const LISTED: StatSet = {
  counters: [
    "retry",
    "retry_limit_exceeded",
    "retry_overflow",
    "retry_success",
    "timeout",
    "total",
  ].map((name) => `upstream_rq_${name}`),
  gauges: [],
  histograms: [],
};

/** The virtual clusters of a virtual host, which count kinds of requests: `vhost.<name>.vcluster.<name>.`. */
export class VirtualClusters {
  readonly #entries: readonly {
    readonly conditions: readonly HeadMatch[];
    readonly cluster: VirtualCluster;
  }[];
  /** For requests that match none of the entries. */
  readonly #other: VirtualCluster;

  constructor(config: VirtualHostConfig, path: string, cx: SetupContext) {
    const named = (name: string): VirtualCluster => {
      const stats = cx.stats.scope(`vhost.${config.name}.vcluster.${name}.`);
      stats.list?.(LISTED);
      return { name, stats };
    };
    this.#entries = config.virtual_clusters.map((entry, k) => ({
      conditions: entry.headers.map((header, h) =>
        compileHeaderMatch(header, `${path}.virtual_clusters[${k}].headers[${h}]`, cx),
      ),
      cluster: named(entry.name),
    }));
    this.#other = named("other");
  }

  of(headers: RequestHeaders): VirtualCluster {
    for (const { conditions, cluster } of this.#entries) {
      if (conditions.every((condition) => condition.matches(headers))) return cluster;
    }
    return this.#other;
  }
}
