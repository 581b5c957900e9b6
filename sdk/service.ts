/** A listener that a service brings along: the same shape as in the config, after its references are resolved. */
export interface Service {
  /** A listener in the proxy's own chains, on the thread the service runs on. Envoy's Listener as JSON. */
  readonly listener?: unknown;
  /** Answers `cx.clusters`: the cluster manager. */
  readonly clusters?: import("./cluster.ts").Clusters;
}
