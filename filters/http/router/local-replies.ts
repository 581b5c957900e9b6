import {
  type DirectResponseAction,
  type HttpStream,
  type RedirectAction,
  type Reply,
  type RequestEncoder,
  type RequestHeaders,
  type ResponseHeaders,
  reply,
} from "@tsproxy/sdk";

// Local replies of the router, with Envoy's texts. Those to failures of upstreams are in `upstream-failure.ts`.

export const NO_ROUTE = reply(404, { flags: ["NR"], details: "route_not_found" });
export const TOO_LARGE = reply(413, {
  body: "Payload Too Large",
  details: "request_payload_too_large",
});
export const TOO_LARGE_TO_RETRY = reply(507, {
  body: "exceeded request buffer limit while retrying upstream",
  details: "request_payload_exceeded_retry_buffer_limit",
});
const MAINTENANCE = reply(503, {
  body: "maintenance mode",
  flags: ["UO"],
  details: "maintenance_mode",
});

export function noClusterReply(status: number): Reply {
  return reply(status, { flags: ["NC"], details: "cluster_not_found" });
}

export function badHeaderReply(name: string, value: string): Reply {
  return reply(400, {
    body: `invalid header '${name}' with value '${value}'`,
    flags: ["IH"],
    details: `request_headers_failed_strict_check{${name}}`,
  });
}

/** The answer in maintenance mode. `quiet`: without Envoy's headers. */
export function maintenanceReply(quiet: boolean): Reply {
  return quiet ? MAINTENANCE : { ...MAINTENANCE, headers: [["x-envoy-overloaded", "true"]] };
}

/** The answer to a request that `drop_overloads` drops. `all`: it drops every request. `quiet`: without Envoy's headers. */
export function dropReply(all: boolean, quiet: boolean): Reply {
  const words = all ? ["unconditional", "drop", "overload"] : ["drop", "overload"];
  return reply(503, {
    body: words.join(" "),
    flags: [all ? "UDO" : "DO"],
    details: words.join("_"),
    headers: quiet ? [] : [[`x-envoy-${words.join("-")}`, "true"]],
  });
}

/** `quiet`: the request asks for 204 instead (`x-envoy-upstream-rq-timeout-alt-response`). */
export function timeoutReply(details: string, quiet: boolean): Reply {
  const flags = ["UT"];
  if (quiet) return reply(204, { flags, details });
  return reply(504, { body: "upstream request timeout", flags, details });
}

/** The answer after the cluster's `max_stream_duration`: 504 if the request was complete, else 408. */
export function streamDurationReply(details: string, requestEnded: boolean): Reply {
  const body = "upstream max stream duration reached";
  return reply(requestEnded ? 504 : 408, { body, flags: ["UMSDR"], details });
}

/** `quiet`: without Envoy's headers. */
export function directReply(
  action: RedirectAction | DirectResponseAction,
  headers: RequestHeaders,
  stream: HttpStream,
  quiet: boolean,
): Reply {
  const details = "direct_response";
  const { status } = action;
  if (action.type === "redirect") {
    const location = action.location(headers, stream);
    const answer = reply(status, { headers: [["location", location]], details });
    action.rewrite?.(headers, !quiet);
    return answer;
  }
  // Envoy adds `location` here too: the request's own URI.
  const located = status === 201 || (status >= 300 && status < 400);
  const location = `${headers.scheme}://${headers.authority ?? ""}${headers.path}`;
  return reply(status, {
    body: action.body,
    ...action.bodyFor?.(stream),
    headers: located ? [["location", location]] : [],
    details,
  });
}

/** Whether a WebSocket handshake is answered with neither 101 nor an error. Envoy allows this only over HTTP/2 (RFC 8441). */
export function isNoHandshake(
  { status }: ResponseHeaders,
  encoder: RequestEncoder | undefined,
): boolean {
  return status !== 101 && status < 400 && encoder?.protocol !== "HTTP/2";
}

/** The answer to a refused WebSocket handshake: status and headers of the upstream's response, without its body. */
export function withoutBody(headers: ResponseHeaders): Reply {
  const kept = [...headers].filter(([name]) => !OF_BODIES.includes(name.toLowerCase()));
  return reply(headers.status, { headers: kept, details: "websocket_handshake_unsuccessful" });
}
const OF_BODIES = ["content-length", "content-type", "transfer-encoding", "connection"];
