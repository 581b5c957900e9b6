import {
  type ConnectOptions,
  Extension,
  type HostSpec,
  type SetupContext,
  type Slot,
  type Static,
  type Stats,
  type TransportFactory,
  type TransportOptions,
  Type,
} from "@tsproxy/sdk";

export const TransportConfig = {
  transport_socket: Type.Optional(Extension("transport")),
  transport_socket_matches: Type.Optional(
    Type.Array(
      Type.Object({
        name: Type.String({ minLength: 1 }),
        match: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
        transport_socket: Type.Optional(Extension("transport")),
      }),
    ),
  ),
};
const Schema = Type.Object(TransportConfig);

/** Namespace of the endpoint metadata that selects a transport socket match. */
const METADATA = "envoy.transport_socket_match";

interface Match {
  readonly name: string;
  /** Metadata values that an endpoint must have, as JSON. */
  readonly wanted: readonly (readonly [key: string, value: string])[];
  readonly transport: Slot<TransportFactory> | undefined;
}

/** The transport sockets of a cluster; chooses one for each endpoint. */
export class Transports {
  readonly #stats: Stats;
  /** True on one thread only, so that each host's choice is counted once. */
  readonly #counts: boolean;
  readonly #matches: readonly Match[];
  readonly #fallback: Match;
  #nameClients: boolean | undefined = undefined;

  constructor(cx: SetupContext, config: Static<typeof Schema>, statPrefix: string) {
    this.#stats = cx.stats.scope(statPrefix);
    this.#counts = cx.role === "control";
    const slot = (ref: Parameters<SetupContext["extension"]>[1] | undefined) =>
      ref && cx.extension("transport", ref, { statPrefix });
    this.#matches = (config.transport_socket_matches ?? []).map((entry) => ({
      name: entry.name,
      wanted: Object.entries(entry.match ?? {}).map(([key, v]) => [key, JSON.stringify(v)]),
      transport: slot(entry.transport_socket),
    }));
    if (this.#counts)
      for (const name of ["default", ...this.#matches.map((match) => match.name)])
        this.#stats.counter(`${name}.total_match_count`);
    this.#fallback = { name: "default", wanted: [], transport: slot(config.transport_socket) };
  }

  /** True if a transport (PROXY protocol) names the client, so that clients cannot share connections. Called per request. */
  get nameClients(): boolean {
    this.#nameClients ??= [this.#fallback, ...this.#matches].some(
      ({ transport }) => transport?.current.value.namesClients === true,
    );
    return this.#nameClients;
  }

  /** The first match whose values the endpoint's metadata has, else the cluster's `transport_socket`. */
  choose(spec: HostSpec): Slot<TransportFactory> | undefined {
    return this.#count(this.#find(valuesOf(spec)));
  }

  /**
   * The transport for a health check: by the check's `transport_socket_match_criteria`, or without them the one that was chosen,
   * and counted, for the host.
   */
  chooseForCheck(
    spec: HostSpec,
    criteria: Readonly<Record<string, unknown>> | undefined,
  ): Slot<TransportFactory> | undefined {
    return criteria === undefined
      ? this.#find(valuesOf(spec)).transport
      : this.#count(this.#find(criteria));
  }

  #find(values: Readonly<Record<string, unknown>>): Match {
    return (
      this.#matches.find(({ wanted }) =>
        wanted.every(([key, value]) => JSON.stringify(values[key]) === value),
      ) ?? this.#fallback
    );
  }

  #count(match: Match): Slot<TransportFactory> | undefined {
    if (this.#counts) this.#stats.counter(`${match.name}.total_match_count`).inc();
    return match.transport;
  }
}

/** The endpoint metadata that matches look at. */
function valuesOf(spec: HostSpec): Readonly<Record<string, unknown>> {
  const metadata = spec.metadata as
    | { readonly filter_metadata?: Readonly<Record<string, Readonly<Record<string, unknown>>>> }
    | undefined;
  return metadata?.filter_metadata?.[METADATA] ?? {};
}

/** Adds a transport, if any, to the options of a connection. */
export function throughTransport(
  base: ConnectOptions,
  transport: Slot<TransportFactory> | undefined,
  transportOptions: TransportOptions,
): ConnectOptions {
  return transport === undefined ? base : { ...base, transport, transportOptions };
}
