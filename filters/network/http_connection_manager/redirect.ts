import {
  ConfigError,
  compileFormat,
  compileRewrite,
  type Format,
  type FormatOptions,
  type FormatSource,
  headerName,
  type RedirectAction,
  type RegexRewrite,
  type RequestHeaders,
  type SetupContext,
  wireText,
} from "@tsproxy/sdk";
import type { RedirectConfig } from "./route-config.ts";
import { type RouteMatch, withoutQuery } from "./route-match.ts";

const STATUS = {
  MOVED_PERMANENTLY: 301,
  FOUND: 302,
  SEE_OTHER: 303,
  TEMPORARY_REDIRECT: 307,
  PERMANENT_REDIRECT: 308,
} as const;

/** Envoy's RedirectAction: sends the client to another place, given as an absolute URI. */
export class Redirect implements RedirectAction {
  readonly type = "redirect" as const;
  readonly status: number;
  readonly #scheme: string;
  readonly #host: string;
  /** `:8443`; "": the port of the request stays. */
  readonly #port: string;
  /** The path of `path_redirect` or `path_rewrite`, whose query replaces that of the request. "": it has none. */
  readonly #newPath: (source: FormatSource) => string;
  readonly #stripQuery: boolean;
  readonly #path: PathRewrite | undefined;
  readonly rewrite: RedirectAction["rewrite"];

  constructor(config: RedirectConfig, match: RouteMatch, path: string, cx: SetupContext) {
    this.status = STATUS[config.response_code];
    const text = (field: "scheme_redirect" | "host_redirect" | "path_redirect") =>
      wireText(config[field] ?? "", `${path}.${field}`);
    this.#scheme = config.https_redirect === true ? "https" : text("scheme_redirect");
    this.#host = text("host_redirect");
    const port = config.port_redirect ?? 0;
    this.#port = port === 0 ? "" : `:${port}`;
    const fixed = text("path_redirect");
    const format = compilePathFormat(config.path_rewrite, path);
    this.#newPath = (source) => format?.format(source) ?? fixed;
    this.#stripQuery = config.strip_query;
    if (config.https_redirect !== undefined && config.scheme_redirect !== undefined) {
      throw new ConfigError(path, "give one of https_redirect and scheme_redirect");
    }
    const forms = (
      ["path_redirect", "path_rewrite", "prefix_rewrite", "regex_rewrite"] as const
    ).filter((form) => config[form] !== undefined && config[form] !== "");
    if (forms.length > 1) throw new ConfigError(path, `give one of ${forms.join(" and ")}`);
    const rewrite = compilePathRewrite(config, match, path, cx);
    this.#path = rewrite;
    this.rewrite =
      rewrite && ((headers, keepOriginal) => rewritePath(rewrite, headers, keepOriginal));
  }

  location(headers: RequestHeaders, source: FormatSource): string {
    const scheme = this.#scheme === "" ? headers.scheme : this.#scheme;
    const host = this.#host === "" ? requestHost(headers, scheme, this.#port !== "") : this.#host;
    const target = this.#target(headers, source);
    return `${scheme}://${host}${this.#port}${target.startsWith("/") ? "" : "/"}${target}`;
  }

  #target(headers: RequestHeaders, source: FormatSource): string {
    const path = headers.path;
    const plain = withoutQuery(path);
    const query = this.#stripQuery ? "" : path.slice(plain.length);
    const given = this.#newPath(source);
    // A query in a path that the config gives replaces that of the request, and strip_query does not remove it.
    if (given !== "") return given.includes("?") ? given : given + query;
    return (this.#path?.rewrite(plain) || plain) + query;
  }
}

/** The host of the request, without its port if the redirect sets one or leaves the scheme whose default the port was. */
function requestHost(headers: RequestHeaders, scheme: string, otherPort: boolean): string {
  const host = headers.authority ?? "";
  const at = portAt(host);
  if (at < 0) return host;
  const port = host.slice(at);
  const leavesScheme = scheme !== headers.scheme;
  const wasDefault =
    (headers.scheme === "https" && port === ":443") ||
    (headers.scheme === "http" && port === ":80");
  return otherPort || (leavesScheme && wasDefault) ? host.slice(0, at) : host;
}

