import {
  type Address,
  defineTransport,
  Enum,
  Extension,
  latin1Encode,
  parseIp,
  type Slot,
  type Transport,
  type TransportFactory,
  type TransportOptions,
  type TransportSocket,
  Type,
} from "@tsproxy/sdk";

const Config = Type.Object({
  config: Type.Optional(Type.Object({ version: Enum(["V1", "V2"], { default: "V1" }) })),
  transport_socket: Extension("transport"),
});

/** Says first who is behind the connection, then leaves it to the transport inside. */
class ProxyProtocol implements TransportFactory {
  readonly #version: "V1" | "V2";
  readonly #inner: Slot<TransportFactory>;

  constructor(version: "V1" | "V2", inner: Slot<TransportFactory>) {
    this.#version = version;
    this.#inner = inner;
  }

  get secure(): boolean {
    return this.#inner.current.value.secure;
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
          : headerV2(source, destination, ownWord),
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

export function headerV2(source: Address, destination: Address, local: boolean): Uint8Array {
  const from = parseIp(source.ip);
  const to = parseIp(destination.ip);
  const named = !local && from !== undefined && to !== undefined && from.length === to.length;
  if (!named) return Uint8Array.of(...SIGNATURE, 0x20, 0, 0, 0);
  const port = ({ port: p }: Address) => [p >> 8, p & 255];
  const family = from.length === 4 ? 0x11 : 0x21;
  const body = [...from, ...to, ...port(source), ...port(destination)];
  return Uint8Array.of(...SIGNATURE, 0x21, family, 0, body.length, ...body);
}

export default defineTransport({
  name: "envoy.transport_sockets.upstream_proxy_protocol",
  types: ["envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"],
  config: Config,
  setup(config, cx) {
    const inner = cx.extension("transport", config.transport_socket, {
      statPrefix: cx.statPrefix ?? "",
    });
    return new ProxyProtocol(config.config?.version ?? "V1", inner);
  },
});
