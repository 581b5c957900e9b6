import { headerName, type RequestHeaders } from "./headers.ts";

const GRPC_TIMEOUT = headerName("grpc-timeout");
const UNIT_MS: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 1 / 1000,
  n: 1 / 1_000_000,
};

/**
 * Milliseconds that a request's `grpc-timeout` grants: `1S`, `250m`, at most eight digits and a unit (gRPC over HTTP/2,
 * "Requests"). Part of a millisecond counts as one. Undefined: there is no such header, or it says no time.
 */
export function grpcTimeoutMs(headers: RequestHeaders): number | undefined {
  const text = headers.get(GRPC_TIMEOUT);
  if (text === undefined || text.length > 9) return undefined;
  // Envoy's library for numbers takes plus signs and white space too.
  const found = /^\s*\+?([0-9]+)\s*([HMSmun])$/.exec(text);
  return found === null ? undefined : Math.ceil(Number(found[1]) * UNIT_MS[found[2]!]!);
}

/** Tells a gRPC upstream how long it has, in seconds where the milliseconds would take more than eight digits. */
export function setGrpcTimeout(headers: RequestHeaders, ms: number): void {
  const value = ms < 100_000_000 ? `${ms}m` : `${Math.min(99_999_999, Math.floor(ms / 1000))}S`;
  headers.set(GRPC_TIMEOUT, value);
}
