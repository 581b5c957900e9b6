import { type Address, type CloseEvent, formatAddress } from "@tsproxy/sdk";

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "Connection refused",
  ECONNRESET: "Connection reset by peer",
  EHOSTUNREACH: "No route to host",
  ENETUNREACH: "Network is unreachable",
  ETIMEDOUT: "Connection timed out",
  EACCES: "Permission denied",
  ENOENT: "No such file or directory",
};

/** Errors that binding to a source address ends with; what connecting ends with are others. */
const BIND_REASONS: Readonly<Record<string, string>> = {
  EADDRNOTAVAIL: "Cannot assign requested address",
  EADDRINUSE: "Address already in use",
  // libuv's socket has the family of the host.
  EINVAL: "Address family not supported by protocol",
};

/** True if binding to the source address `from` failed, so that the host was not contacted. */
export function isBindError({ error }: CloseEvent, from: Address | undefined): boolean {
  return error !== undefined && from !== undefined && Object.hasOwn(BIND_REASONS, error);
}

/** Envoy's transport failure reason of a failed connect; "" for a timeout. `from`: the source address bound to. */
export function connectFailure(event: CloseEvent, to: Address, from: Address | undefined): string {
  const { error, timeout, transportFailure } = event;
  if (timeout) return "";
  if (transportFailure !== undefined) return transportFailure;
  if (error === undefined) return "";
  if (isBindError(event, from))
    return `failed to bind to ${formatAddress(from!)}: ${BIND_REASONS[error]}`;
  const reason = REASONS[error] ?? BIND_REASONS[error] ?? error;
  // Connecting to a Unix domain socket fails at once.
  return to.path === undefined
    ? `delayed_connect_error: ${reason}`
    : `immediate_connect_error: ${reason}|remote address:${to.path}`;
}
