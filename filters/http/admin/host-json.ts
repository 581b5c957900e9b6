import { type HostStatus, readInternalAddress } from "@tsproxy/sdk";
import type { SocketAddress } from "./core-data.ts";

/** Envoy's `core.v3.Address`. */
export function addressJson(address: SocketAddress): unknown {
  const internal = readInternalAddress(address);
  if (internal !== undefined) {
    const { listener, endpointId } = internal;
    return {
      envoy_internal_address: {
        server_listener_name: listener,
        ...(endpointId !== "" && { endpoint_id: endpointId }),
      },
    };
  }
  if (address.path !== undefined) return { pipe: { path: address.path } };
  return { socket_address: { address: address.ip, port_value: address.port } };
}

/** What discovery says of a host's health, under the name that Envoy has for "nothing". */
export function healthStatusOf({ healthStatus }: HostStatus): string {
  if (healthStatus === "" || healthStatus === "UNKNOWN") return "HEALTHY";
  return healthStatus === "TIMEOUT" ? "UNHEALTHY" : healthStatus;
}

/** Envoy's `core.v3.Locality`. */
export function localityJson(host: HostStatus): Record<string, string> {
  const locality: Record<string, string> = {};
  for (const key of ["region", "zone", "sub_zone"] as const) {
    const value = host.locality?.[key];
    if (value !== undefined && value !== "") locality[key] = value;
  }
  return locality;
}
