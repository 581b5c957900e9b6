import { AccessLogList, Duration, MatcherOf, type Static, Type, UInt32 } from "@tsproxy/sdk";

export const ROUTE = "envoy.extensions.filters.udp.udp_proxy.v3.Route";

export const Config = Type.Object({
  stat_prefix: Type.String({ minLength: 1 }),
  /** Deprecated: `matcher` says the same. */
  cluster: Type.Optional(Type.String({ minLength: 1 })),
  matcher: Type.Optional(
    MatcherOf({ [ROUTE]: Type.Object({ cluster: Type.String({ minLength: 1 }) }) }),
  ),
  idle_timeout: Duration({ default: 60_000 }),
  /** A line for each session, when it ends. */
  access_log: AccessLogList(),
  /** A line for all sessions of a worker, when the listener or its config goes. */
  proxy_access_log: AccessLogList(),
  access_log_options: Type.Optional(
    Type.Object({
      access_log_flush_interval: Type.Optional(Duration()),
      /** Accepted, and without effect: there are no tunnels. */
      flush_access_log_on_tunnel_connected: Type.Optional(Type.Boolean()),
    }),
  ),
  hash_policies: Type.Optional(
    Type.Array(
      Type.Object({
        source_ip: Type.Optional(Type.Boolean()),
        key: Type.Optional(Type.String({ minLength: 1 })),
      }),
      { maxItems: 1 },
    ),
  ),
  use_per_packet_load_balancing: Type.Boolean({ default: false }),
  upstream_socket_config: Type.Optional(
    Type.Object({
      max_rx_datagram_size: Type.Optional(UInt32({ minimum: 1, maximum: 65_535 })),
      /** True, which is the default: no datagram is too large. */
      prefer_gro: Type.Optional(Type.Boolean()),
    }),
  ),
});
export type Config = Static<typeof Config>;
