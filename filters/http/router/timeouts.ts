import {
  headerName,
  type RequestHeaders,
  type RouteAction,
  type RoutePolicies,
} from "@tsproxy/sdk";
import type { Steering } from "./steering.ts";

const GRPC_TIMEOUT = headerName("grpc-timeout");
const UNIT_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 1 / 1000,
  n: 1 / 1_000_000,
};

/** 0: none. */
export interface Timeouts {
  readonly totalMs: number;
  readonly perTryMs: number;
  readonly perTryIdleMs: number;
}

/** What route, client and gRPC say together. `grpc`: the request is one of gRPC. */
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
  // One that the whole cannot outlast is none.
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

/** `1S`, `250m`: at most eight characters and a unit. Less than a millisecond counts as one. */
export function grpcTimeoutMs(headers: RequestHeaders): number | undefined {
  const text = headers.get(GRPC_TIMEOUT);
  if (text === undefined || text.length > 9) return undefined;
  // Envoy's library for numbers knows of plus signs and white space.
  const found = /^\s*\+?([0-9]+)\s*([HMSmun])$/.exec(text);
  return found === null ? undefined : Math.ceil(Number(found[1]) * UNIT_MS[found[2]!]!);
}

/** What an attempt that begins `elapsedMs` after the request's end may expect; 0: nothing is said of it. */
export function expectedMs(timeouts: Timeouts, hedges: boolean, elapsedMs: number): number {
  const { totalMs, perTryMs } = timeouts;
  const expected = perTryMs === 0 || hedges ? totalMs : perTryMs;
  if (expected === 0 || totalMs === 0) return expected;
  // 0 would be read as endless.
  return Math.max(1, Math.min(expected, totalMs - Math.floor(elapsedMs)));
}

/** Tells a gRPC upstream the same, where the route looks at `grpc-timeout` (`max_grpc_timeout`). */
export function setGrpcTimeout(headers: RequestHeaders, ms: number): void {
  // Eight digits is all the format has.
  const value = ms < 100_000_000 ? `${ms}m` : `${Math.min(99_999_999, Math.floor(ms / 1000))}S`;
  headers.set(GRPC_TIMEOUT, value);
}
