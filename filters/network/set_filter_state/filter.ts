import {
  compileFilterStateValues,
  type DownstreamConnection,
  defineNetworkFilter,
  FilterStateValue,
  type FormatSource,
  type NetworkFilter,
  newStreamInfo,
  type SetupContext,
  type Static,
  Type,
} from "@tsproxy/sdk";

const Values = Type.Array(FilterStateValue, { default: [] });

export const Config = Type.Object({
  on_new_connection: Values,
  /** Without TLS these are set with those of `on_new_connection`. */
  on_downstream_tls_handshake: Values,
  /** Set once, when the first bytes come. */
  on_downstream_data: Values,
});

type Moment = keyof Static<typeof Config>;
type Apply = (connection: DownstreamConnection) => void;

/** Gives a connection objects of filter state, made from what is known of it at three moments of its life. */
class SetFilterState implements NetworkFilter {
  readonly #at: Readonly<Record<Moment, Apply>>;
  readonly #connection: DownstreamConnection;
  #isShaken = false;
  #hasData = false;

  constructor(at: Readonly<Record<Moment, Apply>>, connection: DownstreamConnection) {
    this.#at = at;
    this.#connection = connection;
  }

  onConnect(): void {
    this.#at.on_new_connection(this.#connection);
    if (this.#connection.secure !== true) this.#onHandshake();
  }

  // Nobody hears of the end of a handshake; what it has told is needed with the first bytes, or in the connection's log.
  onData(): void {
    this.#onHandshake();
    if (this.#hasData) return;
    this.#hasData = true;
    this.#at.on_downstream_data(this.#connection);
  }

  onClose(): void {
    if (this.#connection.tls !== undefined) this.#onHandshake();
  }

  #onHandshake(): void {
    if (this.#isShaken) return;
    this.#isShaken = true;
    this.#at.on_downstream_tls_handshake(this.#connection);
  }
}

/** What formats can tell of a connection. */
function entryOf(connection: DownstreamConnection, cx: SetupContext): FormatSource {
  const { startTime, remoteAddress, localAddress, directAddress, metadata } = connection;
  const info = newStreamInfo({
    startTime,
    duration: cx.now() - startTime,
    connectionId: connection.id,
    downstreamRemoteAddress: remoteAddress,
    downstreamDirectAddress: directAddress ?? remoteAddress,
    downstreamLocalAddress: localAddress,
    downstreamDirectLocalAddress: connection.directLocalAddress,
  });
  const nothing = { request: undefined, response: undefined, trailers: undefined };
  return { info, ...nothing, metadata, downstream: connection };
}

export default defineNetworkFilter({
  name: "envoy.filters.network.set_filter_state",
  types: ["envoy.extensions.filters.network.set_filter_state.v3.Config"],
  config: Config,
  setup(config, cx) {
    const compile = (moment: Moment): Apply => {
      if (config[moment].length === 0) return () => {};
      const apply = compileFilterStateValues(config[moment], moment, cx);
      return (connection) =>
        apply(entryOf(connection, cx), (key, value) => connection.setFilterState?.(key, value));
    };
    const at = {
      on_new_connection: compile("on_new_connection"),
      on_downstream_tls_handshake: compile("on_downstream_tls_handshake"),
      on_downstream_data: compile("on_downstream_data"),
    };
    return { create: (connection) => new SetFilterState(at, connection) };
  },
});
