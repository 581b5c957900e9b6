import {
  grpcTimeoutMs,
  headerName,
  isGrpcRequest,
  type RequestHeaders,
  type StreamDuration,
  setGrpcTimeout,
} from "@tsproxy/sdk";

const GRPC_TIMEOUT = headerName("grpc-timeout");

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
      if (ms > 0) setGrpcTimeout(headers, ms);
      // Envoy's rule: only where it lifts a limit.
      else if (managerMs > 0) headers.remove(GRPC_TIMEOUT);
    }
    return config.maxMs;
  }
  let ms = most !== 0 && asked > most! ? most! : asked;
  const offset = config.grpcTimeoutHeaderOffsetMs ?? 0;
  if (ms !== 0 && offset > 0) ms = offset < ms ? ms - offset : 0;
  if (isGrpcRequest(headers)) setGrpcTimeout(headers, ms);
  // What is left of a deadline that has passed is no time at all, and not all the time there is.
  return ms === 0 ? AT_ONCE_MS : ms;
}
const AT_ONCE_MS = 1 / 1000;
