/**
 * What filters want of others that handle their stream, left in its `filterState` under these keys. The values are JSON, so that
 * filters in sandboxes can want it too.
 */
export const WISH = {
  /** OverrideHost: the upstream that the first attempt goes to. Read by the router. */
  UPSTREAM_HOST: "envoy.upstream.override_host",
  /** True: the client's connection closes behind this response. Read by the connection manager. */
  DRAIN_CONNECTION: "envoy.downstream.drain_connection",
  /** A string: the words behind an HTTP/1 response's status. Read by the connection manager. */
  REASON_PHRASE: "envoy.downstream.reason_phrase",
} as const;

export interface OverrideHost {
  /** `ip:port` */
  readonly address: string;
  /** A host that is not there, or unhealthy, is an error (503); else the load balancer chooses. */
  readonly strict: boolean;
}

/** What may stand in `filterState`; undefined: it is no such thing, whoever put it there. */
export function overrideHostOf(value: unknown): OverrideHost | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { address, strict } = value as Partial<OverrideHost>;
  return typeof address === "string" ? { address, strict: strict === true } : undefined;
}