/** Index of the colon before the port of `host:port`; -1: there is no port. */
export function portAt(host: string): number {
  if (host.startsWith("[")) {
    const at = host.lastIndexOf("]:");
    return at < 0 ? -1 : at + 1;
  }
  return host.lastIndexOf(":");
}

/** Sends a request that came without TLS to the same place with it (a virtual host's `require_tls`). */
export const httpsRedirect: RedirectAction = {
  type: "redirect",
  status: 301,
  location: (headers) => `https://${requestHost(headers, "https", false)}${headers.path}`,
};

/** Changes the path of a request; its query stays. */
export interface PathRewrite {
  /** `path` has no query. "" (a regex that removes all): the path stays as it is, as in Envoy. */
  rewrite(path: string): string;
}

/** Compiles a `path_rewrite`; undefined: there is none. A value that is missing is left out. */
export function compilePathFormat(text: string | undefined, path: string): Format | undefined {
  if (text === undefined || text === "") return undefined;
  return compileFormatAt(text, { purpose: "header" }, `${path}.path_rewrite`);
}

export function compileFormatAt(text: string, options: FormatOptions, path: string): Format {
  try {
    return compileFormat(text, options);
  } catch (error) {
    throw new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}

const ORIGINAL_PATH = headerName("x-envoy-original-path");

/** `keepOriginal`: the path that was there goes into x-envoy-original-path. */
export function rewritePath(to: PathRewrite, headers: RequestHeaders, keepOriginal: boolean): void {
  const plain = to.rewrite(withoutQuery(headers.path));
  if (plain !== "") setPath(headers, plain, keepOriginal);
}

/** Gives the request another path before its query, which stays. */
export function setPath(headers: RequestHeaders, plain: string, keepOriginal: boolean): void {
  const { path } = headers;
  if (keepOriginal) headers.replace(ORIGINAL_PATH, path);
  headers.path = plain + path.slice(withoutQuery(path).length);
}

/** Compiles the path rewrite of a route or redirect action; undefined: the path stays. */
export function compilePathRewrite(
  config: {
    readonly prefix_rewrite?: string | undefined;
    readonly regex_rewrite?: RegexRewrite | undefined;
    readonly path_rewrite_policy?:
      | { readonly typed_config: { readonly path_template_rewrite: string } }
      | undefined;
  },
  match: RouteMatch,
  path: string,
  cx: SetupContext,
): PathRewrite | undefined {
  const prefix = config.prefix_rewrite;
  if (config.path_rewrite_policy !== undefined) {
    if (config.regex_rewrite !== undefined || (prefix !== undefined && prefix !== "")) {
      throw new ConfigError(
        path,
        "give one of prefix_rewrite, regex_rewrite and path_rewrite_policy",
      );
    }
    const at = `${path}.path_rewrite_policy.typed_config.path_template_rewrite`;
    if (match.template === undefined) {
      throw new ConfigError(at, "needs the variables of a path_match_policy; the route has none");
    }
    const text = config.path_rewrite_policy.typed_config.path_template_rewrite;
    return { rewrite: match.template.compileRewrite(text, at, cx) };
  }
  if (config.regex_rewrite !== undefined) {
    if (prefix !== undefined && prefix !== "") {
      throw new ConfigError(path, "give one of prefix_rewrite and regex_rewrite");
    }
    const regex = compileRewrite(config.regex_rewrite, `${path}.regex_rewrite`, cx);
    return { rewrite: (text) => regex(text) };
  }
  if (prefix === undefined || prefix === "") return undefined;
  const text = wireText(prefix, `${path}.prefix_rewrite`);
  // After a prefix match only the prefix is replaced; the other forms have matched the whole path, and replace it.
  const whole = match.form !== "prefix" && match.form !== "path_separated_prefix";
  return { rewrite: (before) => (whole ? text : text + before.slice(match.text.length)) };
}
