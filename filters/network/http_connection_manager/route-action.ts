import {
  ConfigError,
  compileRewrite,
  type Format,
  type FormatSource,
  type HeaderName,
  headerName,
  nameOf,
  ProxyHeader,
  type RequestHeaders,
  type RouteAction,
  type RoutePolicies,
  type SetupContext,
  type Termination,
  wireText,
} from "@tsproxy/sdk";
import {
  compileFormatAt,
  compilePathFormat,
  compilePathRewrite,
  type PathRewrite,
  rewritePath,
  setPath,
} from "./redirect.ts";
import type { RouteActionConfig } from "./route-config.ts";
import { type RouteMatch, withoutQuery } from "./route-match.ts";

const NOT_FOUND_STATUS = {
  SERVICE_UNAVAILABLE: 503,
  NOT_FOUND: 404,
  INTERNAL_SERVER_ERROR: 500,
} as const;
const ORIGINAL_HOST = headerName("x-envoy-original-host");
const FORWARDED_HOST = headerName("x-forwarded-host");

const NO_UPGRADES: ReadonlyMap<string, boolean> = new Map();

function terminationOf(upgrades: RouteActionConfig["upgrade_configs"]): Termination | undefined {
  const at = upgrades.findIndex(
    ({ upgrade_type, connect_config }) =>
      connect_config !== undefined && upgrade_type.toLowerCase() === "connect",
  );
  const config = upgrades[at]?.connect_config;
  if (config === undefined) return undefined;
  const { allow_post, proxy_protocol_config: header } = config;
  const place = `upgrade_configs[${at}].connect_config.proxy_protocol_config`;
  return { ofPost: allow_post, header: header && new ProxyHeader(header, place) };
}

/** What the clusters of one RouteAction share. */
class Forwarding {
  readonly clusterNotFoundStatus: number;
  readonly timeoutMs: number;
  readonly idleTimeoutMs: number | undefined;
  readonly upgrades: ReadonlyMap<string, boolean>;
  readonly termination: Termination | undefined;
  readonly autoHostRewrite: boolean;
  readonly policies: RoutePolicies | undefined;
  readonly #path: PathRewrite | undefined;
  readonly #pathFormat: Format | undefined;
  readonly #host: HostRewrite | undefined;
  readonly #appendsForwardedHost: boolean;

  constructor(
    config: RouteActionConfig,
    path: { readonly rewrite: PathRewrite | undefined; readonly format: Format | undefined },
    host: HostRewrite | undefined,
    policies: RoutePolicies | undefined,
  ) {
    this.clusterNotFoundStatus = NOT_FOUND_STATUS[config.cluster_not_found_response_code];
    this.timeoutMs = config.timeout;
    this.idleTimeoutMs = config.idle_timeout;
    const { upgrade_configs: upgrades } = config;
    this.termination = terminationOf(upgrades);
    this.upgrades =
      upgrades.length === 0
        ? NO_UPGRADES
        : new Map(upgrades.map((u) => [u.upgrade_type.toLowerCase(), u.enabled]));
    this.autoHostRewrite = config.auto_host_rewrite;
    this.policies = policies;
    this.#path = path.rewrite;
    this.#pathFormat = path.format;
    this.#host = host;
    this.#appendsForwardedHost = config.append_x_forwarded_host;
  }

  rewrite(headers: RequestHeaders, keepOriginals: boolean, source: FormatSource): void {
    const host = this.#host?.(headers, source) ?? "";
    if (host !== "") this.rewriteHost(headers, host, keepOriginals);
    if (this.#path !== undefined) rewritePath(this.#path, headers, keepOriginals);
    const path = this.#pathFormat?.format(source) ?? "";
    if (path !== "") setPath(headers, path, keepOriginals);
  }

  rewriteHost(headers: RequestHeaders, host: string, keepOriginal: boolean): void {
    const before = headers.authority ?? "";
    if (keepOriginal) headers.replace(ORIGINAL_HOST, before);
    if (this.#appendsForwardedHost && before !== "") {
      const hosts = headers.getAll(FORWARDED_HOST);
      // As in Envoy, the host is not appended if it is already the last one, so retries do not repeat it.
      if (hosts.join(",").split(",").at(-1) !== before)
        headers.replace(FORWARDED_HOST, [...hosts, before].join(","));
    }
    headers.authority = host;
  }
}

/** Envoy's RouteAction to one cluster. A route with weighted clusters has one for each. */
export class ForwardAction implements RouteAction {
  readonly type = "route" as const;
  readonly cluster: string | undefined;
  readonly #forwarding: Forwarding;

