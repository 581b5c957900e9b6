import { headerName, isGrpcRequest, type RequestHeaders, type StreamDuration } from "@tsproxy/sdk";

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
 * How long a stream may take by its route, with what a gRPC client says in `grpc-timeout` where the route heeds that; a gRPC
 * upstream is told the same. 0: endless; undefined: the connection manager's own limit, `managerMs`, holds.
 */
export function durationOf(
  config: StreamDuration,
  headers: RequestHeaders,
  managerMs: number,
): number | undefined {
  const most = config.grpcTimeoutHeaderMaxMs;
  const asked = most === undefined ? undefined : grpcTimeoutMs(headers);
  if (asked === undefined) {
    const ms = config.maxMs ?? managerMs;
    if (isGrpcRequest(headers)) {
      if (ms > 0) tellGrpc(headers, ms);
      // Envoy's rule: only where it lifts a limit.
      else if (managerMs > 0) headers.remove(GRPC_TIMEOUT);
    }
    return config.maxMs;
  }
  let ms = most !== 0 && asked > most! ? most! : asked;
  const offset = config.grpcTimeoutHeaderOffsetMs ?? 0;
  if (ms !== 0 && offset > 0) ms = offset < ms ? ms - offset : 0;
  if (isGrpcRequest(headers)) tellGrpc(headers, ms);
  // What is left of a deadline that has passed is no time at all, and not all the time there is.
  return ms === 0 ? AT_ONCE_MS : ms;
}
const AT_ONCE_MS = 1 / 1000;

/** Eight digits is all the format has. */
function tellGrpc(headers: RequestHeaders, ms: number): void {
  const value = ms < 100_000_000 ? `${ms}m` : `${Math.min(99_999_999, Math.floor(ms / 1000))}S`;
  headers.set(GRPC_TIMEOUT, value);
}

/** `1S`, `250m`: at most eight characters and a unit. Part of a millisecond counts as one. */
function grpcTimeoutMs(headers: RequestHeaders): number | undefined {
  const text = headers.get(GRPC_TIMEOUT);
  if (text === undefined || text.length > 9) return undefined;
  // Envoy's library for numbers knows of plus signs and white space.
  const found = /^\s*\+?([0-9]+)\s*([HMSmun])$/.exec(text);
  return found === null ? undefined : Math.ceil(Number(found[1]) * UNIT_MS[found[2]!]!);
}
