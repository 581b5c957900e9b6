import type { Clusters } from "./cluster.ts";

/** What a service package's setup returns. */
export interface Service {
  /** A listener that core opens for it on the thread where the service runs: Envoy's Listener as JSON. */
  readonly listener?: unknown;
  /** What `cx.clusters` answers to every package: the cluster manager has it. */
  readonly clusters?: Clusters;
}
