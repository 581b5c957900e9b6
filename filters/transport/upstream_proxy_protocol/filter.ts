import {
  type Address,
  base64Decode,
  ConfigError,
  defineTransport,
  Enum,
  Extension,
  latin1Encode,
  PassThroughTlvs,
  PROXY_TLVS,
  type ProxyTlv,
  parseIp,
  passedTlvs,
  type Slot,
  type Transport,
  type TransportFactory,
  type TransportOptions,
  type TransportSocket,
  Type,
  UInt32,
} from "@tsproxy/sdk";

const Config = Type.Object({
  config: Type.Optional(
    Type.Object({
      version: Enum(["V1", "V2"], { default: "V1" }),
      pass_through_tlvs: Type.Optional(PassThroughTlvs),
      /** Sent with every header of V2; `value` is base64. */
      added_tlvs: Type.Array(
        Type.Object({ type: UInt32({ maximum: 255 }), value: Type.String({ default: "" }) }),
        { default: [] },
      ),
    }),
  ),
  transport_socket: Extension("transport"),
});

/** Sends a PROXY protocol header, then leaves the connection to the inner transport. */
class ProxyProtocol implements TransportFactory {
  readonly namesClients = true;
  readonly #version: "V1" | "V2";
  readonly #passThrough: PassThroughTlvs | undefined;
  readonly #added: readonly ProxyTlv[];
  readonly #inner: Slot<TransportFactory>;

  constructor(
    version: "V1" | "V2",
    passThrough: PassThroughTlvs | undefined,
    added: readonly ProxyTlv[],
    inner: Slot<TransportFactory>,
  ) {
    this.#version = version;
    this.#passThrough = passThrough;
    this.#added = added;
    this.#inner = inner;
  }

  get secure(): boolean {
    return this.#inner.current.value.secure;
  }

  #tlvs({ downstream }: TransportOptions): readonly ProxyTlv[] {
    const kept = (downstream?.metadata?.get(PROXY_TLVS)?.["tlvs"] ?? []) as readonly ProxyTlv[];
    return joinedTlvs(this.#added, passedTlvs(kept, this.#passThrough));
  }

  connect(socket: TransportSocket, options: TransportOptions): Transport {
    const inner = this.#inner.current.value.connect?.(socket, options);
    const onConnected = () => {
      const { localAddress, remoteAddress } = socket.connection;
      // Without a client (health checks) V1 names the addresses of this connection; V2 sends the command LOCAL.
      const source = options.downstream?.remoteAddress ?? localAddress;
      const destination = options.downstream?.localAddress ?? remoteAddress;
      const isOwn = options.downstream === undefined;
      socket.write(
        this.#version === "V1"
          ? headerV1(source, destination)
          : headerV2(source, destination, isOwn, this.#tlvs(options)),
      );
      if (inner === undefined) socket.ready();
      else inner.onConnected();
    };
    if (inner === undefined) return { onConnected };
    return {
      onConnected,
      onBytes: (bytes) => inner.onBytes?.(bytes),
      onSecured: (tls) => inner.onSecured?.(tls),
      onTlsError: (code, message) => inner.onTlsError?.(code, message) ?? message,
      onClosed: () => inner.onClosed?.(),
    };
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

export default defineTransport({
  name: "envoy.transport_sockets.upstream_proxy_protocol",
  types: ["envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"],
  config: Config,
  setup(config, cx) {
    const inner = cx.extension("transport", config.transport_socket, {
      statPrefix: cx.statPrefix ?? "",
    });
    const { version = "V1", pass_through_tlvs: passThrough, added_tlvs = [] } = config.config ?? {};
    const added = added_tlvs.map(({ type, value }, k) => {
      const bytes = base64Decode(value);
      if (bytes === undefined) throw new ConfigError(`config.added_tlvs[${k}].value`, "no base64");
      return { type, value: bytes };
    });
    return new ProxyProtocol(version, passThrough, added, inner);
  },
});
