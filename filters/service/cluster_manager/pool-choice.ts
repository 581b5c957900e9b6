// Hot path: a pool is chosen for every request.
import { type BalancerContext, formatAddress, type TransportOptions } from "@tsproxy/sdk";
import type { UpstreamHost } from "./host.ts";
import { type PeerNames, type PeerNaming, peerNamesOf } from "./peer-names.ts";
import type { Pool } from "./pool.ts";

/** Limit for clients with their own pools at a host (`connection_pool_per_downstream_connection`, PROXY protocol). */
const MAX_CLIENTS = 8_192;

/** Chooses a host's pool for a request. Pools are separate per TLS names and, if clients share no connections, per client. */
export class PoolChoice {
  readonly #naming: PeerNaming | undefined;
  /** `connection_pool_per_downstream_connection` */
  readonly byClient: boolean;

  constructor(naming: PeerNaming | undefined, byClient: boolean) {
    this.#naming = naming;
    this.byClient = byClient;
  }

  /** The pool for a request to a host; undefined if the host has too many pools. */
  poolFor(host: UpstreamHost, context: BalancerContext): Pool | undefined {
    const { downstreamProtocol, priority } = context;
    const peer =
      host.transport?.current.value.secure === true
        ? peerNamesOf(this.#naming, context)
        : undefined;
    const own = this.#ownOf(host, context, peer) ?? peer;
    if (own === undefined) return host.poolFor(downstreamProtocol, priority);
    return host.namedPoolFor(downstreamProtocol, priority ?? "default", own);
  }

  /** Names the pools of this request's client; undefined if clients share connections. */
  #ownOf(
    host: UpstreamHost,
    context: BalancerContext,
    peer: PeerNames | undefined,
  ): PeerNames | undefined {
    const downstream =
      host.transport?.current.value.namesClients === true ? clientOf(context) : undefined;
    const id = this.byClient ? context.stream?.info.connectionId : undefined;
    if (downstream === undefined && id === undefined) return undefined;
    const { remoteAddress, localAddress } = downstream ?? {};
    const addresses = [remoteAddress, localAddress].map((a) => (a ? formatAddress(a) : ""));
    return {
      key: `${id ?? ""} ${addresses.join(" ")} ${peer?.key ?? ""}`,
      options: { ...peer?.options, ...(downstream !== undefined && { downstream }) },
      most: MAX_CLIENTS,
    };
  }
}

/** What the transport of a connection for this client alone has to know. */
export function clientOptions(context: BalancerContext): TransportOptions {
  const downstream = context.downstream ?? clientOf(context);
  return {
    ...peerNamesOf(undefined, context)?.options,
    ...(downstream !== undefined && { downstream }),
  };
}

/** The client of a request, for transports that name it to the upstream (PROXY protocol); undefined if there is none. */
function clientOf({ stream }: BalancerContext): TransportOptions["downstream"] {
  const { remoteAddress, localAddress, metadata } = stream?.downstreamConnection ?? {};
  if (remoteAddress === undefined || localAddress === undefined) return undefined;
  return { remoteAddress, localAddress, metadata };
}
