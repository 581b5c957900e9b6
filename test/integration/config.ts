/** Short ways to write bootstraps; all of them are plain JSON in Envoy's names. */

const TYPE = "type.googleapis.com/envoy.extensions.";

export interface Json {
  [name: string]: unknown;
}

export const router: Json = {
  name: "envoy.filters.http.router",
  typed_config: { "@type": `${TYPE}filters.http.router.v3.Router` },
};

export function address(port: number, host = "127.0.0.1"): Json {
  return { socket_address: { address: host, port_value: port } };
}

/** An http_connection_manager with these routes; `more` are further fields of its config. */
export function http(
  routes: readonly Json[],
  more: Json = {},
  filters: readonly Json[] = [],
): Json {
  return {
    name: "envoy.filters.network.http_connection_manager",
    typed_config: {
      "@type": `${TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: "test",
      route_config: { name: "routes", virtual_hosts: [{ name: "all", domains: ["*"], routes }] },
      http_filters: [...filters, router],
      ...more,
    },
  };
}

/** A route by prefix to a cluster. The 15 s that a response may take else are short for one on a busy machine. */
export function route(prefix: string, cluster: string, more: Json = {}): Json {
  return { match: { prefix }, route: { cluster, timeout: "0s", ...more } };
}

/** A route by prefix that answers by itself. */
export function direct(prefix: string, text: string, status = 200): Json {
  return { match: { prefix }, direct_response: { status, body: { inline_string: text } } };
}

export function tcpProxy(cluster: string): Json {
  return {
    name: "envoy.filters.network.tcp_proxy",
    typed_config: {
      "@type": `${TYPE}filters.network.tcp_proxy.v3.TcpProxy`,
      stat_prefix: "tcp",
      cluster,
    },
  };
}

/** A transport socket for clients of HTTP/2 and HTTP/1.1, with this certificate. */
export function downstreamTls({ certificate, key }: { certificate: string; key: string }): Json {
  return {
    name: "tls",
    typed_config: {
      "@type": `${TYPE}transport_sockets.tls.v3.DownstreamTlsContext`,
      common_tls_context: {
        alpn_protocols: ["h2", "http/1.1"],
        tls_certificates: [
          { certificate_chain: { filename: certificate }, private_key: { filename: key } },
        ],
      },
    },
  };
}

export function accessLog(path: string, format: string): Json {
  return {
    name: "envoy.access_loggers.file",
    typed_config: {
      "@type": `${TYPE}access_loggers.file.v3.FileAccessLog`,
      path,
      log_format: { text_format_source: { inline_string: format } },
    },
  };
}

/** A listener on a free port. */
export function listener(name: string, filter: Json, more: Json = {}): Json {
  return { name, address: address(0), filter_chains: [{ filters: [filter] }], ...more };
}

/** A STATIC cluster with a host for each port. */
export function cluster(name: string, ports: readonly number[], more: Json = {}): Json {
  const hosts = ports.map((port) => ({ endpoint: { address: address(port) } }));
  return {
    name,
    type: "STATIC",
    connect_timeout: "30s",
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: hosts }] },
    ...more,
  };
}

/** Internal listeners need it, as in Envoy. */
export const INTERNAL_LISTENERS = {
  name: "envoy.bootstrap.internal_listener",
  typed_config: { "@type": `${TYPE}bootstrap.internal_listener.v3.InternalListener` },
};

export function internal(name: string, filter: Json, more: Json = {}): Json {
  return { name, internal_listener: {}, filter_chains: [{ filters: [filter] }], ...more };
}

/** A cluster of one endpoint, the internal listener `target`. */
export function towards(name: string, target: string, more: Json = {}, endpoint: Json = {}): Json {
  const address = { envoy_internal_address: { server_listener_name: target, endpoint_id: "one" } };
  const lb_endpoints = [{ endpoint: { address }, ...endpoint }];
  return { name, load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints }] }, ...more };
}

/** A cluster's transport socket that passes metadata on to the internal listener, around another. */
export function throughInternalUpstream(
  transport_socket: Json,
  passthrough_metadata: readonly Json[] = [],
): Json {
  return {
    name: "envoy.transport_sockets.internal_upstream",
    typed_config: {
      "@type": `${TYPE}transport_sockets.internal_upstream.v3.InternalUpstreamTransport`,
      passthrough_metadata,
      transport_socket,
    },
  };
}

/** What lets a test hold thousands of requests and connections at once. */
export const unlimited: Json = {
  circuit_breakers: {
    thresholds: [
      { max_connections: 100_000, max_pending_requests: 100_000, max_requests: 100_000 },
    ],
  },
};

export function bootstrap(listeners: readonly Json[], clusters: readonly Json[] = []): Json {
  return { static_resources: { listeners, clusters }, admin: { address: address(0) } };
}
