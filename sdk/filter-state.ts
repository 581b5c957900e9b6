import type { HttpStream } from "./http.ts";
import { parseIp } from "./ip.ts";
import { type Address, formatAddress } from "./network.ts";

/**
 * Keys of filter state under which Envoy's own parts look for values. The objects may stand under any key; these are read under
 * these names only.
 */
export const STATE = {
  /** SNI towards the upstream, in place of what the cluster says. */
  UPSTREAM_SERVER_NAME: "envoy.network.upstream_server_name",
  /** Names of which the upstream's certificate must have one, separated by commas. */
  UPSTREAM_SUBJECT_ALT_NAMES: "envoy.network.upstream_subject_alt_names",
  /** Where clusters of the type ORIGINAL_DST connect to. */
  ORIGINAL_DST_ADDRESS: "envoy.network.transport_socket.original_dst_address",
  /** The host that clusters of the type dynamic_forward_proxy connect to, in place of the one that the request names. */
  DYNAMIC_HOST: "envoy.upstream.dynamic_host",
  /** Its port, if the host is named without one. */
  DYNAMIC_PORT: "envoy.upstream.dynamic_port",
  TCP_PROXY_CLUSTER: "envoy.tcp_proxy.cluster",
  TCP_PROXY_DISABLE_TUNNELING: "envoy.tcp_proxy.disable_tunneling",
  TCP_PROXY_IDLE_TIMEOUT_MS: "envoy.tcp_proxy.per_connection_idle_timeout_ms",
} as const;

/** An object of Envoy's that has a text and no JSON: `%FILTER_STATE(key:PLAIN)%` writes it, the other forms do not. */
class PlainObject {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }
  toString(): string {
    return this.#text;
  }
  toJSON(): undefined {}
}

/** An object with neither text nor JSON: it is there, and only its readers know what it holds. */
class SilentObject {
  toJSON(): undefined {}
}

/** Makes the value of a filter state object from a text; undefined: the object cannot have this value. */
type Factory = (text: string) => string | number | boolean | object | undefined;

const text: Factory = (value) => value;
const plain: Factory = (value) => new PlainObject(value);

/** The texts that Envoy accepts as booleans (absl::SimpleAtob), in lower case. */
const BOOLEANS = new Map([
  ...["true", "t", "yes", "y", "1"].map((word) => [word, true] as const),
  ...["false", "f", "no", "n", "0"].map((word) => [word, false] as const),
]);

function integer(value: string, max: bigint): bigint | undefined {
  const digits = /^\s*\+?(\d{1,20})\s*$/.exec(value)?.[1];
  if (digits === undefined || BigInt(digits) > max) return undefined;
  return BigInt(digits);
}
const uint32: Factory = (value) => {
  const found = integer(value, 2n ** 32n - 1n);
  return found === undefined ? undefined : Number(found);
};
/** A text, as 64-bit numbers are in JSON. */
const uint64: Factory = (value) => integer(value, 2n ** 64n - 1n)?.toString();

/** Reads `ip:port`, with an IPv6 address in brackets. */
export function parseIpPort(value: string): Address | undefined {
  const [, ip4, ip6, port] = /^(?:([\d.]+)|\[([\da-f:.]+)\]):(\d{1,5})$/i.exec(value) ?? [];
  const ip = ip4 ?? ip6 ?? "";
  return parseIp(ip) !== undefined && Number(port) <= 65_535
    ? { ip, port: Number(port) }
    : undefined;
}
const address: Factory = (value) => {
  const found = parseIpPort(value);
  return found && new PlainObject(formatAddress(found));
};
const ip: Factory = (value) =>
  parseIp(value) && new PlainObject(formatAddress({ ip: value, port: 0 }));

/** Envoy's object factories whose objects have a reader here, or are for logs, matchers and filters. */
const FACTORIES: ReadonlyMap<string, Factory> = new Map<string, Factory>([
  ["envoy.string", text],
  ["envoy.hashable_string", text],
  ["envoy.bool", (value) => BOOLEANS.get(value.toLowerCase())],
  ["envoy.network.application_protocols", () => new SilentObject()],
  ["envoy.network.ip", ip],
  ["envoy.network.network_namespace", plain],
  [STATE.ORIGINAL_DST_ADDRESS, address],
  [STATE.UPSTREAM_SERVER_NAME, plain],
  [STATE.UPSTREAM_SUBJECT_ALT_NAMES, plain],
  ["envoy.filters.listener.original_dst.local_ip", address],
  ["envoy.filters.listener.original_dst.remote_ip", address],
  ["envoy.ratelimit.hits_addend", uint32],
  [STATE.TCP_PROXY_CLUSTER, plain],
  [STATE.TCP_PROXY_DISABLE_TUNNELING, (value) => value === "true"],
  [STATE.TCP_PROXY_IDLE_TIMEOUT_MS, uint64],
  [STATE.DYNAMIC_HOST, text],
  [STATE.DYNAMIC_PORT, uint32],
]);

/** Undefined: Envoy has no such factory. */
export function filterStateFactory(name: string): Factory | undefined {
  return FACTORIES.get(name);
}

/** The text of an object of filter state; undefined: there is none. Matchers, hashes and Lua see this. */
export function filterStateText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value !== "object" || value === null) return undefined;
  // JSON that a filter keeps may have a field of that name, which is no method.
  const { toString: print } = value;
  const isOwn = typeof print === "function" && print !== Object.prototype.toString;
  return isOwn && !Array.isArray(value) ? String(value) : undefined;
}

/** Sets an object of a stream. One that a network filter has set for the connection stays, as in Envoy. */
export function setStreamState(
  { filterState, downstreamConnection }: Pick<HttpStream, "filterState" | "downstreamConnection">,
  key: string,
  value: unknown,
): void {
  if (downstreamConnection?.filterState?.has(key) !== true) filterState.set(key, value);
}
