import {
  defineTransport,
  Extension,
  ProxyHeader,
  ProxyProtocolConfig,
  type Slot,
  type Transport,
  type TransportFactory,
  type TransportOptions,
  type TransportSocket,
  Type,
} from "@tsproxy/sdk";

const Config = Type.Object({
  config: Type.Optional(ProxyProtocolConfig),
  transport_socket: Extension("transport"),
});

/** Sends a PROXY protocol header, then leaves the connection to the inner transport. */
class ProxyProtocol implements TransportFactory {
  readonly namesClients = true;
  readonly #header: ProxyHeader;
  readonly #inner: Slot<TransportFactory>;

  constructor(header: ProxyHeader, inner: Slot<TransportFactory>) {
    this.#header = header;
    this.#inner = inner;
  }

  get secure(): boolean {
    return this.#inner.current.value.secure;
  }

  connect(socket: TransportSocket, options: TransportOptions): Transport {
    const inner = this.#inner.current.value.connect?.(socket, options);
    const onConnected = () => {
      const { localAddress, remoteAddress } = socket.connection;
      // Without a client (health checks) V1 names the addresses of this connection; V2 sends the command LOCAL.
      const { downstream } = options;
      socket.write(
        downstream === undefined
          ? this.#header.own(localAddress, remoteAddress)
          : this.#header.of(downstream),
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

export default defineTransport({
  name: "envoy.transport_sockets.upstream_proxy_protocol",
  types: ["envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"],
  config: Config,
  setup(config, cx) {
    const inner = cx.extension("transport", config.transport_socket, {
      statPrefix: cx.statPrefix ?? "",
    });
    return new ProxyProtocol(new ProxyHeader(config.config ?? {}, "config"), inner);
  },
});
