import { requestCookie, setCookieLine, wireCookie } from "./cookies.ts";
import { ConfigError, type SetupContext } from "./extension.ts";
import { filterStateText } from "./filter-state.ts";
import { headerReader, queryParameter } from "./header-match.ts";
import type { HttpStream, StreamInfo } from "./http.ts";
import { type Address, formatAddress } from "./network.ts";
import { compileRewrite, RegexRewrite } from "./regex-rewrite.ts";
import type { HashPolicy } from "./route.ts";
import { Duration, type Static, Type } from "./schema.ts";
import { xxHash64 } from "./xxhash64.ts";

/** Envoy's `route.v3.RouteAction.HashPolicy`. */
export const HashPolicyConfig = Type.Object({
  header: Type.Optional(
    Type.Object({
      header_name: Type.String({ minLength: 1 }),
      regex_rewrite: Type.Optional(RegexRewrite),
    }),
  ),
  cookie: Type.Optional(
    Type.Object({
      name: Type.String({ minLength: 1 }),
      ttl: Type.Optional(Duration()),
      path: Type.String({ default: "" }),
      attributes: Type.Array(
        Type.Object({
          name: Type.String({ minLength: 1 }),
          value: Type.String({ default: "" }),
        }),
        { default: [] },
      ),
    }),
  ),
  connection_properties: Type.Optional(
    Type.Object({ source_ip: Type.Boolean({ default: false }) }),
  ),
  query_parameter: Type.Optional(Type.Object({ name: Type.String({ minLength: 1 }) })),
  filter_state: Type.Optional(Type.Object({ key: Type.String({ minLength: 1 }) })),
  terminal: Type.Boolean({ default: false }),
});
export type HashPolicyConfig = Static<typeof HashPolicyConfig>;

/** Empty for `connection_properties` without `source_ip`. `path` is where the policy stands in the config. */
export function compileHashPolicy(
  config: HashPolicyConfig,
  path: string,
  cx: SetupContext,
): HashPolicy[] {
  const { header, cookie, connection_properties: connection, query_parameter: query } = config;
  const { terminal, filter_state: state } = config;
  const forms = [header, cookie, connection, query, state].filter((form) => form !== undefined);
  if (forms.length !== 1) {
    throw new ConfigError(
      path,
      "give one of header, cookie, connection_properties, query_parameter and filter_state",
    );
  }
  if (header !== undefined) {
    const at = `${path}.header`;
    const rewrite =
      header.regex_rewrite === undefined
        ? (value: string) => value
        : compileRewrite(header.regex_rewrite, `${at}.regex_rewrite`, cx);
    const values = headerReader(header.header_name, `${at}.header_name`);
    return [{ type: "header", values, rewrite, terminal }];
  }
  if (cookie !== undefined) {
    const { ttl: ttlMs } = cookie;
    return [{ type: "cookie", ...wireCookie(cookie, `${path}.cookie`), ttlMs, terminal }];
  }
  if (query !== undefined) return [{ type: "query_parameter", name: query.name, terminal }];
  if (state !== undefined) return [{ type: "filter_state", key: state.key, terminal }];
  return connection!.source_ip ? [{ type: "source_ip", terminal }] : [];
}

interface HashedStream {
  readonly request: HttpStream["request"];
  readonly info: Pick<StreamInfo, "downstreamRemoteAddress" | "downstreamLocalAddress">;
  readonly filterState?: ReadonlyMap<string, unknown> | undefined;
}

/** What a hash is made of: a request, or a TCP connection, of which only the client's address is known. */
export interface Hashed {
  readonly stream?: HashedStream | undefined;
  readonly downstream?: { readonly remoteAddress: Address } | undefined;
}

/**
 * Envoy's hash of a request. Undefined: no policy has found anything to hash. `giveCookie` is called with a `set-cookie` line for
 * the client.
 */
export function requestHash(
  policies: readonly HashPolicy[],
  asked: Hashed,
  giveCookie: (cookie: string) => void,
): bigint | undefined {
  let hash: bigint | undefined;
  for (const policy of policies) {
    const one = hashBy(policy, asked, giveCookie);
    if (one !== undefined) {
      // Rotated by one bit, so that two equal parts do not cancel each other out.
      const before = hash === undefined ? 0n : BigInt.asUintN(64, (hash << 1n) | (hash >> 63n));
      hash = before ^ one;
    }
    if (policy.terminal && hash !== undefined) break;
  }
  return hash;
}

function hashBy(
  policy: HashPolicy,
  { stream, downstream }: Hashed,
  giveCookie: (cookie: string) => void,
): bigint | undefined {
  if (policy.type === "source_ip") {
    const ip = (stream?.info.downstreamRemoteAddress ?? downstream?.remoteAddress)?.ip ?? "";
    return ip === "" ? undefined : xxHash64(ip);
  }
  if (stream === undefined) return undefined;
  switch (policy.type) {
    case "header": {
      const values = policy.values(stream.request).map((value) => policy.rewrite(value));
      if (values.length === 0) return undefined;
      // Sorted, since the order of lines does not matter to Envoy; each hash is the seed of the next.
      return values.sort().reduce((seed, value) => xxHash64(value, seed), 0n);
    }
    case "cookie": {
      const value = requestCookie(stream.request, policy.name) ?? "";
      if (value !== "") return xxHash64(value);
      if (policy.ttlMs === undefined) return undefined;
      const made = cookieValue(stream);
      giveCookie(setCookieLine(policy, made, Math.floor(policy.ttlMs / 1000)));
      return xxHash64(made);
    }
    case "filter_state": {
      const value = filterStateText(stream.filterState?.get(policy.key));
      return value === undefined ? undefined : xxHash64(value);
    }
    case "query_parameter": {
      const value = queryParameter(stream.request.path, policy.name);
      return value === undefined ? undefined : xxHash64(value);
    }
  }
}

/** The same for all streams of a connection, so that requests which race on it get the same cookie. */
function cookieValue(stream: HashedStream): string {
  const { downstreamRemoteAddress: remote, downstreamLocalAddress: local } = stream.info;
  const text = formatAddress(remote) + formatAddress(local);
  return xxHash64(text).toString(16).padStart(16, "0");
}
