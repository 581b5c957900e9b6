import { type HeaderMap, headerName, httpStatusOfGrpc, type ResponseHeaders } from "@tsproxy/sdk";

const GRPC_STATUS = headerName("grpc-status");

/** The HTTP status by which the host of a gRPC response is judged: that of `grpc-status` in the head, else the head's own. */
export function judgedStatus(headers: ResponseHeaders): number {
  return headers.has(GRPC_STATUS) ? ofGrpc(headers) : headers.status;
}

/** Whether the trailers, or a head without a body, carry a gRPC status at all. */
export function hasOutcome(headers: HeaderMap): boolean {
  return headers.has(GRPC_STATUS);
}

/** Whether the trailers have a gRPC status that is not the host's fault. */
export function wentWell(trailers: HeaderMap): boolean {
  return trailers.has(GRPC_STATUS) && ofGrpc(trailers) < 500;
}

function ofGrpc(headers: HeaderMap): number {
  const text = headers.get(GRPC_STATUS) ?? "";
  return httpStatusOfGrpc(/^[0-9]{1,9}$/.test(text) ? Number(text) : -1);
}
