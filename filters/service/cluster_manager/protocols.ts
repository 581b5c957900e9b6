import type { CodecFactory, CodecOptions, Connection, Slot, Stats } from "@tsproxy/sdk";
import type { ClusterOptions } from "./config.ts";
import type { PoolProtocol } from "./pool.ts";

/** The codecs that pools may need; HTTP/2 is a function, as its package is loaded only if a cluster uses it. */
export interface Codecs {
  readonly http1: Slot<CodecFactory>;
  readonly http2: () => Slot<CodecFactory>;
}

/** Protocols of the cluster's pools. As in Envoy, with ALPN a connection without TLS uses HTTP/1.1. */
export function protocolsOf(options: ClusterOptions, codecs: Codecs): readonly PoolProtocol[] {
  const expectedCapacity = options.http2.maxConcurrentStreams;
  const http1: PoolProtocol = {
    name: "HTTP/1.1",
    expectedCapacity: 1,
    codec: () => codecs.http1,
    fixed: codecs.http1,
  };
  if (options.protocol === "HTTP1") return [http1];
  const codec = codecs.http2();
  const http2: PoolProtocol = {
    name: "HTTP/2",
    expectedCapacity,
    codec: () => codec,
    fixed: codec,
  };
  switch (options.protocol) {
    case "HTTP2":
      return [http2];
    case "DOWNSTREAM":
      return [http1, http2];
    case "ALPN":
      return [
        {
          name: "ALPN",
          expectedCapacity,
          codec: (connection) => (negotiated(connection) === "h2" ? codec : codecs.http1),
        },
      ];
  }
}

/** The negotiated ALPN protocol; "" without TLS. */
function negotiated(connection: Connection): string {
  return connection.tls?.alpn ?? "";
}

/** ALPN protocols that a pool offers if the transport's config has none. */
export const ALPN: Readonly<Record<PoolProtocol["name"], readonly string[]>> = {
  "HTTP/1.1": ["http/1.1"],
  "HTTP/2": ["h2"],
  ALPN: ["h2", "http/1.1"],
};

/** Size of a response's head that Envoy allows where the config says nothing. */
const MAX_HEAD_KIB = { "HTTP/1.1": 80, "HTTP/2": 60 } as const;

/** Options for the codecs of upstream connections. */
export function codecOptions(
  options: ClusterOptions,
  protocol: CodecFactory["protocol"],
  stats: Stats,
): CodecOptions {
  return {
    maxHeadBytes: (options.maxHeadKib ?? MAX_HEAD_KIB[protocol]) * 1024,
    maxHeaders: options.maxHeaders,
    enableTrailers: options.enableTrailers,
    acceptHttp10: true,
    defaultHostForHttp10: "",
    allowAbsoluteUrl: true,
    allowChunkedLength: options.allowChunkedLength,
    allowCustomMethods: true,
    headersWithUnderscores: "ALLOW",
    headerKeyFormat: options.headerKeyFormat,
    forwardsReason: options.forwardsReason,
    sendsAbsoluteUrl: options.sendsAbsoluteUrl,
    http2: options.http2,
    stats,
  };
}
