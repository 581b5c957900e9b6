import { Enum, type Static, Type, UInt32 } from "./schema.ts";

/** A field that a PROXY header (version 2) has beside addresses. */
export interface ProxyTlv {
  readonly type: number;
  readonly value: Uint8Array;
}

/**
 * The namespace of a connection's metadata in which the listener filter `proxy_protocol` keeps TLVs (`{ tlvs: ProxyTlv[] }`) for the
 * transport `upstream_proxy_protocol`.
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
