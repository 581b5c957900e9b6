import { type DownstreamConnection, filterStateText, STATE } from "@tsproxy/sdk";

/** The idle timeout that a filter has set for this connection; undefined: none has. */
export function idleTimeoutOf({ filterState }: DownstreamConnection): number | undefined {
  const text = filterStateText(filterState?.get(STATE.TCP_PROXY_IDLE_TIMEOUT_MS));
  return text === undefined ? undefined : Number(text);
}

/** False: a filter wants a plain connection to the upstream, whatever the config says of tunnels. */
export function tunnels({ filterState }: DownstreamConnection): boolean {
  return filterState?.get(STATE.TCP_PROXY_DISABLE_TUNNELING) !== true;
}
