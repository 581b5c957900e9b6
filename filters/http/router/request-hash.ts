import { type HashPolicy, type HttpStream, requestCookie, xxHash64 } from "@tsproxy/sdk";

/** Envoy's hash of a request. Undefined: no policy found anything to hash. */
export function hashOf(
  policies: readonly HashPolicy[],
  stream: HttpStream,
  setCookies: string[],
): bigint | undefined {
  let hash: bigint | undefined;
  for (const policy of policies) {
    const one = hashBy(policy, stream, setCookies);
    if (one !== undefined) {
      // Turned by a bit, so that two equal parts do not wipe each other out.
      const before = hash === undefined ? 0n : BigInt.asUintN(64, (hash << 1n) | (hash >> 63n));
      hash = before ^ one;
    }
    if (policy.terminal && hash !== undefined) break;
  }
  return hash;
}

function hashBy(policy: HashPolicy, stream: HttpStream, setCookies: string[]): bigint | undefined {
  switch (policy.type) {
    case "header": {
      const values = policy.values(stream.request).map((value) => policy.rewrite(value));
      if (values.length === 0) return undefined;
      // The order of lines means nothing to Envoy: each hash is the seed of the next.
      return values.sort().reduce((seed, value) => xxHash64(value, seed), 0n);
    }
    case "cookie": {
      const value = requestCookie(stream.request, policy.name) ?? "";
      if (value !== "") return xxHash64(value);
      if (policy.ttlMs === undefined) return undefined;
      const made = cookieValue(stream);
      setCookies.push(setCookie(policy, policy.ttlMs, made));
      return xxHash64(made);
    }
    case "source_ip": {
      const { ip } = stream.info.downstreamRemoteAddress;
      return ip === "" ? undefined : xxHash64(ip);
    }
    case "filter_state": {
      const value = stream.filterState.get(policy.key);
      return typeof value === "string" ? xxHash64(value) : undefined;
    }
    case "query_parameter": {
      const value = queryParameter(stream.request.path, policy.name);
      return value === undefined ? undefined : xxHash64(value);
    }
  }
}

/** The same for all streams of a connection, so that requests which race on it get the same cookie. */
function cookieValue(stream: HttpStream): string {
  const { downstreamRemoteAddress: remote, downstreamLocalAddress: local } = stream.info;
  const text = [remote, local]
    .map(({ ip, port, path }) => path ?? (ip.includes(":") ? `[${ip}]:${port}` : `${ip}:${port}`))
    .join("");
  return xxHash64(text).toString(16).padStart(16, "0");
}

function setCookie(
  policy: Extract<HashPolicy, { readonly type: "cookie" }>,
  ttlMs: number,
  value: string,
): string {
  const parts = [`${policy.name}="${value}"`];
  const seconds = Math.floor(ttlMs / 1000);
  if (seconds > 0) parts.push(`Max-Age=${seconds}`);
  if (policy.path !== "") parts.push(`Path=${policy.path}`);
  for (const [name, text] of policy.attributes) parts.push(text === "" ? name : `${name}=${text}`);
  parts.push("HttpOnly");
  return parts.join("; ");
}

/** The first value of that name, decoded. */
function queryParameter(path: string, name: string): string | undefined {
  const at = path.indexOf("?");
  if (at < 0) return undefined;
  for (const pair of path.slice(at + 1).split("&")) {
    const equals = pair.indexOf("=");
    const key = equals < 0 ? pair : pair.slice(0, equals);
    if (percentDecoded(key) === name)
      return equals < 0 ? "" : percentDecoded(pair.slice(equals + 1));
  }
  return undefined;
}

/** Byte by byte, as header values are kept; what is no escape stays. */
function percentDecoded(text: string): string {
  return text.replace(/%([0-9a-fA-F]{2})/g, (_, hex) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
