/**
 * Keys of `filterState` by which a filter asks others on the same stream for something. The values are JSON, so that filters in
 * sandboxes can ask too.
 */
export const WISH = {
  /** OverrideHost: the upstream that the first attempt goes to. Read by the router. */
  UPSTREAM_HOST: "envoy.upstream.override_host",
  /** True: the client's connection closes behind this response. Read by the connection manager. */
  DRAIN_CONNECTION: "envoy.downstream.drain_connection",
  /** A string: the words behind an HTTP/1 response's status. Read by the connection manager. */
  REASON_PHRASE: "envoy.downstream.reason_phrase",
} as const;

/** The host that a stream is to go to, whatever the balancer would choose. */
export interface OverrideHost {
  /** `ip:port` */
  readonly address: string;
  /** True: if the host does not exist or is unhealthy, the request fails (503). False: the load balancer chooses then. */
  readonly strict: boolean;
}

/** Reads a value of `filterState`; undefined: it has not the shape of an OverrideHost. */
export function overrideHostOf(value: unknown): OverrideHost | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { address, strict } = value as Partial<OverrideHost>;
  return typeof address === "string" ? { address, strict: strict === true } : undefined;
}

/** Key of a stream's typed metadata in `filterState`: for each namespace, the fields of its message as in JSON. */
export const TYPED_METADATA = "envoy.typed_metadata";

/** The typed metadata of a stream, by namespace; undefined: it has none. */
export function typedMetadataOf(
  filterState: ReadonlyMap<string, unknown>,
): Readonly<Record<string, unknown>> | undefined {
  const found = filterState.get(TYPED_METADATA);
  return typeof found === "object" && found !== null
    ? (found as Record<string, unknown>)
    : undefined;
}
