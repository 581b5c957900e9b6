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
 * How long a stream may last by its route, in ms, with regard to a client's `grpc-timeout` where the route heeds that; also tells
 * it to a gRPC upstream. 0: no limit; less: it has passed; undefined: the limit of the connection manager (`managerMs`) holds.
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
      // As in Envoy: only where the route lifts a limit.
      else if (managerMs > 0) headers.remove(GRPC_TIMEOUT);
    }
    return config.maxMs;
  }
  let ms = most !== 0 && asked > most! ? most! : asked;
  const offset = config.grpcTimeoutHeaderOffsetMs ?? 0;
  if (ms !== 0 && offset > 0) ms = offset < ms ? ms - offset : 0;
  if (isGrpcRequest(headers)) setGrpcTimeout(headers, ms);
  return ms === 0 ? PASSED : ms;
}
/** The deadline has passed; 0 would mean that there is none. */
const PASSED = -1;
