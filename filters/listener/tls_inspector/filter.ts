import {
  type AcceptedSocket,
  Chunk,
  defineListenerFilter,
  type HelloError,
  helloError,
  helloSize,
  type ListenerFilter,
  readClientHello,
  type SetupContext,
  type Static,
  Type,
  UInt32,
} from "@tsproxy/sdk";
import { ja3, ja4 } from "./fingerprint.ts";

const NAME = "envoy.filters.listener.tls_inspector";

const Config = Type.Object({
  /** Accepted, and without effect: reads are as large as the socket gives them. */
  initial_read_buffer_size: UInt32({ default: 16_384, minimum: 256, maximum: 65_536 }),
  max_client_hello_size: UInt32({ default: 16_384, minimum: 256, maximum: 65_536 }),
  enable_ja3_fingerprinting: Type.Optional(Type.Boolean()),
  enable_ja4_fingerprinting: Type.Optional(Type.Boolean()),
});
type Config = Static<typeof Config>;

/** Finds out whether a client speaks TLS, and what it asks for; consumes no byte. */
class TlsInspector implements ListenerFilter {
  readonly #socket: AcceptedSocket;
  readonly #stats: Stats;
  readonly #config: Config;

  constructor(socket: AcceptedSocket, stats: Stats, config: Config) {
    this.#socket = socket;
    this.#stats = stats;
    this.#config = config;
  }

  onBytes(bytes: Chunk): number | "more" | "close" {
    if (bytes.length === 0) return "more";
    const max = this.#config.max_client_hello_size;
    const { memory, at } = bytes;
    const shown = bytes.length > max ? new Chunk(memory, at, at + max) : bytes;
    const hello = readClientHello(shown);
    const stats = this.#stats;
    if (hello === "more") {
      if (bytes.length < max) return "more";
      stats.tooLarge.inc();
      this.#fail("ClientHelloTooLarge");
      return "close";
    }
    if (hello === "none") {
      const error = helloError(shown);
      if (error === undefined && bytes.length < max) return "more";
      stats.bytes.record(helloSize(shown));
      stats.noTls.inc();
      this.#fail("ClientHelloNotDetected");
      if (error !== undefined) this.#socket.transportFailure = failureReason(error);
      return 0;
    }
    stats.bytes.record(helloSize(shown));
    const socket = this.#socket;
    stats.tls.inc();
    socket.transportProtocol = "tls";
    (hello.serverName === "" ? stats.noSni : stats.sni).inc();
    socket.serverName = hello.serverName;
    (hello.alpn.length === 0 ? stats.noAlpn : stats.alpn).inc();
    if (hello.alpn.length > 0) socket.applicationProtocols = hello.alpn;
    if (this.#config.enable_ja3_fingerprinting === true) socket.ja3Fingerprint = ja3(hello);
    if (this.#config.enable_ja4_fingerprinting === true) socket.ja4Fingerprint = ja4(hello);
    return 0;
  }

  /** Leaves the reason in the connection's metadata, for logs. */
  #fail(reason: string): void {
    this.#socket.setMetadata?.(NAME, { failure_reason: reason });
  }
}

/** BoringSSL's number of its library for TLS, in the upper byte of an error's number. */
const LIBRARY_SSL = 0x10000000;

/** The reason as Envoy writes it. */
function failureReason({ reason, code }: HelloError): string {
  const number = (LIBRARY_SSL + code).toString(16);
  return `TLS_error|error:${number}:SSL routines:OPENSSL_internal:${reason}:TLS_error_end`;
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
  name: NAME,
  aliases: ["envoy.listener.tls_inspector"],
  types: ["envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"],
  config: Config,
  setup(config, cx) {
    const stats = statsOf(cx);
    return (socket) => new TlsInspector(socket, stats, config);
  },
});
