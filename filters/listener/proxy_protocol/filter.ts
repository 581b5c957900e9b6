import {
  type AcceptedSocket,
  type Chunk,
  defineListenerFilter,
  Enum,
  type ListenerFilter,
  latin1Decode,
  PassThroughTlvs,
  PROXY_TLVS,
  type ProxyTlv,
  passedTlvs,
  type SetupContext,
  type Static,
  Type,
  UInt32,
  utf8Decode,
} from "@tsproxy/sdk";
import { readProxyHeader, V2_FIXED, versionOf } from "./header.ts";

const METADATA = "envoy.filters.listener.proxy_protocol";

const Config = Type.Object({
  rules: Type.Optional(
    Type.Array(
      Type.Object({
        tlv_type: UInt32({ maximum: 255, default: 0 }),
        on_tlv_present: Type.Optional(
          Type.Object({
            metadata_namespace: Type.Optional(Type.String()),
            key: Type.String({ minLength: 1 }),
          }),
        ),
      }),
    ),
  ),
  allow_requests_without_proxy_protocol: Type.Boolean({ default: false }),
  pass_through_tlvs: Type.Optional(PassThroughTlvs),
  disallowed_versions: Type.Optional(Type.Array(Enum(["V1", "V2"]))),
  stat_prefix: Type.Optional(Type.String()),
});
type Config = Static<typeof Config>;

/** Consumes the PROXY header; the addresses that it names become those of the connection. */
class ProxyProtocol implements ListenerFilter {
  readonly #socket: AcceptedSocket;
  readonly #config: Config;
  readonly #stats: Stats;

  constructor(socket: AcceptedSocket, config: Config, stats: Stats) {
    this.#socket = socket;
    this.#config = config;
    this.#stats = stats;
  }

  onBytes(bytes: Chunk): number | "more" | "close" {
    const stats = this.#stats;
    const announced = versionOf(bytes);
    if (announced === "more") return "more";
    if (announced === "absent") return this.#onOther(bytes);
    const { found, error, disallowed } = stats[announced];
    if (this.#config.disallowed_versions?.includes(announced)) {
      // To clients that may come without a header, one of this version is no header, as in Envoy: these bytes are theirs.
      if (this.#config.allow_requests_without_proxy_protocol) return this.#onAbsent();
      found.inc();
      disallowed.inc();
      return "close";
    }
    const header = readProxyHeader(bytes);
    if (header === "more") return "more";
    if (typeof header === "string") {
      error.inc();
      stats.anyError.inc();
      return "close";
    }
    found.inc();
    if (header.source !== undefined) this.#socket.remoteAddress = header.source;
    if (header.destination !== undefined) this.#socket.localAddress = header.destination;
    this.#note(header.tlvs);
    return header.size;
  }

  /**
   * What begins no header. Where there must be one, Envoy still waits for a line, or for as many bytes as a binary header has: such
   * a client may go on without (`continue_on_listener_filters_timeout`).
   */
  #onOther(bytes: Chunk): number | "more" | "close" {
    const { allow_requests_without_proxy_protocol: allowed } = this.#config;
    if (allowed || bytes.length >= V2_FIXED) return this.#onAbsent();
    const newline = latin1Decode(bytes.memory, bytes.at, bytes.end).indexOf("\r\n");
    if (newline <= 0) return "more";
    this.#stats.V1.error.inc();
    this.#stats.anyError.inc();
    return "close";
  }

  #onAbsent(): number | "close" {
    const { anyError, notFoundAllowed, notFoundRefused } = this.#stats;
    if (this.#config.allow_requests_without_proxy_protocol) {
      notFoundAllowed.inc();
      return 0;
    }
    notFoundRefused.inc();
    anyError.inc();
    return "close";
  }

  #note(tlvs: readonly ProxyTlv[]): void {
    const passed = passedTlvs(tlvs, this.#config.pass_through_tlvs);
    if (passed.length > 0) this.#socket.setMetadata?.(PROXY_TLVS, { tlvs: passed });
    for (const { tlv_type, on_tlv_present: wanted } of this.#config.rules ?? []) {
      const tlv = tlvs.find(({ type }) => type === tlv_type);
      if (tlv === undefined || wanted === undefined) continue;
      const namespace = wanted.metadata_namespace || METADATA;
      const value = utf8Decode(tlv.value, 0, tlv.value.length);
      this.#socket.setMetadata?.(namespace, { [wanted.key]: value });
    }
  }
}

type Stats = ReturnType<typeof statsOf>;

function statsOf(cx: SetupContext, prefix: string) {
  const scope = cx.stats.scope(prefix === "" ? "proxy_proto." : `proxy_proto.${prefix}.`);
  const version = (name: string) => ({
    found: scope.counter(`versions.${name}.found`),
    disallowed: scope.counter(`versions.${name}.disallowed`),
    error: scope.counter(`versions.${name}.error`),
  });
  return {
    /** Envoy's older count, of all listeners together. */
    anyError: cx.stats.counter("downstream_cx_proxy_proto_error"),
    notFoundAllowed: scope.counter("not_found_allowed"),
    notFoundRefused: scope.counter("not_found_disallowed"),
    V1: version("v1"),
    V2: version("v2"),
  };
}

export default defineListenerFilter({
  name: "envoy.filters.listener.proxy_protocol",
  aliases: ["envoy.listener.proxy_protocol"],
  types: ["envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"],
  config: Config,
  setup(config, cx) {
    const stats = statsOf(cx, config.stat_prefix ?? "");
    return (socket) => new ProxyProtocol(socket, config, stats);
  },
});