  constructor(forwarding: Forwarding, cluster: string | undefined) {
    this.cluster = cluster;
    this.#forwarding = forwarding;
  }

  /** The same action, to the named cluster. */
  to(cluster: string): ForwardAction {
    return new ForwardAction(this.#forwarding, cluster);
  }

  get clusterNotFoundStatus(): number {
    return this.#forwarding.clusterNotFoundStatus;
  }
  get timeoutMs(): number {
    return this.#forwarding.timeoutMs;
  }
  get idleTimeoutMs(): number | undefined {
    return this.#forwarding.idleTimeoutMs;
  }
  get termination(): Termination | undefined {
    return this.#forwarding.termination;
  }
  get upgrades(): ReadonlyMap<string, boolean> {
    return this.#forwarding.upgrades;
  }
  get autoHostRewrite(): boolean {
    return this.#forwarding.autoHostRewrite;
  }
  get policies(): RoutePolicies | undefined {
    return this.#forwarding.policies;
  }
  rewrite(headers: RequestHeaders, keepOriginals: boolean, source: FormatSource): void {
    this.#forwarding.rewrite(headers, keepOriginals, source);
  }
  rewriteHost(headers: RequestHeaders, host: string, keepOriginal: boolean): void {
    this.#forwarding.rewriteHost(headers, host, keepOriginal);
  }
}

/** Compiles a RouteAction without its cluster. */
export function compileForwardAction(
  config: RouteActionConfig,
  match: RouteMatch,
  path: string,
  cx: SetupContext,
  policies: RoutePolicies | undefined,
): ForwardAction {
  const rewrite = compilePathRewrite(config, match, path, cx);
  const format = compilePathFormat(config.path_rewrite, path);
  if (rewrite !== undefined && format !== undefined)
    throw new ConfigError(path, "give path_rewrite or another rewrite of the path, not both");
  const host = hostRewrite(config, path, cx);
  return new ForwardAction(new Forwarding(config, { rewrite, format }, host, policies), undefined);
}

/** Returns the new host; undefined or "": the host stays. */
type HostRewrite = (headers: RequestHeaders, source: FormatSource) => string | undefined;

function hostRewrite(
  config: RouteActionConfig,
  path: string,
  cx: SetupContext,
): HostRewrite | undefined {
  const forms = (
    [
      "host_rewrite",
      "host_rewrite_literal",
      "host_rewrite_header",
      "host_rewrite_path_regex",
    ] as const
  ).filter((form) => config[form] !== undefined && config[form] !== "");
  if (forms.length + (config.auto_host_rewrite ? 1 : 0) > 1) {
    throw new ConfigError(path, `give one of ${[...forms, "auto_host_rewrite"].join(" and ")}`);
  }
  if (config.host_rewrite !== undefined && config.host_rewrite !== "") {
    const options = { purpose: "header", missing: "-" } as const;
    const format = compileFormatAt(config.host_rewrite, options, `${path}.host_rewrite`);
    return (_headers, source) => format.format(source);
  }
  const literal = wireText(config.host_rewrite_literal ?? "", `${path}.host_rewrite_literal`);
  if (literal !== "") return () => literal;
  if (config.host_rewrite_header !== undefined && config.host_rewrite_header !== "") {
    const name: HeaderName = nameOf(config.host_rewrite_header, `${path}.host_rewrite_header`);
    return (headers) => headers.get(name);
  }
  if (config.host_rewrite_path_regex === undefined) return undefined;
  const rewrite = compileRewrite(
    config.host_rewrite_path_regex,
    `${path}.host_rewrite_path_regex`,
    cx,
  );
  return (headers) => rewrite(withoutQuery(headers.path));
}
