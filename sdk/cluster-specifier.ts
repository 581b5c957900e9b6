import type { RequestHeaders } from "./headers.ts";
import type { MatchSubject } from "./matcher-inputs.ts";

/** What a cluster specifier may look at: the head as filters have left it, where it came from, what they know of it. */
export interface SpecifierSubject extends MatchSubject {
  readonly request: RequestHeaders;
  /** A whole number of 48 bits, the same for a stream however often its route is chosen. */
  readonly random: number;
}

/**
 * What a cluster specifier package's setup returns: it names the cluster of requests whose route leaves that to it
 * (`cluster_specifier_plugin`, `inline_cluster_specifier_plugin`). What it is asked for is on the data path: it answers at once,
 * and does not throw.
 */
export interface ClusterSpecifier {
  /**
   * Asked each time the route is chosen, for one stream perhaps more than once. A name that no cluster has, "" or undefined: the
   * request is answered with the route's `cluster_not_found_response_code`.
   */
  cluster(subject: SpecifierSubject): string | undefined;
}
