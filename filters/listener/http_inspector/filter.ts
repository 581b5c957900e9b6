import {
  type AcceptedSocket,
  type Chunk,
  defineListenerFilter,
  type ListenerFilter,
  latin1Decode,
  type SetupContext,
  Type,
} from "@tsproxy/sdk";

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/** Bytes. A connection whose first line is longer is closed. */
const MAX_LINE = 64 * 1024 - 1;
/** A path, the asterisk, or a whole URL. */
const TARGET = /^(?:\/|\*$|[a-z][a-z0-9+.-]*:\/\/)/i;
const MAX_METHOD = 64;
/** What may follow the target; nothing may too (HTTP/0.9). */
const VERSION = /^HTTP\/\d\.\d$/;
const METHOD = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** Finds out which HTTP a client speaks in the clear; consumes no byte. */
class HttpInspector implements ListenerFilter {
  readonly #socket: AcceptedSocket;
  readonly #stats: Stats;
  /** Number of bytes known to be of the first line: a client may send it in many pieces. */
  #searched = 0;

  constructor(socket: AcceptedSocket, stats: Stats) {
    this.#socket = socket;
    this.#stats = stats;
  }

  onBytes(bytes: Chunk): number | "more" | "close" {
    // A client of TLS says by ALPN which HTTP it speaks.
    if (this.#socket.transportProtocol === "tls") return 0;
    const found = this.#protocolOf(bytes);
    if (found === "more") return "more";
    this.#stats[found].inc();
    if (found === "long") return "close";
    if (found !== "not") this.#socket.applicationProtocols = [NAMES[found]];
    return 0;
  }

  #protocolOf({ memory, at, end, length }: Chunk): keyof typeof NAMES | "not" | "long" | "more" {
    const start = latin1Decode(memory, at, Math.min(end, at + PREFACE.length));
    if (start === "") return "more";
    if (start === PREFACE) return "http2";
    if (PREFACE.startsWith(start)) return "more";
    let q = at + this.#searched;
    while (q < end && memory[q] !== 10) q++;
    this.#searched = q - at;
    const method = latin1Decode(memory, at, Math.min(q, at + MAX_METHOD + 2)).split(/ |\r$/, 1)[0]!;
    if (!METHOD.test(method) || method.length > MAX_METHOD) return "not";
    if (q === end) return length < MAX_LINE ? "more" : "long";
    const line = latin1Decode(memory, at, q).replace(/\r$/, "");
    const words = line.split(" ");
    if (method !== "CONNECT" && !TARGET.test(words[1] ?? "")) return "not";
    if (words.length > 2 && !VERSION.test(words.at(-1)!)) return "not";
    // Whatever is not 1.1 is 1.0 to Envoy, a line without a version too.
    return line.endsWith(" HTTP/1.1") ? "http11" : "http10";
  }
}

const NAMES = { http10: "http/1.0", http11: "http/1.1", http2: "h2c" } as const;

type Stats = ReturnType<typeof statsOf>;

function statsOf(cx: SetupContext) {
  const scope = cx.stats.scope("http_inspector.");
  return {
    long: scope.counter("read_error"),
    http10: scope.counter("http10_found"),
    http11: scope.counter("http11_found"),
    http2: scope.counter("http2_found"),
    not: scope.counter("http_not_found"),
  };
}

export default defineListenerFilter({
  name: "envoy.filters.listener.http_inspector",
  aliases: ["envoy.listener.http_inspector"],
  types: ["envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"],
  config: Type.Object({}),
  setup(_config, cx) {
    const stats = statsOf(cx);
    return (socket) => new HttpInspector(socket, stats);
  },
});
