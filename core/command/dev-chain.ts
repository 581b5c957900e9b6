import type { TSchema } from "@sinclair/typebox";
import { sampleConfig } from "@tsproxy/sdk/testing";
import { stringify } from "yaml";
import type { PackageInfo } from "../protocol.ts";

export interface ChainPorts {
  /** Ports of the HTTP listener and the plain TCP listener. */
  readonly http: number;
  readonly tcp: number;
  readonly admin: number;
  /** Ports of the echo upstreams. */
  readonly httpEcho: readonly number[];
  readonly tcpEcho: number;
  /** Routes get no timeout, since a debugger may hold a request in a filter. */
  readonly noTimeouts?: boolean;
}

/** The cluster that requests are sent to, and that a filter's config names where it has to name one. */
const ECHO = "echo";

/** Kinds of packages that need the HTTP listener. */
const HTTP_KINDS = new Set(["http", "access_log", "listener", "balancer"]);

/**
 * Generates a config that uses each of these packages once, in front of echo upstreams: what `filter dev` runs if it is given
 * none.
 */
export function devConfig(packages: readonly PackageInfo[], ports: ChainPorts): string {
  const of = (kind: string) => packages.filter((info) => info.kind === kind).map(useOf);
  const isTcp = packages.some((info) => info.kind === "network");
  const isHttp = !isTcp || packages.some((info) => HTTP_KINDS.has(info.kind));
  const listeners = [
    ...(isHttp ? [httpListener(of, ports)] : []),
    ...(isTcp ? [tcpListener(packages, ports)] : []),
  ];
  const [policy] = of("balancer");
  const clusters = [
    cluster(ECHO, ports.httpEcho, policy),
    ...(isTcp ? [cluster("tcp_echo", [ports.tcpEcho], undefined)] : []),
  ];
  const config = { static_resources: { listeners, clusters }, admin: { address: at(ports.admin) } };
  return stringify(config, { lineWidth: 0 });
}

type UsesOf = (kind: string) => Use[];
interface Use {
  readonly name: string;
  readonly config: unknown;
}

function httpListener(of: UsesOf, { http, noTimeouts = false }: ChainPorts): unknown {
  const route = { cluster: ECHO, ...(noTimeouts && { timeout: "0s" }) };
  const routes = [{ match: { prefix: "/" }, route }];
  const manager = {
    stat_prefix: "http",
    // Without request ids, a request that is sent again reaches the upstream unchanged.
    generate_request_id: false,
    route_config: { name: "dev", virtual_hosts: [{ name: "all", domains: ["*"], routes }] },
    http_filters: [...of("http"), { name: "http/router", config: {} }],
    access_log: of("access_log"),
  };
  return {
    name: "http",
    address: at(http),
    listener_filters: of("listener"),
    filter_chains: [{ filters: [{ name: "network/http_connection_manager", config: manager }] }],
  };
}

function tcpListener(packages: readonly PackageInfo[], { tcp }: ChainPorts): unknown {
  const own = packages.filter((info) => info.kind === "network");
  const filters: Use[] = own.filter((info) => !info.terminal).map(useOf);
  const last = own.find((info) => info.terminal);
  filters.push(
    last === undefined
      ? { name: "network/tcp_proxy", config: { stat_prefix: "tcp", cluster: "tcp_echo" } }
      : useOf(last),
  );
  return { name: "tcp", address: at(tcp), filter_chains: [{ filters }] };
}

function cluster(name: string, ports: readonly number[], policy: Use | undefined): unknown {
  const endpoint = (port: number) => ({ endpoint: { address: at(port) } });
  const lb_endpoints = ports.map(endpoint);
  return {
    name,
    type: "STATIC",
    connect_timeout: "10s",
    ...(policy !== undefined && {
      load_balancing_policy: { policies: [{ typed_extension_config: policy }] },
    }),
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints }] },
  };
}

function at(port: number): unknown {
  return { socket_address: { address: "127.0.0.1", port_value: port } };
}

function useOf({ package: name, schema }: PackageInfo): Use {
  return { name, config: sampleOf(schema, ECHO) };
}

/** As a config file has it: the smallest config that a package takes. `cluster`: the one that it may ask. */
export function sampleOf(schema: unknown, cluster = "x"): unknown {
  return sampleConfig(schema as TSchema, { second: "1s", cluster }) ?? {};
}
