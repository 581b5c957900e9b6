import { base64Decode, latin1Encode } from "./bytes.ts";
import { ConfigError } from "./extension.ts";
import { parseIp } from "./ip.ts";
import type { Address, DownstreamConnection } from "./network.ts";
import { Enum, type Static, Type, UInt32 } from "./schema.ts";

/** A field that a PROXY header (version 2) has beside addresses. */
export interface ProxyTlv {
  readonly type: number;
  readonly value: Uint8Array;
}

/**
 * The namespace of a connection's metadata in which the listener filter `proxy_protocol` keeps TLVs (`{ tlvs: ProxyTlv[] }`) for
 * headers sent to upstreams.
 */
export const PROXY_TLVS = "envoy.network.proxy_protocol_options";

/** Envoy's `core.v3.ProxyProtocolPassThroughTLVs`. */
export const PassThroughTlvs = Type.Object({
  match_type: Enum(["INCLUDE_ALL", "INCLUDE"], { default: "INCLUDE_ALL" }),
  tlv_type: Type.Optional(Type.Array(UInt32({ maximum: 255 }))),
});
export type PassThroughTlvs = Static<typeof PassThroughTlvs>;

/** Those of the TLVs that the config passes on; none without a config. */
export function passedTlvs(
  tlvs: readonly ProxyTlv[],
  config: PassThroughTlvs | undefined,
): readonly ProxyTlv[] {
  if (config === undefined) return [];
  const { match_type, tlv_type = [] } = config;
  return match_type === "INCLUDE_ALL" ? tlvs : tlvs.filter(({ type }) => tlv_type.includes(type));
}

/** Envoy's `core.v3.ProxyProtocolConfig`. */
export const ProxyProtocolConfig = Type.Object({
  version: Enum(["V1", "V2"], { default: "V1" }),
  pass_through_tlvs: Type.Optional(PassThroughTlvs),
  /** Sent with every header of V2; `value` is base64. */
  added_tlvs: Type.Array(
    Type.Object({ type: UInt32({ maximum: 255 }), value: Type.String({ default: "" }) }),
    { default: [] },
  ),
});

/** Makes the PROXY headers that a config describes. */
export class ProxyHeader {
  readonly #version: "V1" | "V2";
  readonly #passThrough: PassThroughTlvs | undefined;
  readonly #added: readonly ProxyTlv[];

  /** `place`: of the config, for errors. */
  constructor(config: Partial<Static<typeof ProxyProtocolConfig>>, place: string) {
    const { version = "V1", pass_through_tlvs: passThrough, added_tlvs = [] } = config;
    this.#version = version;
    this.#passThrough = passThrough;
    this.#added = added_tlvs.map(({ type, value }, k) => {
      const bytes = base64Decode(value);
      if (value === "" || bytes === undefined) {
        const message = value === "" ? "missing; write the base64 of the field" : "no base64";
        throw new ConfigError(`${place}.added_tlvs[${k}].value`, message);
      }
      return { type, value: bytes };
    });
  }

  /** For a client: who it is, and where it wanted to go. */
  of({
    remoteAddress,
    localAddress,
    metadata,
  }: Pick<DownstreamConnection, "remoteAddress" | "localAddress" | "metadata">): Uint8Array {
    if (this.#version === "V1") return headerV1(remoteAddress, localAddress);
    const kept = (metadata?.get(PROXY_TLVS)?.["tlvs"] ?? []) as readonly ProxyTlv[];
    const tlvs = joinedTlvs(this.#added, passedTlvs(kept, this.#passThrough));
    return headerV2(remoteAddress, localAddress, false, tlvs);
  }

  /** For a connection that the proxy makes for itself. */
  own(localAddress: Address, remoteAddress: Address): Uint8Array {
    return this.#version === "V1"
      ? headerV1(localAddress, remoteAddress)
      : headerV2(localAddress, remoteAddress, true);
  }
}

/** Joins configured TLVs and those of the client's header, without the client's of a type that is configured too. */
export function joinedTlvs(
  added: readonly ProxyTlv[],
  passed: readonly ProxyTlv[],
): readonly ProxyTlv[] {
  if (added.length === 0) return passed;
  return [...added, ...passed.filter(({ type }) => added.every((tlv) => tlv.type !== type))];
}

/** The line that begins a connection in version 1 of the protocol. */
export function headerV1(source: Address, destination: Address): Uint8Array {
  const from = parseIp(source.ip);
  const to = parseIp(destination.ip);
  if (from === undefined || to === undefined || from.length !== to.length)
    return latin1Encode("PROXY UNKNOWN\r\n");
  const family = from.length === 4 ? "TCP4" : "TCP6";
  const ports = `${source.port} ${destination.port}`;
  return latin1Encode(`PROXY ${family} ${source.ip} ${destination.ip} ${ports}\r\n`);
}

const SIGNATURE = latin1Encode("\r\n\r\n\0\r\nQUIT\n");
/** Size of the fixed part; its last two bytes are the length of the rest. */
const FIXED = 16;
const LONGEST = 0xffff;

/** The header of version 2, in bytes. `local`: the proxy speaks for itself (a health check), and no address is named. */
export function headerV2(
  source: Address,
  destination: Address,
  local: boolean,
  tlvs: readonly ProxyTlv[] = [],
): Uint8Array {
  const from = parseIp(source.ip);
  const to = parseIp(destination.ip);
  const named = !local && from !== undefined && to !== undefined && from.length === to.length;
  if (!named) return Uint8Array.of(...SIGNATURE, 0x20, 0, 0, 0);
  const addresses = 2 * from.length + 4;
  const fields = tlvs.reduce((sum, { value }) => sum + 3 + value.length, 0);
  // Added TLVs and those of the client may together exceed the 16-bit length: then none are sent.
  if (addresses + fields > LONGEST) return headerV2(source, destination, local);
  const bytes = new Uint8Array(FIXED + addresses + fields);
  bytes.set(SIGNATURE);
  bytes[12] = 0x21;
  bytes[13] = from.length === 4 ? 0x11 : 0x21;
  const view = new DataView(bytes.buffer);
  view.setUint16(14, addresses + fields);
  bytes.set(from, FIXED);
  bytes.set(to, FIXED + from.length);
  let at = FIXED + 2 * from.length;
  view.setUint16(at, source.port);
  view.setUint16(at + 2, destination.port);
  at += 4;
  for (const { type, value } of tlvs) {
    view.setUint8(at, type);
    view.setUint16(at + 1, value.length);
    bytes.set(value, at + 3);
    at += 3 + value.length;
  }
  return bytes;
}
