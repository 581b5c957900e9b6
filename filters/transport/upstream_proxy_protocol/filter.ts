import {
  type Address,
  defineTransport,
  Enum,
  Extension,
  latin1Encode,
  parseIp,
  type Slot,
  type Static,
  type Transport,
  type TransportFactory,
  type TransportOptions,
  type TransportSocket,
  Type,
  UInt32,
} from "@tsproxy/sdk";

/** Where the listener filter proxy_protocol leaves what a client's header had beside addresses. */
const PASSED_ON = "envoy.network.proxy_protocol_options";

const PassThrough = Type.Object({
  match_type: Enum(["INCLUDE_ALL", "INCLUDE"], { default: "INCLUDE_ALL" }),
  tlv_type: Type.Optional(Type.Array(UInt32({ maximum: 255 }))),
});
type PassThrough = Static<typeof PassThrough>;

interface Tlv {
  readonly type: number;
  readonly value: Uint8Array;
}

const Config = Type.Object({
  config: Type.Optional(
    Type.Object({
      version: Enum(["V1", "V2"], { default: "V1" }),
      pass_through_tlvs: Type.Optional(PassThrough),
    }),
  ),
  transport_socket: Extension("transport"),
});

/** Says first who is behind the connection, then leaves it to the transport inside. */
class ProxyProtocol implements TransportFactory {
  readonly namesClients = true;
  readonly #version: "V1" | "V2";
  readonly #passThrough: PassThrough | undefined;
  readonly #inner: Slot<TransportFactory>;

  constructor(
    version: "V1" | "V2",
    passThrough: PassThrough | undefined,
    inner: Slot<TransportFactory>,
  ) {
    this.#version = version;
    this.#passThrough = passThrough;
    this.#inner = inner;
  }

  get secure(): boolean {
    return this.#inner.current.value.secure;
  }

  #tlvs({ downstream }: TransportOptions): readonly Tlv[] {
    return passedOn(downstream?.metadata, this.#passThrough);
  }

  connect(socket: TransportSocket, options: TransportOptions): Transport {
    const inner = this.#inner.current.value.connect?.(socket, options);
    const onConnected = () => {
      const { localAddress, remoteAddress } = socket.connection;
      // Without a client (health checks) the connection speaks for itself.
      const source = options.downstream?.remoteAddress ?? localAddress;
      const destination = options.downstream?.localAddress ?? remoteAddress;
      const ownWord = options.downstream === undefined;
      socket.write(
        this.#version === "V1"
          ? headerV1(source, destination)
          : headerV2(source, destination, ownWord, this.#tlvs(options)),
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

/** Those of a listener are sent on that this transport names as well. */
export function passedOn(
  metadata: NonNullable<TransportOptions["downstream"]>["metadata"],
  wanted: PassThrough | undefined,
): readonly Tlv[] {
  if (wanted === undefined) return [];
  const all = (metadata?.get(PASSED_ON)?.["tlvs"] ?? []) as readonly Tlv[];
  const { match_type, tlv_type = [] } = wanted;
  return match_type === "INCLUDE_ALL" ? all : all.filter(({ type }) => tlv_type.includes(type));
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

export function headerV2(
  source: Address,
  destination: Address,
  local: boolean,
  tlvs: readonly Tlv[] = [],
): Uint8Array {
  const from = parseIp(source.ip);
  const to = parseIp(destination.ip);
  const named = !local && from !== undefined && to !== undefined && from.length === to.length;
  if (!named) return Uint8Array.of(...SIGNATURE, 0x20, 0, 0, 0);
  const port = ({ port: p }: Address) => [p >> 8, p & 255];
  const family = from.length === 4 ? 0x11 : 0x21;
  const body = [...from, ...to, ...port(source), ...port(destination)];
  for (const { type, value } of tlvs)
    body.push(type, value.length >> 8, value.length & 255, ...value);
  const { length } = body;
  return Uint8Array.of(...SIGNATURE, 0x21, family, length >> 8, length & 255, ...body);
}

export default defineTransport({
  name: "envoy.transport_sockets.upstream_proxy_protocol",
  types: ["envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"],
  config: Config,
  setup(config, cx) {
    const inner = cx.extension("transport", config.transport_socket, {
      statPrefix: cx.statPrefix ?? "",
    });
    const { version = "V1", pass_through_tlvs: passThrough } = config.config ?? {};
    return new ProxyProtocol(version, passThrough, inner);
  },
});
