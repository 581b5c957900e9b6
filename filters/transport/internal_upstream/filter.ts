import {
  ConfigError,
  type Counter,
  defineTransport,
  Extension,
  type Slot,
  type Static,
  type Transport,
  type TransportFactory,
  type TransportOptions,
  type TransportSocket,
  Type,
} from "@tsproxy/sdk";

const Config = Type.Object({
  passthrough_metadata: Type.Optional(
    Type.Array(
      Type.Object({
        kind: Type.Object({
          host: Type.Optional(Type.Object({})),
          cluster: Type.Optional(Type.Object({})),
          // Refused by `check`: a connection does not belong to one request.
          request: Type.Optional(Type.Object({})),
          route: Type.Optional(Type.Object({})),
        }),
        name: Type.String({ minLength: 1 }),
      }),
    ),
  ),
  transport_socket: Extension("transport"),
});
type Config = Static<typeof Config>;

function check({ passthrough_metadata = [] }: Config): void {
  for (const [k, { kind }] of passthrough_metadata.entries())
    if (kind.host === undefined && kind.cluster === undefined)
      throw new ConfigError(
        `passthrough_metadata[${k}].kind`,
        "a connection has metadata of its host and its cluster alone; write host or cluster",
      );
}

/** Passes metadata on, then leaves the connection to the transport inside. */
class InternalUpstream implements TransportFactory {
  readonly #sources: NonNullable<Config["passthrough_metadata"]>;
  readonly #inner: Slot<TransportFactory>;
  readonly #noMetadata: Counter;

  constructor(config: Config, inner: Slot<TransportFactory>, noMetadata: Counter) {
    this.#sources = config.passthrough_metadata ?? [];
    this.#inner = inner;
    this.#noMetadata = noMetadata;
  }

  get secure(): boolean {
    return this.#inner.current.value.secure;
  }

  connect(socket: TransportSocket, options: TransportOptions): Transport | undefined {
    for (const { kind, name } of this.#sources) {
      const metadata = kind.host !== undefined ? options.hostMetadata : options.clusterMetadata;
      const values = metadata?.[name];
      if (values === undefined) this.#noMetadata.inc();
      else socket.passMetadata?.(name, values as Readonly<Record<string, unknown>>);
    }
    return this.#inner.current.value.connect?.(socket, options);
  }
}

export default defineTransport({
  name: "envoy.transport_sockets.internal_upstream",
  types: ["envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"],
  config: Config,
  setup(config, cx) {
    check(config);
    const statPrefix = cx.statPrefix ?? "";
    const inner = cx.extension("transport", config.transport_socket, { statPrefix });
    const noMetadata = cx.stats.counter(`${statPrefix}internal_upstream.no_metadata`);
    return new InternalUpstream(config, inner, noMetadata);
  },
});
