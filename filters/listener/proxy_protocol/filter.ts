import {
  type AcceptedSocket,
  type Chunk,
  ConfigError,
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
} from "@tsproxy/sdk";
import { readProxyHeader, V2_FIXED, versionOf } from "./header.ts";
import { textOf } from "./text.ts";

const METADATA = "envoy.filters.listener.proxy_protocol";
const FILTER_STATE = "envoy.network.proxy_protocol.tlv";

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
  tlv_location: Enum(["DYNAMIC_METADATA", "FILTER_STATE"], { default: "DYNAMIC_METADATA" }),
  allow_requests_without_proxy_protocol: Type.Boolean({ default: false }),
  pass_through_tlvs: Type.Optional(PassThroughTlvs),
  disallowed_versions: Type.Optional(Type.Array(Enum(["V1", "V2"]))),
  stat_prefix: Type.Optional(Type.String()),
});
type Config = Static<typeof Config>;

/** Where the TLVs of a type are put. */
interface Place {
  readonly namespace: string;
  readonly key: string;
}

/** By type; of several rules for one the last counts, and a rule without a key means the key "", as in Envoy. */
function placesOf({ rules = [] }: Config): ReadonlyMap<number, Place> {
  return new Map(
    rules.map(({ tlv_type, on_tlv_present: { metadata_namespace = "", key } = { key: "" } }) => [
      tlv_type,
      { namespace: metadata_namespace || METADATA, key },
    ]),
  );
}

/** Consumes the PROXY header; the addresses that it names become those of the connection. */
class ProxyProtocol implements ListenerFilter {
  readonly #socket: AcceptedSocket;
  readonly #config: Config;
  readonly #places: ReadonlyMap<number, Place>;
  readonly #stats: Stats;

  constructor(
    socket: AcceptedSocket,
    config: Config,
    places: ReadonlyMap<number, Place>,
    stats: Stats,
  ) {
    this.#socket = socket;
    this.#config = config;
    this.#places = places;
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
    // As in Envoy, a line that does not end is no header, and is refused to clients that need none as well.
    if (header === "endless") return this.#refuseAbsent();
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
    if (!this.#config.allow_requests_without_proxy_protocol) return this.#refuseAbsent();
    this.#stats.notFoundAllowed.inc();
    return 0;
  }

  #refuseAbsent(): "close" {
    this.#stats.notFoundRefused.inc();
    this.#stats.anyError.inc();
    return "close";
  }

  #note(tlvs: readonly ProxyTlv[]): void {
    const passed = passedTlvs(tlvs, this.#config.pass_through_tlvs);
    if (passed.length > 0) this.#socket.setMetadata?.(PROXY_TLVS, { tlvs: passed });
    const noted = tlvs.filter(({ type }) => this.#places.has(type));
    if (noted.length === 0) return;
    if (this.#config.tlv_location === "FILTER_STATE") this.#keepState(noted);
    else this.#keepMetadata(noted);
  }

  /** Of several values for one key the first stays. */
  #keepMetadata(tlvs: readonly ProxyTlv[]): void {
    const namespaces = new Map<string, Record<string, string>>();
    for (const { type, value } of tlvs) {
      const { namespace, key } = this.#places.get(type)!;
      const values = namespaces.get(namespace) ?? {};
      namespaces.set(namespace, { [key]: textOf(value), ...values });
    }
    for (const [namespace, values] of namespaces) this.#socket.setMetadata?.(namespace, values);
  }

  /** One object for all keys, whatever their namespaces. Of several values for one key the last stays. */
  #keepState(tlvs: readonly ProxyTlv[]): void {
    const entries = tlvs.map(({ type, value }) => [this.#places.get(type)!.key, textOf(value)]);
    this.#socket.setFilterState?.(FILTER_STATE, Object.fromEntries(entries));
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
    const disallowed = new Set(config.disallowed_versions);
    if (disallowed.size === 2) {
      const message = "names every version, so that no client could connect; leave one out";
      throw new ConfigError("disallowed_versions", message);
    }
    const places = placesOf(config);
    const stats = statsOf(cx, config.stat_prefix ?? "");
    return (socket) => new ProxyProtocol(socket, config, places, stats);
  },
});
