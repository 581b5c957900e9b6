import {
  grpcTimeoutMs,
  type RequestHeaders,
  type RouteAction,
  type RoutePolicies,
} from "@tsproxy/sdk";
import type { Steering } from "./steering.ts";

/** Timeouts of one request in ms; 0: none. */
export interface Timeouts {
  readonly totalMs: number;
  readonly perTryMs: number;
  readonly perTryIdleMs: number;
}

/** Combines the timeouts of the route, of steering headers and of `grpc-timeout`. `grpc`: it is a gRPC request. */
export function finalTimeouts(
  action: RouteAction,
  steering: Steering | undefined,
  headers: RequestHeaders,
  options: { readonly grpc: boolean; readonly respectExpected: boolean },
): Timeouts {
  const { policies } = action;
  const expected = options.respectExpected ? steering?.expectedTimeoutMs : undefined;
  const totalMs =
    expected ?? steering?.timeoutMs ?? timeoutOfRoute(action, policies, headers, options.grpc);
  let perTryMs = steering?.perTryTimeoutMs ?? policies?.retry?.perTryTimeoutMs ?? 0;
  // A per-try timeout that is not shorter than the whole one has no effect.
  if (totalMs > 0 && perTryMs >= totalMs) perTryMs = 0;
  return { totalMs, perTryMs, perTryIdleMs: policies?.retry?.perTryIdleTimeoutMs ?? 0 };
}

function timeoutOfRoute(
  action: RouteAction,
  policies: RoutePolicies | undefined,
  headers: RequestHeaders,
  grpc: boolean,
): number {
  // `max_stream_duration` takes the place of `timeout`; the connection manager carries it out.
  if (policies?.streamDuration !== undefined) return 0;
  const most = policies?.maxGrpcTimeoutMs;
  if (most === undefined || !grpc) return action.timeoutMs;
  let timeout = grpcTimeoutMs(headers) ?? 0;
  const offset = policies!.grpcTimeoutOffsetMs;
  if (offset < timeout) timeout -= offset;
  if (most !== 0 && (timeout === 0 || timeout > most)) timeout = most;
  return timeout;
}

/** The timeout, in ms, that the upstream is told in an attempt begun `elapsedMs` after the request's end. 0: it is told none. */
export function expectedMs(timeouts: Timeouts, hedges: boolean, elapsedMs: number): number {
  const { totalMs, perTryMs } = timeouts;
  const expected = perTryMs === 0 || hedges ? totalMs : perTryMs;
  if (expected === 0 || totalMs === 0) return expected;
  // The upstream would read 0 as "no timeout".
  return Math.max(1, Math.min(expected, totalMs - Math.floor(elapsedMs)));
}
