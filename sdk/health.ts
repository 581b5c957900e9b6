import type { Address, Connection, ConnectionHandler } from "./network.ts";

/** A health package's setup returns this: it checks the hosts of one cluster. Runs on the control thread alone. */
export interface HealthChecker {
  /** Envoy's word in event logs: `HTTP`, `TCP`, `GRPC`. */
  readonly type: string;
  create(target: HealthTarget, events: HealthEvents): HealthSession;
}

/** The host that is to be checked. */
export interface HealthTarget {
  readonly clusterName: string;
  readonly address: Address;
  /** `hostname` of the endpoint's `health_check_config`; "" if it has none. */
  readonly hostname: string;
  /** `reuse_connection`: the next check may go over the connection of this one. */
  readonly reuseConnection: boolean;
  /** How long a check may take; whoever calls `check` sees to that. Undefined: not known. */
  readonly timeoutMs?: number;
  connect(handler: ConnectionHandler): Connection;
  /** Counts `health_check.verify_cluster`: a response has been asked which service it is from. */
  onClusterVerified(): void;
}

/** The checks of one host, one after the other. */
export interface HealthSession {
  /** Begins a check; one of the events ends it. The check before has ended. */
  check(): void;
  /** The check took too long: no event comes for it any more. */
  onTimeout(): void;
  /** No further checks. */
  close(): void;
}

/** Is told what each check of a host has come to. */
export interface HealthEvents {
  onHealthy(options: { readonly degraded: boolean }): void;
  /**
   * `no`: the host has answered, and not as a healthy one does, which fails it at once; `network`: it could not be asked, which
   * counts towards the threshold. `retriable`: this "no" counts towards the threshold too. `immediate`: the host asks to be left out
   * (x-envoy-immediate-health-check-fail).
   */
  onFailure(failure: {
    readonly type: "no" | "network";
    readonly retriable?: boolean;
    readonly immediate?: boolean;
    /** HTTP status of the answer, for event logs. */
    readonly status?: number;
  }): void;
}
