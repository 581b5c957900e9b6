// Hot path: one object a request, reused with its RoutedRequest.
import type { Cluster, Host, HttpStream, RouteAction } from "@tsproxy/sdk";
import type { Router } from "./router.ts";
import type { Answered, ClusterCharges, VirtualCharges } from "./stats.ts";

const NOBODY_ELSE: readonly VirtualCharges[] = [];

/** What one request counts: for its cluster, and for its virtual cluster and its route where they have stats of their own. */
export class RequestCharges implements Answered {
  internal = false;
  canary = false;
  withoutCode = false;
  /** Name from `x-envoy-upstream-alt-stat-name`; undefined: none. */
  altName: string | undefined = undefined;
  /** Stats of the virtual cluster and of the route, where they have their own. */
  also: readonly VirtualCharges[] = NOBODY_ELSE;
  /** Set by `open`. */
  cluster!: ClusterCharges;
  readonly #router: Router;
  #host: Host | undefined = undefined;
  /** No codes and times are counted: `dynamic_stats` is off, or, as in Envoy, the request is a health check. */
  #quiet = false;

  constructor(router: Router) {
    this.#router = router;
  }

  /** Begins a request to `cluster`. */
  open(cluster: Cluster, action: RouteAction, { info }: HttpStream): void {
    const ofRoute = action.policies?.stats;
    this.internal = this.canary = this.withoutCode = false;
    this.altName = undefined;
    this.#host = undefined;
    this.#quiet = !this.#router.config.dynamic_stats || info.healthCheck === true;
    this.cluster = this.#router.charges(cluster);
    this.also =
      info.virtualCluster === undefined && ofRoute === undefined
        ? NOBODY_ELSE
        : this.#router.virtualCharges(info.virtualCluster, ofRoute);
  }

  get zone(): string {
    return this.#host?.zone ?? "";
  }

  /** Called each time the request is sent to a host. */
  sent(): void {
    for (let k = 0; k < this.also.length; k++) this.also[k]!.total.inc();
  }

  /** Counts an answer. `host`: the attempt's; undefined: it had none. */
  response(status: number, host: Host | undefined): void {
    if (this.#quiet) return;
    this.#host = host;
    this.cluster.response(status, this, this.altName);
    for (let k = 0; k < this.also.length; k++) this.also[k]!.response(status, this.withoutCode);
  }

  time(ms: number): void {
    if (this.#quiet) return;
    this.cluster.time(ms, this, this.altName);
    for (let k = 0; k < this.also.length; k++) this.also[k]!.time(ms);
  }

  timedOut(): void {
    this.cluster.traffic.rqTimeout.inc();
    for (let k = 0; k < this.also.length; k++) this.also[k]!.timeout.inc();
  }
}
