import {
  type HttpStream,
  headerName,
  type InternalRedirectPolicy,
  type RequestHeaders,
  type ResponseHeaders,
} from "@tsproxy/sdk";
import type { RouterStats } from "./stats.ts";

const LOCATION = headerName("location");
const ORIGINAL_URL = headerName("x-envoy-original-url");
const CONTENT_LENGTH = headerName("content-length");
const TRANSFER_ENCODING = headerName("transfer-encoding");
const EXPECTED_TIMEOUT = headerName("x-envoy-expected-rq-timeout-ms");
const ATTEMPT_COUNT = headerName("x-envoy-attempt-count");

/** An internal redirect that is to be followed. */
export interface Turn {
  /** The request goes on as GET, without its body. */
  readonly dropsBody: boolean;
}

/**
 * Points the request to where the response's `location` says. Undefined: the policy or the location does not allow that; the head
 * is as it was, and the response goes to the client.
 */
export function redirectRequest(
  policy: InternalRedirectPolicy,
  stream: HttpStream,
  response: ResponseHeaders,
  stats: RouterStats,
): Turn | undefined {
  const headers = stream.request;
  const url = absoluteUrl(response.get(LOCATION) ?? "");
  if (url === undefined) {
    stats.redirectBadLocation.inc();
    return undefined;
  }
  // As in Envoy, a request on a connection without TLS counts as HTTP, whatever x-forwarded-proto has said of it.
  const tls = headers.scheme !== "http" && stream.downstreamConnection?.secure === true;
  const toTls = url.scheme !== "http";
  if (tls !== toTls && !policy.allowCrossScheme) {
    stats.redirectUnsafeScheme.inc();
    return undefined;
  }
  stream.internalRedirects ??= { count: 0, taken: new Set() };
  if (stream.internalRedirects.count >= policy.maxRedirects) {
    stats.redirectTooMany.inc();
    return undefined;
  }
  const before = new Before(headers, policy, tls);
  before.copyFrom(response);
  headers.scheme = url.scheme;
  headers.authority = url.host;
  headers.path = url.path;
  const from = stream.route?.name ?? "";
  stream.clearRoute();
  const refused = refusal(policy, stream, from, tls || !toTls, stats);
  if (refused) {
    before.restore();
    stream.clearRoute();
    return undefined;
  }
  stream.internalRedirects.count++;
  headers.set(ORIGINAL_URL, before.url);
  headers.remove(EXPECTED_TIMEOUT);
  headers.remove(ATTEMPT_COUNT);
  // RFC 9110 §15.4.4
  const dropsBody =
    response.status === 303 && headers.method !== "GET" && headers.method !== "HEAD";
  if (dropsBody) {
    headers.method = "GET";
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
  }
  return { dropsBody };
}

/** Whether the policy refuses the new route. `safe`: the redirect does not lead from HTTP to HTTPS (Envoy's safe_cross_scheme). */
function refusal(
  policy: InternalRedirectPolicy,
  stream: HttpStream,
  from: string,
  safe: boolean,
  stats: RouterStats,
): boolean {
  const { route } = stream;
  if (route === undefined) {
    stats.redirectNoRoute.inc();
    return true;
  }
  const { taken } = stream.internalRedirects!;
  for (const predicate of policy.predicates) {
    let accepts = true;
    if (predicate.type === "allow_listed_routes") accepts = predicate.routes.includes(route.name);
    else if (predicate.type === "safe_cross_scheme") accepts = safe;
    else {
      const step = `${from}\n${route.name}`;
      accepts = !taken.has(step);
      taken.add(step);
    }
    if (accepts) continue;
    stats.redirectPredicate.inc();
    return true;
  }
  return false;
}

/** The parts of a request head that a redirect changes, as they were before. */
class Before {
  readonly url: string;
  readonly #headers: RequestHeaders;
  readonly #policy: InternalRedirectPolicy;
  readonly #authority: string;
  readonly #path: string;
  readonly #scheme: string;
  readonly #copied: (readonly [name: string, values: readonly string[]])[] = [];

  constructor(headers: RequestHeaders, policy: InternalRedirectPolicy, tls: boolean) {
    this.#headers = headers;
    this.#policy = policy;
    this.#authority = headers.authority ?? "";
    this.#path = headers.path;
    this.#scheme = headers.scheme;
    this.url = `${tls ? "https" : "http"}://${this.#authority}${this.#path}`;
  }

  /** Copies headers from the response; those that the response lacks are removed from the request. */
  copyFrom(response: ResponseHeaders): void {
    const headers = this.#headers;
    for (const name of this.#policy.responseHeadersToCopy) {
      this.#copied.push([name.text, headers.getAll(name)]);
      headers.remove(name);
      for (const value of response.getAll(name)) headers.append(name, value);
    }
  }

  restore(): void {
    const headers = this.#headers;
    headers.authority = this.#authority;
    headers.path = this.#path;
    headers.scheme = this.#scheme;
    for (const [name, values] of this.#copied) {
      headers.remove(name);
      for (const value of values) headers.append(name, value);
    }
  }
}

/** An absolute URL as Envoy's parser reads it: no user in the host, no character but ASCII, no fragment without a path before it. */
const URL =
  /^([a-z]+):\/\/(?:[\w.!~*'()%;:&=+$,-]*@)?((?:[a-z\d.-]+|\[[\da-f:.]+(?:%[\w.~%-]+)?\])(?::(\d{1,9}))?)(?:([/?][!"$-~]*)(?:#[!-~]*)?)?$/i;

/** The parts of an absolute URL, without the fragment, which no request carries. Undefined: it is not one. */
function absoluteUrl(
  text: string,
): { readonly scheme: string; readonly host: string; readonly path: string } | undefined {
  const found = URL.exec(text);
  if (found === null || Number(found[3] ?? 0) > 65_535) return undefined;
  // As in Envoy, a path that is only a query stays one: no route but one for any path matches it.
  return { scheme: found[1]!.toLowerCase(), host: found[2]!, path: found[4] ?? "/" };
}
