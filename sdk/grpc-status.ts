import type { LogEntry } from "./access-log.ts";
import { headerName, type RequestHeaders } from "./headers.ts";

/** By number (gRPC, "Status codes and their use"). */
export const GRPC_STATUS_NAMES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
] as const;

/** HTTP statuses that have a gRPC status of their own; every other one is UNKNOWN (gRPC, "HTTP to gRPC status code mapping"). */
const OF_HTTP: Readonly<Record<number, number>> = {
  400: 13,
  401: 16,
  403: 7,
  404: 12,
  429: 14,
  502: 14,
  503: 14,
  504: 14,
};

/** The gRPC status that an answer without one counts as, by its HTTP status. */
export function grpcStatusOfHttp(status: number): number {
  return OF_HTTP[status] ?? 2;
}

/** The HTTP status that outlier detection counts for each gRPC status, in the order of their numbers. */
const TO_HTTP = [
  200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
] as const;

/** The HTTP status that outlier detection counts for a gRPC status. */
export function httpStatusOfGrpc(code: number): number {
  return TO_HTTP[code] ?? 500;
}

const GRPC_STATUS = headerName("grpc-status");
const CONTENT_TYPE = headerName("content-type");

/** From trailers, head or the HTTP status, in Envoy's order. -1: `grpc-status` is no number. Undefined: there is no answer. */
export function grpcStatusOf(
  entry: Pick<LogEntry, "info" | "response"> & Partial<LogEntry>,
): number | undefined {
  const text = entry.trailers?.get(GRPC_STATUS) ?? entry.response?.get(GRPC_STATUS);
  if (text !== undefined) return /^[0-9]{1,9}$/.test(text) ? Number(text) : -1;
  const { responseCode } = entry.info;
  return responseCode === 0 ? undefined : grpcStatusOfHttp(responseCode);
}

/** `application/grpc`, alone or with a suffix (`+proto`); grpc-web is another protocol. */
export function isGrpcRequest(headers: RequestHeaders): boolean {
  const type = headers.get(CONTENT_TYPE);
  if (type === undefined || !type.startsWith("application/grpc")) return false;
  return type.length === 16 || type[16] === "+";
}
