import { type HeaderName, headerName, type RequestHeaders } from "@tsproxy/sdk";

const TIMEOUT = headerName("x-envoy-upstream-rq-timeout-ms");
const ALT_RESPONSE = headerName("x-envoy-upstream-rq-timeout-alt-response");
/** Headers that steer this proxy alone: none of them goes on. */
const STEERING: readonly HeaderName[] = [
  TIMEOUT,
  ALT_RESPONSE,
  headerName("x-envoy-upstream-rq-per-try-timeout-ms"),
  headerName("x-envoy-hedge-on-per-try-timeout"),
  headerName("x-envoy-max-retries"),
  headerName("x-envoy-retry-on"),
  headerName("x-envoy-retry-grpc-on"),
  headerName("x-envoy-retriable-status-codes"),
  headerName("x-envoy-retriable-header-names"),
  headerName("x-envoy-upstream-alt-stat-name"),
];

export interface Steering {
  /** Undefined: the client does not say. */
  readonly timeoutMs: number | undefined;
  /** The timeout is answered with 204, not 504. */
  readonly quietTimeout: boolean;
}

/** Takes what an internal client wants off the head. The connection manager has removed it from everybody else's. */
export function takeSteering(headers: RequestHeaders): Steering {
  const timeout = headers.get(TIMEOUT);
  const quietTimeout = headers.has(ALT_RESPONSE);
  for (const name of STEERING) headers.remove(name);
  const valid = timeout !== undefined && /^[0-9]{1,9}$/.test(timeout);
  return { timeoutMs: valid ? Number(timeout) : undefined, quietTimeout };
}
