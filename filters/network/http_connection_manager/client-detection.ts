import {
  CidrRange,
  CidrRanges,
  ConfigError,
  formatIp,
  HttpStatus,
  headerName,
  nameOf,
  parseIp,
  type Reply,
  type RequestHeaders,
  reply,
  type Static,
  statusOf,
  Type,
  TypedExtension,
  UInt32,
} from "@tsproxy/sdk";
import type { Client } from "./client-address.ts";

const XFF = "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
const HEADER = "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig";

/** An entry of `original_ip_detection_extensions`. */
export const ClientDetection = TypedExtension({
  [XFF]: Type.Object({
    xff_num_trusted_hops: UInt32({ default: 0 }),
    xff_trusted_cidrs: Type.Optional(
      Type.Object({
        cidrs: Type.Array(CidrRange, { default: [] }),
      }),
    ),
    skip_xff_append: Type.Boolean({ default: true }),
  }),
  [HEADER]: Type.Object({
    header_name: Type.String({ minLength: 1 }),
    allow_extension_to_set_address_as_trusted: Type.Boolean({ default: false }),
    reject_with_status: Type.Optional(HttpStatus),
  }),
});
export type ClientDetection = Static<typeof ClientDetection>;

const FORWARDED_FOR = headerName("x-forwarded-for");

/** What one extension finds out about the client of a request. */
export interface Detected {
  /** Undefined: the extension does not know, and the next one is asked. */
  readonly client: Client | undefined;
  /** The peer is to be appended to x-forwarded-for. */
  readonly appends: boolean;
  /** The answer to a request whose client is not found. */
  readonly refusal?: Reply;
}

export type Detector = (headers: RequestHeaders, direct: Client) => Detected;

export function compileDetector(
  config: ClientDetection,
  path: string,
  isInternal: (ip: Uint8Array) => boolean,
): Detector {
  const typed = config.typed_config;
  if (!("header_name" in typed)) return byForwardedFor(typed, path, isInternal);
  const name = nameOf(typed.header_name, `${path}.typed_config.header_name`);
  const status = typed.reject_with_status && statusOf(typed.reject_with_status);
  // As in Envoy, a configured status that is not an error becomes 403.
  const refusal =
    status === undefined
      ? {}
      : { refusal: reply(status < 400 ? 403 : status, { details: REFUSED }) };
  const trusted = typed.allow_extension_to_set_address_as_trusted;
  return (headers) => {
    const ip = parseIp(headers.get(name)?.trim() ?? "");
    if (ip === undefined) return { client: undefined, appends: false, ...refusal };
    const client = { address: addressOf(ip), internal: trusted && isInternal(ip) };
    return { client, appends: false };
  };
}
const REFUSED = "rejecting_because_detection_failed";

function byForwardedFor(
  config: Extract<ClientDetection["typed_config"], { readonly xff_num_trusted_hops: number }>,
  path: string,
  isInternal: (ip: Uint8Array) => boolean,
): Detector {
  const hops = config.xff_num_trusted_hops;
  const cidrs = config.xff_trusted_cidrs;
  if (cidrs !== undefined && hops > 0) {
    throw new ConfigError(
      `${path}.typed_config`,
      "give one of xff_num_trusted_hops and xff_trusted_cidrs",
    );
  }
  const trusted =
    cidrs && new CidrRanges(cidrs.cidrs, `${path}.typed_config.xff_trusted_cidrs.cidrs`);
  const appends = !config.skip_xff_append;
  return (headers, direct) => {
    if (trusted !== undefined && !isTrusted(direct, trusted)) return UNKNOWN;
    const entries = headers.getAll(FORWARDED_FOR).join(",");
    const list = entries.split(",").map((entry) => parseIp(entry.trim()));
    const ip = trusted === undefined ? list.at(-1 - hops) : lastUntrusted(list, trusted);
    if (ip === undefined) return { client: undefined, appends };
    const internal = list.length === 1 && isInternal(ip);
    return { client: { address: addressOf(ip), internal }, appends };
  };
}

const UNKNOWN: Detected = { client: undefined, appends: false };

function isTrusted(direct: Client, trusted: CidrRanges): boolean {
  const peer = parseIp(direct.address.ip);
  return peer !== undefined && trusted.contains(peer);
}

/**
 * The first entry from the right that is not a trusted proxy, or else the leftmost: each trusted proxy appends its client.
 * Undefined: that entry is not an address.
 */
function lastUntrusted(
  list: readonly (Uint8Array | undefined)[],
  trusted: CidrRanges,
): Uint8Array | undefined {
  for (let k = list.length - 1; k >= 0; k--) {
    const ip = list[k];
    if (ip === undefined || k === 0 || !trusted.contains(ip)) return ip;
  }
  return undefined;
}

const addressOf = (ip: Uint8Array) => ({ ip: formatIp(ip), port: 0 });
