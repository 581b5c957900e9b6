import {
  type Address,
  CidrRanges,
  type DownstreamConnection,
  formatIp,
  headerName,
  isLoopback,
  parseIp,
  type RequestHeaders,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";

const FORWARDED_FOR = headerName("x-forwarded-for");

/** Who sent a request, as far as it can be trusted. */
export interface Client {
  readonly address: Address;
  /** One of ours: its `x-envoy-` headers are obeyed. */
  readonly internal: boolean;
}

/** Finds the client behind a connection and keeps x-forwarded-for in order. */
export class ClientAddress {
  readonly #atEdge: boolean;
  readonly #hops: number;
  readonly #append: boolean;
  readonly #ranges: CidrRanges;
  readonly #unixIsInternal: boolean;
  readonly #ownAddress: string | undefined;

  constructor(config: Config, ownAddress: string | undefined) {
    this.#atEdge = config.use_remote_address;
    this.#hops = config.xff_num_trusted_hops;
    this.#append = config.use_remote_address && !config.skip_xff_append;
    const internal = config.internal_address_config;
    this.#ranges = new CidrRanges(
      internal?.cidr_ranges ?? [],
      "internal_address_config.cidr_ranges",
    );
    this.#unixIsInternal = internal?.unix_sockets ?? false;
    this.#ownAddress = ownAddress;
  }

  /** What holds for a connection whose requests have no x-forwarded-for: computed once. */
  direct(connection: DownstreamConnection): Client {
    const address = connection.remoteAddress;
    return { address, internal: this.#atEdge && this.#isInternal(address) };
  }

  /** The value that the proxy appends for this peer; "" if it appends nothing. */
  forwardedFor(connection: DownstreamConnection): string {
    const { ip, path } = connection.remoteAddress;
    if (!this.#append || path !== undefined) return "";
    const bytes = parseIp(ip);
    // A client on this machine is known to others by the machine's address.
    const local = bytes !== undefined && isLoopback(bytes);
    return local ? (this.#ownAddress ?? ip) : ip;
  }

  /** The client of a request that has x-forwarded-for. */
  behind(headers: RequestHeaders, direct: Client): Client {
    const external = { address: direct.address, internal: false };
    const lines = headers.getAll(FORWARDED_FOR);
    const entries = lines.join(",");
    if (lines.length > 1) headers.set(FORWARDED_FOR, entries);
    if (this.#atEdge && this.#hops === 0) return external;
    // At the edge the last entry is the first that a trusted proxy wrote; elsewhere it is the client itself.
    const entry = fromTheRight(entries, this.#atEdge ? this.#hops : this.#hops + 1);
    const bytes = entry === undefined ? undefined : parseIp(entry);
    if (bytes === undefined) return external;
    const address = { ip: formatIp(bytes), port: 0 };
    const alone = !entries.includes(",");
    return { address, internal: !this.#atEdge && alone && this.#ranges.contains(bytes) };
  }

  #isInternal(address: Address): boolean {
    if (address.path !== undefined) return this.#unixIsInternal;
    if (this.#ranges.empty) return false;
    const bytes = parseIp(address.ip);
    return bytes !== undefined && this.#ranges.contains(bytes);
  }
}

/** The nth entry of a comma list counted from its end, trimmed. */
function fromTheRight(list: string, n: number): string | undefined {
  let end = list.length;
  for (let k = 1; k < n; k++) {
    end = list.lastIndexOf(",", end - 1);
    if (end < 0) return undefined;
  }
  return list.slice(list.lastIndexOf(",", end - 1) + 1, end).trim();
}

/** Appends to x-forwarded-for: the lines become one, joined as Envoy joins them. */
export function appendForwardedFor(headers: RequestHeaders, value: string): void {
  const before = headers.getAll(FORWARDED_FOR).filter((line) => line !== "");
  headers.set(FORWARDED_FOR, [...before, value].join(","));
}
