// The Envoy configurations that tsproxy and Envoy get.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { dir, isHandshake, isTls, mode, UPSTREAM } from "./cpu-run.ts";

/** One certificate for all, as rigs usually have it: an EC key on P-256. */
export const certificate = path.join(dir, "cert.pem");
export const key = path.join(dir, "key.pem");
if (isTls) {
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  execFileSync(
    "openssl",
    ["req", "-x509", ...curve, "-days", "2", ...names, "-keyout", key, "-out", certificate],
    { stdio: "ignore" },
  );
  fs.chmodSync(key, 0o644);
}
const socket = (port: number) => ({ socket_address: { address: "127.0.0.1", port_value: port } });
export const T = "type.googleapis.com/envoy.extensions.";

const OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const http2Upstream = {
  "@type": `type.googleapis.com/${OPTIONS}`,
  explicit_http_config: { http2_protocol_options: {} },
};

const downstreamTls = {
  name: "tls",
  typed_config: {
    "@type": `${T}transport_sockets.tls.v3.DownstreamTlsContext`,
    common_tls_context: {
      alpn_protocols: ["http/1.1"],
      tls_certificates: [
        { certificate_chain: { filename: certificate }, private_key: { filename: key } },
      ],
    },
  },
};

export const isProduction = mode === "production";
const retries = {
  retry_policy: {
    retry_on: "connect-failure,refused-stream,reset,gateway-error",
    num_retries: 2,
    per_try_timeout: "5s",
    retry_host_predicate: [
      {
        name: "envoy.retry_host_predicates.previous_hosts",
        typed_config: {
          "@type": `${T}retry.host.previous_hosts.v3.PreviousHostsPredicate`,
        },
      },
    ],
    host_selection_retry_max_attempts: 3,
  },
};
const limit = { max_connections: 4096, max_pending_requests: 4096, max_requests: 4096 };
const resilience = {
  circuit_breakers: {
    thresholds: [{ ...limit, retry_budget: { budget_percent: { value: 20 } } }],
  },
  outlier_detection: { consecutive_5xx: 5, interval: "5s", base_ejection_time: "30s" },
  health_checks: [
    {
      timeout: "1s",
      interval: "1s",
      unhealthy_threshold: 3,
      healthy_threshold: 2,
      http_health_check: { path: "/" },
    },
  ],
};
export const jsonLog = (
  file: string,
): { name: string; typed_config: Record<string, unknown> }[] => [
  {
    name: "file",
    typed_config: {
      "@type": `${T}access_loggers.file.v3.FileAccessLog`,
      path: file,
      log_format: {
        json_format: {
          start_time: "%START_TIME%",
          method: "%REQ(:METHOD)%",
          path: "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
          protocol: "%PROTOCOL%",
          status: "%RESPONSE_CODE%",
          flags: "%RESPONSE_FLAGS%",
          details: "%RESPONSE_CODE_DETAILS%",
          bytes_received: "%BYTES_RECEIVED%",
          bytes_sent: "%BYTES_SENT%",
          duration: "%DURATION%",
          authority: "%REQ(:AUTHORITY)%",
          user_agent: "%REQ(USER-AGENT)%",
          request_id: "%REQ(X-REQUEST-ID)%",
          forwarded_for: "%REQ(X-FORWARDED-FOR)%",
          upstream_host: "%UPSTREAM_HOST%",
          upstream_cluster: "%UPSTREAM_CLUSTER%",
          route: "%ROUTE_NAME%",
        },
      },
    },
  },
];

/** The front proxy as shipped: request ids, stats, routing; in the mode `production` with what a file there has besides. */
export function envoyConfig(port: number, extraFilters: object[] = [], log: object[] = []): string {
  const hcm = {
    "@type": `${T}filters.network.http_connection_manager.v3.HttpConnectionManager`,
    stat_prefix: "ingress_http",
    ...(log.length > 0 && { access_log: log }),
    // What ab and openssl's client speak.
    ...(isHandshake && {
      http_protocol_options: { accept_http_10: true, default_host_for_http_10: "a" },
    }),
    route_config: {
      name: "local_route",
      virtual_hosts: [
        {
          name: "backend",
          domains: ["*"],
          routes: [
            {
              match: { prefix: "/" },
              route: { cluster: "backend", ...(isProduction && retries) },
            },
          ],
        },
      ],
    },
    http_filters: [
      ...extraFilters,
      {
        name: "envoy.filters.http.router",
        typed_config: { "@type": `${T}filters.http.router.v3.Router` },
      },
    ],
  };
  const tcp = {
    "@type": `${T}filters.network.tcp_proxy.v3.TcpProxy`,
    stat_prefix: "tcp",
    cluster: "backend",
  };
  const filter = mode.startsWith("tcp")
    ? { name: "tcp", typed_config: tcp }
    : { name: "hcm", typed_config: hcm };
  return JSON.stringify({
    static_resources: {
      listeners: [
        {
          name: "main",
          address: socket(port),
          filter_chains: [{ filters: [filter], ...(isTls && { transport_socket: downstreamTls }) }],
        },
      ],
      clusters: [
        {
          name: "backend",
          type: "STATIC",
          connect_timeout: "0.25s",
          lb_policy: "ROUND_ROBIN",
          ...(isProduction && resilience),
          ...(mode === "h2h2" && {
            typed_extension_protocol_options: { [OPTIONS]: http2Upstream },
          }),
          load_assignment: {
            cluster_name: "backend",
            endpoints: [{ lb_endpoints: [{ endpoint: { address: socket(UPSTREAM) } }] }],
          },
        },
      ],
    },
  });
}

/** A server that answers by itself, with Node's own TLS: what Node takes without any proxy on top. */
export const bareTls = (port: number): string => `
const fs = require("node:fs");
const at = (file) => fs.readFileSync(file);
const certificate = { cert: at(${JSON.stringify(certificate)}), key: at(${JSON.stringify(key)}) };
require("node:tls").createServer(certificate, (socket) => {
  socket.on("error", () => socket.destroy());
  socket.once("data", () =>
    socket.end("HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 2\\r\\n\\r\\nok"),
  );
}).listen({ port: ${port}, host: "127.0.0.1", backlog: 8192 });`;
