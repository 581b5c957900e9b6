// Hot path: one lookup a stream. A table with a single `*` virtual host never looks at the host.
import {
  everyOf,
  type HeaderName,
  lateEntry,
  nameOf,
  type RequestHeaders,
  type SetupContext,
} from "@tsproxy/sdk";
import { DomainTable } from "./domain-table.ts";
import { portAt } from "./redirect.ts";
import type { ResolvedRoute } from "./route.ts";
import { RouteCompiler } from "./route-compiler.ts";
import type { RouteConfig } from "./route-config.ts";
import type { RouteSubject } from "./route-match.ts";
import type { Explanation, VirtualHost } from "./virtual-host.ts";

/** Envoy's RouteConfiguration, compiled. */
export class RouteTable {
  /** Headers that only internal clients may send, besides Envoy's own. */
  readonly internalOnlyHeaders: readonly HeaderName[];
  /** Some entry of `typed_per_filter_config` switches a filter off or on. */
  readonly switchesFilters: boolean;
  /** Every per-route config of a filter, with its path in the config. */
  readonly filterConfigs: ReadonlyMap<unknown, { readonly filter: string; readonly path: string }>;
  readonly #hosts = new DomainTable<VirtualHost>();
  readonly #virtualHosts: readonly VirtualHost[];
  readonly #ignorePort: boolean;
  readonly #vhostHeader: HeaderName | undefined;

  constructor(config: RouteConfig, path: string, cx: SetupContext) {
    const compiler = new RouteCompiler(config, path, cx);
    this.#ignorePort = config.ignore_port_in_host_matching;
    this.#vhostHeader =
      config.vhost_header === "" ? undefined : nameOf(config.vhost_header, `${path}.vhost_header`);
    this.internalOnlyHeaders = config.internal_only_headers.map((name, k) =>
      nameOf(name, `${path}.internal_only_headers[${k}]`),
    );
    this.#virtualHosts = everyOf(config.virtual_hosts.entries.keys(), (v) => {
      const at = `${path}.virtual_hosts[${v}]`;
      const virtualHost = lateEntry(config.virtual_hosts, v);
      const host = compiler.virtualHost(virtualHost, v, at);
      everyOf(virtualHost.domains, (domain, d) =>
        this.#hosts.add(domain, host, `${at}.domains[${d}]`, config.name),
      );
      return host;
    });
    this.switchesFilters = compiler.switchesFilters;
    this.filterConfigs = compiler.filterConfigs;
  }

  /** Labels of all routes, as `explain` uses them. */
  get labels(): readonly string[] {
    return this.#virtualHosts.flatMap((host) => host.labels);
  }

  find(subject: RouteSubject): ResolvedRoute | undefined {
    return this.#virtualHost(subject.request)?.find(subject);
  }

  /** The virtual host whose domain the request has; it may have no route for it. */
  virtualHostOf(headers: RequestHeaders): Pick<VirtualHost, "name" | "metadata"> | undefined {
    return this.#virtualHost(headers);
  }

  /** Finds the route as `find` does, and tells why. Undefined: no virtual host has the domain. */
  explain(subject: RouteSubject): (Explanation & { readonly virtualHost: string }) | undefined {
    const host = this.#virtualHost(subject.request);
    return host === undefined ? undefined : { ...host.explain(subject), virtualHost: host.name };
  }

  #virtualHost(headers: RequestHeaders): VirtualHost | undefined {
    if (this.#hosts.only !== undefined) return this.#hosts.only;
    const host = this.#hostOf(headers);
    return host === undefined ? undefined : this.#hosts.find(host);
  }

  /** Undefined: the request lacks the `vhost_header`. As in Envoy, no virtual host is for it then, not even that of `*`. */
  #hostOf(headers: RequestHeaders): string | undefined {
    const header = this.#vhostHeader;
    const named = header === undefined ? (headers.authority ?? "") : headers.get(header);
    const host = named?.toLowerCase();
    if (host === undefined) return undefined;
    const port = this.#ignorePort ? portAt(host) : -1;
    return port < 0 ? host : host.slice(0, port);
  }
}
