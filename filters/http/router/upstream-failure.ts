import { type PoolFailure, type Reply, type ResetReason, reply } from "@tsproxy/sdk";

/** A way in which an upstream can fail a request: Envoy's words, response flag and status for it. */
export interface UpstreamFailure {
  readonly text: string;
  readonly flag: string;
  readonly status: number;
}

const failure = (text: string, flag: string, status = 503): UpstreamFailure => ({
  text,
  flag,
  status,
});

export const FAILURE = {
  connectionFailed: failure("remote connection failure", "UF"),
  localConnectionFailed: failure("local connection failure", "UF"),
  connectionTimeout: failure("connection timeout", "UF"),
  connectionTermination: failure("connection termination", "UC"),
  localReset: failure("local reset", "LR"),
  overflow: failure("overflow", "UO"),
  protocolError: failure("protocol error", "UPE", 502),
  remoteRefused: failure("remote refused stream reset", "UR"),
  remoteReset: failure("remote reset", "UR"),
  connectError: failure("remote error with CONNECT request", "UR"),
} as const;

export function ofReset(reason: ResetReason): UpstreamFailure {
  switch (reason) {
    case "local":
      return FAILURE.localReset;
    case "remote":
      return FAILURE.remoteReset;
    case "connect_error":
      return FAILURE.connectError;
    case "refused":
      return FAILURE.remoteRefused;
    case "protocol_error":
      return FAILURE.protocolError;
    case "connection_closed":
      return FAILURE.connectionTermination;
    case "connection_failed":
      return FAILURE.connectionFailed;
    case "overflow":
      return FAILURE.overflow;
  }
}

/** As `ofReset`, but a connection closed in the middle of an HTTP/1 message is a protocol error, whoever closed it. */
export function ofCut(reason: ResetReason, inMessage: boolean): UpstreamFailure {
  return inMessage && reason === "connection_closed" ? FAILURE.protocolError : ofReset(reason);
}

export function ofPool(reason: Exclude<PoolFailure["reason"], "no_host">): UpstreamFailure {
  switch (reason) {
    case "connection_failed":
      return FAILURE.connectionFailed;
    case "local_connection_failed":
      return FAILURE.localConnectionFailed;
    case "connection_timeout":
      return FAILURE.connectionTimeout;
    case "overflow":
      return FAILURE.overflow;
  }
}

export const NO_HOST = reply(503, {
  body: "no healthy upstream",
  flags: ["UH"],
  details: "no_healthy_upstream",
});

/** The answer to a request that failed before a response. `transport`: the socket's error text; "": none. `informed`: after a 1xx. */
export function failureReply(
  failure: UpstreamFailure,
  transport: string,
  {
    quiet,
    retried,
    informed,
  }: { readonly quiet: boolean; readonly retried: boolean; readonly informed: boolean },
): Reply {
  // The socket's error goes into logs, not to clients.
  const phase = informed ? "after" : "before";
  const reason = [failure.text, ...(transport === "" ? [] : [transport])].join("|");
  return reply(failure.status, {
    body: `upstream connect error or disconnect/reset before headers. ${
      retried ? "retried and the latest " : ""
    }reset reason: ${failure.text}`,
    headers: failure === FAILURE.overflow && !quiet ? [["x-envoy-overloaded", "true"]] : [],
    flags: [failure.flag],
    details: `upstream_reset_${phase}_response_started{${reason.replaceAll(" ", "_")}}`,
  });
}
