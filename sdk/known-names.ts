/** Names that parsers give a number as they read, so that looking for them compares numbers instead of bytes. */
export const KNOWN_NAMES = [
  "",
  "host",
  "connection",
  "content-length",
  "transfer-encoding",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "upgrade",
  "expect",
  "x-forwarded-for",
  "x-forwarded-proto",
  "x-request-id",
  "user-agent",
  "content-type",
  "referer",
  "server",
  "date",
  "via",
  "x-envoy-upstream-service-time",
  "x-envoy-internal",
  "x-envoy-external-address",
  "x-envoy-expected-rq-timeout-ms",
  "x-client-trace-id",
  "x-forwarded-host",
  "location",
] as const;

const idOf = (name: (typeof KNOWN_NAMES)[number]): number => KNOWN_NAMES.indexOf(name);

/** Ids of the names in KNOWN_NAMES that matter to codecs; all others are higher. */
export const NAME_ID = {
  HOST: idOf("host"),
  CONNECTION: idOf("connection"),
  CONTENT_LENGTH: idOf("content-length"),
  TRANSFER_ENCODING: idOf("transfer-encoding"),
  KEEP_ALIVE: idOf("keep-alive"),
  PROXY_CONNECTION: idOf("proxy-connection"),
  TE: idOf("te"),
  TRAILER: idOf("trailer"),
  UPGRADE: idOf("upgrade"),
  EXPECT: idOf("expect"),
} as const;
