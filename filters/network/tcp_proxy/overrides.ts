import { type DownstreamConnection, filterStateText, STATE } from "@tsproxy/sdk";

/** Milliseconds, as a filter has set them for this connection; undefined: none has, or it has set something else. */
export function idleTimeoutOf({ filterState }: DownstreamConnection): number | undefined {
  const text = filterStateText(filterState?.get(STATE.TCP_PROXY_IDLE_TIMEOUT_MS)) ?? "";
  return /^\d{1,20}$/.test(text) ? Number(text) : undefined;
}

/** False: a filter wants a plain connection to the upstream, whatever the config says of tunnels. */
export function tunnels({ filterState }: DownstreamConnection): boolean {
  return filterState?.get(STATE.TCP_PROXY_DISABLE_TUNNELING) !== true;
}
