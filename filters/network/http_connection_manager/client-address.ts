import {
  type Address,
  CidrRanges,
  ConfigError,
  type DownstreamConnection,
  formatIp,
  headerName,
  isLoopback,
  parseIp,
  type RequestHeaders,
  readInternalAddress,
} from "@tsproxy/sdk";
import { compileDetector, type Detected, type Detector } from "./client-detection.ts";
import type { Config } from "./config.ts";

const FORWARDED_FOR = headerName("x-forwarded-for");

/** What is internal by an `internal_address_config` that names no ranges, as in Envoy (RFC 1918, RFC 4193, loopback). */
const PRIVATE = [
  { address_prefix: "10.0.0.0", prefix_len: 8 },
  { address_prefix: "172.16.0.0", prefix_len: 12 },
  { address_prefix: "192.168.0.0", prefix_len: 16 },
  { address_prefix: "127.0.0.1", prefix_len: 32 },
  { address_prefix: "fd00::", prefix_len: 8 },
  { address_prefix: "::1", prefix_len: 128 },
];

/** The client that sent a request, as far as this can be trusted. */
export interface Client {
  readonly address: Address;
  /** An internal client: its `x-envoy-` headers are obeyed. */
  readonly internal: boolean;
}

/** Finds the client of a request, and what x-forwarded-for says of it. */
export class ClientAddress {
  readonly #atEdge: boolean;
  readonly #hops: number;
  readonly #append: boolean;
  readonly #ranges: CidrRanges;
  readonly #unixIsInternal: boolean;
  readonly #ownAddress: string | undefined;
  readonly #maps: boolean;
  readonly #detectors: readonly Detector[];

  constructor(config: Config, ownAddress: string | undefined) {
    this.#atEdge = config.use_remote_address;
    this.#hops = config.xff_num_trusted_hops;
    this.#append = config.use_remote_address && !config.skip_xff_append;
    const internal = config.internal_address_config;
    const ranges = internal?.cidr_ranges ?? [];
    this.#ranges = new CidrRanges(
      internal !== undefined && ranges.length === 0 ? PRIVATE : ranges,
      "internal_address_config.cidr_ranges",
    );
    this.#unixIsInternal = internal?.unix_sockets ?? false;
    this.#ownAddress = ownAddress;
    this.#maps = config.represent_ipv4_remote_address_as_ipv4_mapped_ipv6;
    const { original_ip_detection_extensions: extensions } = config;
    if (extensions.length > 0 && (this.#atEdge || this.#hops > 0)) {
      throw new ConfigError(
        "original_ip_detection_extensions",
        "cannot stand beside use_remote_address or xff_num_trusted_hops",
      );
    }
    this.#detectors = extensions.map((each, k) =>
      compileDetector(each, `original_ip_detection_extensions[${k}]`, (ip) =>
        this.#ranges.contains(ip),
      ),
    );
  }

  /** The client of requests without x-forwarded-for, which is the peer. Computed once a connection. */
  direct(connection: DownstreamConnection): Client {
    const address = connection.remoteAddress;
    return { address, internal: this.#atEdge && this.#isInternal(address) };
  }

  /** The entry that is appended to x-forwarded-for for this peer; "": none. */
  forwardedFor(connection: DownstreamConnection): string {
    const { ip, path } = connection.remoteAddress;
    if (!this.#append || path !== undefined) return "";
    const bytes = parseIp(ip);
    // A client on this machine is known to other machines by this machine's address.
    const local = bytes !== undefined && isLoopback(bytes);
    if (local) return this.#ownAddress ?? ip;
    return this.#maps && bytes?.length === 4 ? `::ffff:${ip}` : ip;
  }

  /** The peer's address as other machines know it. */
  textOf(address: Address): string {
    const bytes = parseIp(address.ip);
    return bytes !== undefined && isLoopback(bytes) ? (this.#ownAddress ?? address.ip) : address.ip;
  }

  /** Whether extensions find the client (`original_ip_detection_extensions`), instead of the options for x-forwarded-for. */
  get detects(): boolean {
    return this.#detectors.length > 0;
  }

  /** Asks the extensions in order. Returns a refusal or the client; `appends`: the caller appends the peer to x-forwarded-for. */
  detect(headers: RequestHeaders, direct: Client): Detected & { readonly client: Client } {
    let last: Detected | undefined;
    for (const detector of this.#detectors) {
      last = detector(headers, direct);
      if (last.client !== undefined || last.refusal !== undefined) break;
    }
    const client = last?.client ?? { address: direct.address, internal: false };
    return { appends: false, ...last, client };
  }

  /** The client of a request with x-forwarded-for. */
  behind(headers: RequestHeaders, direct: Client): Client {
    const external = { address: direct.address, internal: false };
    const lines = headers.getAll(FORWARDED_FOR);
    const entries = lines.join(",");
    if (lines.length > 1) headers.set(FORWARDED_FOR, entries);
    if (this.#atEdge && this.#hops === 0) return external;
    // The entry that the last trusted hop has appended. At the edge the peer counts as one of `hops`, elsewhere it does not.
    const entry = fromTheRight(entries, this.#atEdge ? this.#hops : this.#hops + 1);
    const bytes = entry === undefined ? undefined : parseIp(entry);
    if (bytes === undefined) return external;
    const address = { ip: formatIp(bytes), port: 0 };
    const alone = !entries.includes(",");
    return { address, internal: !this.#atEdge && alone && this.#ranges.contains(bytes) };
  }

  #isInternal(address: Address): boolean {
    if (address.path !== undefined)
      return this.#unixIsInternal && readInternalAddress(address) === undefined;
    if (this.#ranges.empty) return false;
    const bytes = parseIp(address.ip);
    return bytes !== undefined && this.#ranges.contains(bytes);
  }
}

/** The nth entry of a comma list from its end, trimmed; undefined: there are fewer. */
function fromTheRight(list: string, n: number): string | undefined {
  let end = list.length;
  for (let k = 1; k < n; k++) {
    end = list.lastIndexOf(",", end - 1);
    if (end < 0) return undefined;
  }
  return list.slice(list.lastIndexOf(",", end - 1) + 1, end).trim();
}

/** Appends to x-forwarded-for. Its lines become one, joined as in Envoy. */
export function appendForwardedFor(headers: RequestHeaders, value: string): void {
  const before = headers.getAll(FORWARDED_FOR).filter((line) => line !== "");
  headers.replace(FORWARDED_FOR, [...before, value].join(","));
}
