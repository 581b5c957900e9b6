import type { HostSpec } from "./cluster.ts";
import { type Address, internalAddress } from "./network.ts";
import { FractionalPercent } from "./runtime.ts";
import { Enum, type Static, Type, UInt32 } from "./schema.ts";

const EndpointAddress = Type.Object({
  socket_address: Type.Optional(
    Type.Object({
      address: Type.String({ minLength: 1 }),
      port_value: Type.Optional(UInt32({ maximum: 65535 })),
      /** Accepted, and without effect: the user of the endpoint knows its protocol. */
      protocol: Type.Optional(Enum(["TCP", "UDP"])),
    }),
  ),
  pipe: Type.Optional(Type.Object({ path: Type.String({ minLength: 1 }) })),
  /** A listener of this proxy. */
  envoy_internal_address: Type.Optional(
    Type.Object({
      server_listener_name: Type.String({ minLength: 1 }),
      endpoint_id: Type.Optional(Type.String()),
    }),
  ),
});
type EndpointAddress = Static<typeof EndpointAddress>;

const LbEndpoint = Type.Object({
  endpoint: Type.Object({
    address: EndpointAddress,
    /** For clusters whose hosts are given by address (STATIC, EDS). */
    additional_addresses: Type.Optional(Type.Array(Type.Object({ address: EndpointAddress }))),
    hostname: Type.Optional(Type.String()),
    health_check_config: Type.Optional(
      Type.Object({
        port_value: Type.Optional(UInt32({ maximum: 65535 })),
        hostname: Type.Optional(Type.String()),
        address: Type.Optional(EndpointAddress),
        disable_active_health_check: Type.Optional(Type.Boolean()),
      }),
    ),
  }),
  health_status: Type.Optional(
    Enum(["UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"]),
  ),
  load_balancing_weight: Type.Optional(UInt32({ minimum: 1 })),
  metadata: Type.Optional(
    Type.Object({ filter_metadata: Type.Optional(Type.Record(Type.String(), Type.Unknown())) }),
  ),
});

/** Envoy's ClusterLoadAssignment, as cluster packages have it in their config. */
export const LoadAssignment = Type.Object({
  cluster_name: Type.Optional(Type.String()),
  endpoints: Type.Optional(
    Type.Array(
      Type.Object({
        locality: Type.Optional(
          Type.Object({
            region: Type.Optional(Type.String()),
            zone: Type.Optional(Type.String()),
            sub_zone: Type.Optional(Type.String()),
          }),
        ),
        lb_endpoints: Type.Optional(Type.Array(LbEndpoint)),
        load_balancing_weight: Type.Optional(UInt32({ minimum: 1 })),
        priority: Type.Optional(UInt32({ maximum: 128 })),
      }),
    ),
  ),
  policy: Type.Optional(
    Type.Object({
      drop_overloads: Type.Optional(
        Type.Array(
          Type.Object({
            category: Type.Optional(Type.String({ minLength: 1 })),
            drop_percentage: Type.Optional(FractionalPercent),
          }),
        ),
      ),
      overprovisioning_factor: Type.Optional(UInt32({ minimum: 1 })),
      weighted_priority_health: Type.Optional(Type.Boolean()),
    }),
  ),
});
export type LoadAssignment = Static<typeof LoadAssignment>;

/** An endpoint and where it stands in the assignment (`endpoints[0].lb_endpoints[2]`). `spec.ip` may still be a name. */
export interface Endpoint {
  readonly spec: HostSpec;
  readonly path: string;
}

/** All endpoints of an assignment, in its order. */
export function endpointsOf(assignment: LoadAssignment | undefined): Endpoint[] {
  const endpoints: Endpoint[] = [];
  for (const [l, locality] of (assignment?.endpoints ?? []).entries()) {
    for (const [e, entry] of (locality.lb_endpoints ?? []).entries()) {
      const spec: HostSpec = {
        ...addressOf(entry.endpoint.address),
        hostname: entry.endpoint.hostname ?? "",
        weight: entry.load_balancing_weight ?? 1,
        priority: locality.priority ?? 0,
        healthStatus: entry.health_status ?? "UNKNOWN",
        ...(locality.locality !== undefined && {
          locality: locality.locality as NonNullable<HostSpec["locality"]>,
        }),
        ...(locality.load_balancing_weight !== undefined && {
          localityWeight: locality.load_balancing_weight,
        }),
        ...additionalOf(entry.endpoint.additional_addresses),
        ...healthCheckOf(entry.endpoint.health_check_config),
        ...(entry.metadata !== undefined && { metadata: entry.metadata }),
      };
      endpoints.push({ spec, path: `endpoints[${l}].lb_endpoints[${e}]` });
    }
  }
  return endpoints;
}

function additionalOf(
  list: Static<typeof LbEndpoint>["endpoint"]["additional_addresses"] = [],
): Pick<HostSpec, "additionalAddresses"> {
  if (list.length === 0) return {};
  return { additionalAddresses: list.map(({ address }) => addressOf(address)) };
}

function addressOf(config: EndpointAddress): Address {
  const { socket_address: socket, pipe, envoy_internal_address: internal } = config;
  if (internal !== undefined)
    return internalAddress(internal.server_listener_name, internal.endpoint_id);
  return {
    ip: socket?.address ?? "",
    port: socket?.port_value ?? 0,
    ...(pipe !== undefined && { path: pipe.path }),
  };
}

function healthCheckOf(
  config: Static<typeof LbEndpoint>["endpoint"]["health_check_config"],
): Pick<HostSpec, "healthCheck"> {
  if (config === undefined) return {};
  const ip = config.address?.socket_address?.address;
  return {
    healthCheck: {
      disabled: config.disable_active_health_check ?? false,
      port: config.port_value || (config.address?.socket_address?.port_value ?? 0),
      hostname: config.hostname ?? "",
      ...(ip !== undefined && { ip }),
    },
  };
}
