import {
  type Chunk,
  type Counter,
  type DownstreamConnection,
  defineNetworkFilter,
  type Log,
  latin1Decode,
  type NetworkFilter,
  type Static,
  stop,
  Type,
} from "@tsproxy/sdk";

const PROTOCOLS = ["http", "tls", "ssh", "unknown"] as const;
type Protocol = (typeof PROTOCOLS)[number];

const Config = Type.Object({
  /** Connections that speak none of these are closed; empty: all may pass. */
  allowed: Type.Array(Type.Union(PROTOCOLS.map((name) => Type.Literal(name))), { default: [] }),
});
type Config = Static<typeof Config>;

/** Finds out by its first bytes what a client speaks, counts it, and lets the bytes pass as they came. */
class Sniffer implements NetworkFilter {
  readonly #config: Config;
  readonly #connection: DownstreamConnection;
  readonly #counts: Readonly<Record<Protocol, Counter>>;
  readonly #log: Log;
  #isKnown = false;

  constructor(
    config: Config,
    connection: DownstreamConnection,
    counts: Readonly<Record<Protocol, Counter>>,
    log: Log,
  ) {
    this.#config = config;
    this.#connection = connection;
    this.#counts = counts;
    this.#log = log;
  }

  onData(chunk: Chunk) {
    if (this.#isKnown || chunk.length === 0) return;
    this.#isKnown = true;
    const start = latin1Decode(chunk.memory, chunk.at, Math.min(chunk.end, chunk.at + 16));
    const protocol = protocolOf(start);
    this.#counts[protocol].inc();
    const { allowed } = this.#config;
    if (allowed.length === 0 || allowed.includes(protocol)) return;
    this.#log.info("closed", { protocol, from: this.#connection.remoteAddress.ip });
    this.#connection.close("abort");
    return stop;
  }
}

function protocolOf(start: string): Protocol {
  // A TLS record: a handshake of version 3.x.
  if (start.startsWith("\x16\x03")) return "tls";
  if (start.startsWith("SSH-")) return "ssh";
  if (/^[A-Z]{3,10} [/*h]|^PRI \*/.test(start)) return "http";
  return "unknown";
}

export default defineNetworkFilter({
  name: "sniffer",
  config: Config,
  setup(config, cx) {
    const counts = Object.fromEntries(
      PROTOCOLS.map((name) => [name, cx.stats.counter(`sniffer.${name}`)]),
    ) as Record<Protocol, Counter>;
    return { create: (connection) => new Sniffer(config, connection, counts, cx.log) };
  },
});
