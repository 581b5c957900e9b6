import { formatAddress, parseIp } from "@tsproxy/sdk";

/** Makes the value of a filter state object from a text; undefined: the object cannot have this value. */
type Factory = (text: string) => string | undefined;

const text: Factory = (value) => value;

/** The texts that Envoy accepts as booleans (absl::SimpleAtob), in lower case. */
const BOOLEANS = new Map([
  ...["true", "t", "yes", "y", "1"].map((word) => [word, "true"] as const),
  ...["false", "f", "no", "n", "0"].map((word) => [word, "false"] as const),
]);

function number(max: bigint): Factory {
  return (value) => {
    const digits = /^\s*\+?(\d{1,20})\s*$/.exec(value)?.[1];
    if (digits === undefined) return undefined;
    const found = BigInt(digits);
    return found <= max ? String(found) : undefined;
  };
}
const UINT32 = number(2n ** 32n - 1n);
const UINT64 = number(2n ** 64n - 1n);

/** Accepts `ip:port`, with an IPv6 address in brackets. */
const address: Factory = (value) => {
  const [, ip4, ip6, port] = /^(?:([\d.]+)|\[([\da-f:.]+)\]):(\d{1,5})$/i.exec(value) ?? [];
  return addressOf(ip4 ?? ip6 ?? "", Number(port));
};

function addressOf(ip: string, port: number): string | undefined {
  const isAddress = parseIp(ip) !== undefined && port <= 65_535;
  return isAddress ? formatAddress({ ip, port }) : undefined;
}

/** Scripts cannot read this object: in Envoy it has no text. */
export const WITHOUT_TEXT = "envoy.network.application_protocols";

/** Envoy's object factories that `filterState():set()` supports. An object is stored as the text that `get()` returns. */
export const FACTORIES: ReadonlyMap<string, Factory> = new Map([
  ["envoy.string", text],
  ["envoy.hashable_string", text],
  ["envoy.bool", (value) => BOOLEANS.get(value.toLowerCase())],
  [WITHOUT_TEXT, text],
  ["envoy.network.ip", (value) => addressOf(value, 0)],
  ["envoy.network.network_namespace", text],
  ["envoy.network.transport_socket.original_dst_address", address],
  ["envoy.network.upstream_server_name", text],
  ["envoy.network.upstream_subject_alt_names", text],
  ["envoy.filters.listener.original_dst.local_ip", address],
  ["envoy.filters.listener.original_dst.remote_ip", address],
  ["envoy.ratelimit.hits_addend", UINT32],
  ["envoy.tcp_proxy.cluster", text],
  ["envoy.tcp_proxy.disable_tunneling", (value) => String(value === "true")],
  ["envoy.tcp_proxy.per_connection_idle_timeout_ms", UINT64],
  ["envoy.upstream.dynamic_host", text],
  ["envoy.upstream.dynamic_port", UINT32],
]);
