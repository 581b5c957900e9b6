// Hot path: one object a request, reused with its RoutedRequest.
import {
  type Cluster,
  grpcTimeoutMs,
  headerName,
  isGrpcRequest,
  type RequestHeaders,
  type RouteAction,
  type RoutePolicies,
  setGrpcTimeout,
} from "@tsproxy/sdk";
import type { Attempt } from "./attempt.ts";
import type { Router } from "./router.ts";
import type { Steering } from "./steering.ts";

const EXPECTED_TIMEOUT = headerName("x-envoy-expected-rq-timeout-ms");

/** The timeouts of one request in ms, 0 for none: of the route, the cluster, steering headers and `grpc-timeout`. */
export class Timeouts {
  totalMs = 0;
  perTryMs = 0;
  perTryIdleMs = 0;
  /** `max_stream_duration` of the cluster or of a steering header; it limits an attempt. */
  streamDurationMs = 0;
  /** A try that takes too long goes on beside another one (`hedge_on_per_try_timeout`). */
  hedges = false;
  /** A timeout is answered with 204 instead of 504. */
  quiet = false;
  readonly #router: Router;
  #policies: RoutePolicies | undefined = undefined;

  constructor(router: Router) {
    this.#router = router;
  }

  /** Decides the timeouts of a request, and writes into the head which one the upstream has to keep. */
  begin(
    cluster: Cluster,
    action: RouteAction,
    steering: Steering | undefined,
    headers: RequestHeaders,
  ): void {
    const { policies } = action;
    this.#policies = policies;
    this.totalMs = action.timeoutMs;
    this.perTryMs = this.perTryIdleMs = 0;
    this.streamDurationMs = cluster.maxStreamDurationMs ?? 0;
    this.hedges = this.quiet = false;
    if (steering !== undefined || policies !== undefined) {
      this.#combine(action, steering, headers);
      this.tell(headers, 0);
    } else if (this.totalMs > 0 && !this.#router.config.suppress_envoy_headers) {
      // The head has no such line yet: the connection manager removes it from heads of external clients.
      headers.appendLine(this.#router.expectedTimeoutLine(this.totalMs));
    }
  }

  #combine(action: RouteAction, steering: Steering | undefined, headers: RequestHeaders): void {
    const { policies } = action;
    const respects = this.#router.config.respect_expected_rq_timeout;
    const expected = respects ? steering?.expectedTimeoutMs : undefined;
    this.totalMs = expected ?? steering?.timeoutMs ?? timeoutOfRoute(action, policies, headers);
    const perTryMs = steering?.perTryTimeoutMs ?? policies?.retry?.perTryTimeoutMs ?? 0;
    // A per-try timeout that is not shorter than the whole one has no effect.
    this.perTryMs = this.totalMs > 0 && perTryMs >= this.totalMs ? 0 : perTryMs;
    this.perTryIdleMs = policies?.retry?.perTryIdleTimeoutMs ?? 0;
    this.streamDurationMs = steering?.streamDurationMs ?? this.streamDurationMs;
    this.hedges = steering?.hedge ?? policies?.hedgeOnPerTryTimeout ?? false;
    this.quiet = steering?.quietTimeout ?? false;
  }

  /** Writes into the head how long an attempt may take that begins `elapsedMs` after the end of the request. */
  tell(headers: RequestHeaders, elapsedMs: number): void {
    const ms = this.#expectedMs(elapsedMs);
    if (ms === 0) return;
    const router = this.#router;
    if (!router.config.suppress_envoy_headers) {
      const line = router.expectedTimeoutLine(ms);
      if (headers.has(EXPECTED_TIMEOUT)) headers.replace(EXPECTED_TIMEOUT, line.value);
      else headers.appendLine(line);
    }
    const policies = this.#policies;
    if (policies?.maxGrpcTimeoutMs === undefined || policies.streamDuration !== undefined) return;
    if (isGrpcRequest(headers)) setGrpcTimeout(headers, ms);
  }

  /** The timeout that the upstream is told; 0: it is told none. */
  #expectedMs(elapsedMs: number): number {
    const { totalMs, perTryMs } = this;
    const expected = perTryMs === 0 || this.hedges ? totalMs : perTryMs;
    if (expected === 0 || totalMs === 0) return expected;
    // The upstream would read 0 as "no timeout".
    return Math.max(1, Math.min(expected, totalMs - Math.floor(elapsedMs)));
  }

  /** Starts the timeouts of an attempt that has got its connection. `isTimed`: the time of its answer counts already. */
  onReady(attempt: Attempt, isTimed: boolean): void {
    if (isTimed) this.startTry(attempt);
    attempt.limit("duration", this.streamDurationMs);
  }

  /** The upstream has the whole request: until then the client may take its time. */
  startTry(attempt: Attempt): void {
    attempt.limit("try", this.perTryMs);
    attempt.limit("idle", this.perTryIdleMs);
  }
}

function timeoutOfRoute(
  action: RouteAction,
  policies: RoutePolicies | undefined,
  headers: RequestHeaders,
): number {
  // `max_stream_duration` takes the place of `timeout`; the connection manager carries it out.
  if (policies?.streamDuration !== undefined) return 0;
  const most = policies?.maxGrpcTimeoutMs;
  if (most === undefined || !isGrpcRequest(headers)) return action.timeoutMs;
  let timeout = grpcTimeoutMs(headers) ?? 0;
  const offset = policies!.grpcTimeoutOffsetMs;
  if (offset < timeout) timeout -= offset;
  if (most !== 0 && (timeout === 0 || timeout > most)) timeout = most;
  return timeout;
}
