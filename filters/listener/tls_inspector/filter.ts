import {
  type AcceptedSocket,
  type Chunk,
  defineListenerFilter,
  type ListenerFilter,
  readClientHello,
  type SetupContext,
  Type,
  UInt32,
} from "@tsproxy/sdk";

const Config = Type.Object({
  /** Reads are as large as the socket gives them; Envoy begins with so many bytes. */
  initial_read_buffer_size: UInt32({ default: 16_384, minimum: 256, maximum: 65_536 }),
  max_client_hello_size: UInt32({ default: 16_384, minimum: 256, maximum: 65_536 }),
});

/** Looks whether a client speaks TLS, and what it asks for; takes no byte. */
class TlsInspector implements ListenerFilter {
  readonly #socket: AcceptedSocket;
  readonly #stats: Stats;
  readonly #maxSize: number;

  constructor(socket: AcceptedSocket, stats: Stats, maxSize: number) {
    this.#socket = socket;
    this.#stats = stats;
    this.#maxSize = maxSize;
  }

  onBytes(bytes: Chunk): number | "more" | "close" {
    if (bytes.length === 0) return "more";
    const hello = readClientHello(bytes);
    const stats = this.#stats;
    if (hello === "more") {
      if (bytes.length < this.#maxSize) return "more";
      stats.tooLarge.inc();
      return "close";
    }
    stats.bytes.record(bytes.length);
    if (hello === "none") {
      stats.noTls.inc();
      return 0;
    }
    const socket = this.#socket;
    stats.tls.inc();
    socket.transportProtocol = "tls";
    (hello.serverName === "" ? stats.noSni : stats.sni).inc();
    socket.serverName = hello.serverName;
    (hello.alpn.length === 0 ? stats.noAlpn : stats.alpn).inc();
    if (hello.alpn.length > 0) socket.applicationProtocols = hello.alpn;
    return 0;
  }
}

type Stats = ReturnType<typeof statsOf>;

function statsOf(cx: SetupContext) {
  const scope = cx.stats.scope("tls_inspector.");
  return {
    tooLarge: scope.counter("client_hello_too_large"),
    tls: scope.counter("tls_found"),
    noTls: scope.counter("tls_not_found"),
    alpn: scope.counter("alpn_found"),
    noAlpn: scope.counter("alpn_not_found"),
    sni: scope.counter("sni_found"),
    noSni: scope.counter("sni_not_found"),
    bytes: scope.histogram("bytes_processed", "bytes"),
  };
}

export default defineListenerFilter({
  name: "envoy.filters.listener.tls_inspector",
  aliases: ["envoy.listener.tls_inspector"],
  types: ["envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"],
  config: Config,
  setup(config, cx) {
    const stats = statsOf(cx);
    return (socket) => new TlsInspector(socket, stats, config.max_client_hello_size);
  },
});
