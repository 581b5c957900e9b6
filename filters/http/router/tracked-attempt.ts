import type {
  Cluster,
  HeaderMap,
  RequestHeaders,
  ResponseHeaders,
  TrackedStats,
} from "@tsproxy/sdk";

/** What percent of a timeout has been used, rounded down; 0 where there is no timeout. */
export function percentOf(ms: number, timeoutMs: number): number {
  return timeoutMs === 0 ? 0 : Math.floor((100 * Math.floor(ms)) / timeoutMs);
}

/** Measures one attempt in a cluster with `track_cluster_stats`; records its histograms when the attempt is over. */
export class TrackedAttempt {
  readonly #cluster: Cluster;
  readonly #tracks: TrackedStats;
  readonly #request: RequestHeaders;
  readonly #startedAt: number;
  readonly #perTryMs: number;
  #sent = 0;
  #received = 0;
  #responseHead: { readonly bytes: number; readonly count: number } | undefined = undefined;

  constructor(
    cluster: Cluster,
    tracks: TrackedStats,
    request: RequestHeaders,
    { startedAt, perTryMs }: { readonly startedAt: number; readonly perTryMs: number },
  ) {
    this.#cluster = cluster;
    this.#tracks = tracks;
    this.#request = request;
    this.#startedAt = startedAt;
    this.#perTryMs = perTryMs;
  }

  onSent(bytes: number): void {
    this.#sent += bytes;
  }

  /** Measures the head at once: filters and the route edit it later. */
  onHead(headers: ResponseHeaders): void {
    const status = { bytes: ":status".length + 3, count: 1 };
    this.#responseHead = sizeOf(headers, status);
  }

  onReceived(bytes: number): void {
    this.#received += bytes;
  }

  end(now: number): void {
    const { stats } = this.#cluster;
    if (this.#tracks.timeoutBudgets) {
      const percent = percentOf(now - this.#startedAt, this.#perTryMs);
      stats.histogram("upstream_rq_timeout_budget_per_try_percent_used").record(percent);
    }
    if (!this.#tracks.requestResponseSizes) return;
    const request = requestSize(this.#request);
    stats.histogram("upstream_rq_headers_size", "bytes").record(request.bytes);
    stats.histogram("upstream_rq_headers_count").record(request.count);
    stats.histogram("upstream_rq_body_size", "bytes").record(this.#sent);
    const response = this.#responseHead;
    if (response === undefined) return;
    stats.histogram("upstream_rs_headers_size", "bytes").record(response.bytes);
    stats.histogram("upstream_rs_headers_count").record(response.count);
    stats.histogram("upstream_rs_body_size", "bytes").record(this.#received);
  }
}

interface Size {
  readonly bytes: number;
  readonly count: number;
}

/** Size of a request head as Envoy stores it: names and values, pseudo-headers (`:method` …) included. */
function requestSize(headers: RequestHeaders): Size {
  const { method, scheme, path, authority } = headers;
  const parts = { ":method": method, ":scheme": scheme, ":path": path, ":authority": authority };
  const pseudo = { bytes: 0, count: 0 };
  for (const [name, value] of Object.entries(parts)) {
    if (value === undefined || value === "") continue;
    pseudo.bytes += name.length + value.length;
    pseudo.count++;
  }
  return sizeOf(headers, pseudo);
}

function sizeOf(headers: HeaderMap, pseudo: Size): Size {
  let { bytes, count } = pseudo;
  for (const [name, value] of headers) {
    if (name === "host") continue;
    bytes += name.length + value.length;
    count++;
  }
  return { bytes, count };
}
