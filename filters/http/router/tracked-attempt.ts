import {
  type Cluster,
  FLAG,
  type HeaderMap,
  NAME_ID,
  type RequestHeaders,
  type ResponseHeaders,
  SPAN,
  type TrackedStats,
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
    const ofConnection = connectionSize(headers);
    const status = {
      bytes: ":status".length + 3 + ofConnection.bytes,
      count: 1 + ofConnection.count,
    };
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

const OF_CONNECTION: readonly number[] = [
  NAME_ID.CONNECTION,
  NAME_ID.KEEP_ALIVE,
  NAME_ID.PROXY_CONNECTION,
  NAME_ID.TRANSFER_ENCODING,
];

/** Size of the headers that concern the connection, which the codec has removed and which Envoy still has at this point. */
function connectionSize({ spans, count }: HeaderMap): Size {
  const size = { bytes: 0, count: 0 };
  for (let i = 0; i < count * SPAN; i += SPAN) {
    const flags = spans[i + 5]!;
    if ((flags & FLAG.REMOVED) === 0 || !OF_CONNECTION.includes(flags & FLAG.KNOWN)) continue;
    size.bytes += spans[i + 1]! - spans[i]! + spans[i + 3]! - spans[i + 2]!;
    size.count++;
  }
  return size;
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
