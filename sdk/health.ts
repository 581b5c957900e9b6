import type { Address, Connection, ConnectionHandler } from "./network.ts";

/** A health package's setup returns this: how hosts of one cluster are checked. Runs on the control thread alone. */
export interface HealthChecker {
  /** Envoy's word in event logs: `HTTP`, `TCP`, `GRPC`. */
  readonly type: string;
  create(target: HealthTarget, events: HealthEvents): HealthSession;
}

/** The host that is to be checked. */
export interface HealthTarget {
  readonly clusterName: string;
  readonly address: Address;
  /** Of its `health_check_config`; "" if that does not say. */
  readonly hostname: string;
  /** `reuse_connection`: the next check may go over the connection of this one. */
  readonly reuseConnection: boolean;
  /** What a check may take; whoever runs it sees to that. Undefined: not said. */
  readonly timeoutMs?: number;
  connect(handler: ConnectionHandler): Connection;
  /** `health_check.verify_cluster`: a response was asked whose it is. */
  onClusterVerified(): void;
}

/** The checks of one host, one after the other. */
export interface HealthSession {
  /** Begins a check; its end is told once, by one of the events. The one before has ended. */
  check(): void;
  /** It took too long: nothing is told of it any more. */
  onTimeout(): void;
  /** No checks any more. */
  close(): void;
}

export interface HealthEvents {
  onHealthy(options: { readonly degraded: boolean }): void;
  /**
   * `no`: the host answered, and not as a healthy one does; `network`: it could not be asked. `retriable`: it counts towards the
   * threshold, where a no fails the host at once. `immediate`: the host asks to be left out (x-envoy-immediate-health-check-fail).
   */
  onFailure(failure: {
    readonly type: "no" | "network";
    readonly retriable?: boolean;
    readonly immediate?: boolean;
    /** Of an HTTP answer, for event logs. */
    readonly status?: number;
  }): void;
}
