import {
  type AcceptedSocket,
  type AccessLogs,
  type Address,
  Chunk,
  type CloseEvent,
  type ConnectionHandler,
  type Counter,
  type Drain,
  type Gauge,
  type Histogram,
  type ListenerAnswer,
  type ListenerFilter,
  type ListenerFilterFactory,
  type LogEntry,
  type NetworkFilterFactory,
  newStreamInfo,
  type Roster,
  type Runtime,
  type SharedCount,
  type Slot,
  type Stats,
  type TransportFactory,
  type UdpListenerFilter,
  type UdpSocket,
} from "@tsproxy/sdk";
import type { FilterChainConfig, ListenerConfig, ListenerPredicate } from "../protocol.ts";
import type { SocketConnection } from "./connection.ts";
import { FilterChainMatcher } from "./filter-chain-match.ts";
import { Handshake } from "./handshake.ts";
import { NetworkChainRun } from "./network-chain.ts";
import type { SlotState } from "./registry.ts";
import type { TimerWheel, WheelTimer } from "./timers.ts";

/** Limit of a handshake if the config has none; Envoy would wait for ever. */
const HANDSHAKE_MS = 60_000;
const NO_LIMIT = 0x7fff_ffff;
const PEEK_LIMIT = 64 * 1024; // bytes of a connection that listener filters may look at

/** One filter chain of a listener and the connections that run it. A config edit that leaves the chain as it is keeps its slots. */
export interface Chain {
  readonly config: FilterChainConfig;
  readonly slots: readonly Slot<NetworkFilterFactory>[];
  readonly transport: Slot<TransportFactory> | undefined;
  readonly runs: Roster<NetworkChainRun>;
}

/** The `access_log` of a listener, and the slots of its packages. */
export interface ListenerLogs {
  readonly list: AccessLogs;
  readonly slots: readonly SlotState[];
}

/** What listeners use of their engine. */
interface ListenerSurroundings {
  readonly wheel: TimerWheel;
  readonly runtime: Runtime;
  readonly count: (name: string) => SharedCount;
  readonly listenerAt: (address: Address) => Listener | undefined;
  /** The name of this thread in stats: `worker_0`, …, or `main_thread` for the control thread. */
  readonly thread: string;
  readonly logs: ListenerLogs | undefined;
}

/** A listener of one configuration. An accepted connection passes its listener filters, then a chain is chosen and runs. */
export class Listener {
  readonly config: ListenerConfig;
  readonly chains: readonly Chain[];
  /** Of a UDP listener: the one filter that gets its datagrams. */
  readonly listenerFilters: readonly Slot<ListenerFilterFactory | UdpListenerFilter>[];
  readonly logs: ListenerLogs | undefined;
  /** Set while the listener drains: new connections are drained as well. */
  draining: Drain | undefined = undefined;
  readonly #matcher: FilterChainMatcher<Chain>;
  readonly #fallback: Chain | undefined;
  readonly #around: ListenerSurroundings;
  readonly #stats: ListenerStats;
  readonly #count: SharedCount;
  readonly #globalCount: SharedCount;
  /** Connections that the overload manager's limit has refused. */
  readonly #overloads: Counter | undefined;

  constructor(
    config: ListenerConfig,
    chains: readonly Chain[],
    listenerFilters: readonly Slot<ListenerFilterFactory | UdpListenerFilter>[],
    stats: Stats,
    around: ListenerSurroundings,
  ) {
    this.logs = around.logs;
    this.config = config;
    this.chains = chains;
    this.listenerFilters = listenerFilters;
    this.#around = around;
    this.#count = around.count(`listener.${config.name}`);
    this.#globalCount = around.count("listeners");
    this.#stats = new ListenerStats(
      stats.scope(`listener.${config.statPrefix}.`),
      around.thread,
      config.maxDatagramBytes !== undefined,
    );
    if (config.globalConnectionLimit !== undefined) {
      const monitor = stats.scope(MONITOR);
      this.#overloads = monitor.counter("failed_updates");
      // As in Envoy, no pressure is told of what counts at once.
      monitor.gauge("pressure");
    }
    const matched = chains.slice(0, config.filterChains.length);
    this.#matcher = new FilterChainMatcher(
      matched.map((chain) => ({ match: chain.config.match, value: chain })),
    );
    this.#fallback = chains[config.filterChains.length];
  }

  onDatagram(bytes: Chunk, from: Address, socket: UdpSocket): void {
    if (bytes.end - bytes.at > (this.config.maxDatagramBytes ?? 0)) {
      this.#stats.datagramDropped?.inc();
      return;
    }
    const filter = this.listenerFilters[0]?.current.value as UdpListenerFilter | undefined;
    filter?.onDatagram(bytes, from, socket);
  }

  /** Of an internal listener: InternalListener.bufferBytes. */
  get bufferBytes(): number {
    return this.config.internalBufferBytes ?? 0;
  }

  get secure(): boolean {
    return this.chains.some(({ transport }) => transport?.current.value.secure === true);
  }

  onAccepted(connection: SocketConnection): void {
    connection.listener = this.config;
    connection.startTime = Date.now();
    this.#stats.onAccepted();
    if (!this.#admit(connection)) return;
    if (this.listenerFilters.length > 0) {
      const peek = new Peek(connection, this, this.#around.wheel, this.#stats);
      connection.handler = peek;
      peek.start();
    } else this.startChain(connection, undefined);
  }

  /** False: a connection limit is reached. Counted over all workers, as in Envoy; admin and internal listeners have no limit. */
  #admit(connection: SocketConnection): boolean {
    if (this.config.thread === "control" || this.config.internalBufferBytes !== undefined)
      return true;
    const { runtime } = this.#around;
    const own = runtime.integer(
      `envoy.resource_limits.listener.${this.config.name}.connection_limit`,
      NO_LIMIT,
    );
    const { globalConnectionLimit, ignoreGlobalConnectionLimit: ignores = false } = this.config;
    // As in Envoy, what ignores the overload manager's limit does not count for it; for the runtime's it does.
    const global = ignores && globalConnectionLimit !== undefined ? undefined : this.#globalCount;
    const all = ignores
      ? NO_LIMIT
      : (globalConnectionLimit ??
        runtime.integer("overload.global_downstream_max_connections", NO_LIMIT));
    if (global?.tryAcquire(all) === 0) {
      this.#stats.globalOverflow.inc();
      this.#overloads?.inc();
      connection.close("abort");
      return false;
    }
    if (this.#count.tryAcquire(own) === 0) {
      global?.release();
      this.#stats.overflow.inc();
      connection.close("abort");
      return false;
    }
    connection.onGone = () => {
      this.#count.release();
      global?.release();
    };
    return true;
  }

  /** Chooses the chain and starts it. `early`: bytes that listener filters have read and not consumed. */
  startChain(connection: SocketConnection, early: Uint8Array | undefined): void {
    if (this.config.useOriginalDst === true) {
      const other = this.#around.listenerAt(connection.localAddress);
      if (other !== undefined && other !== this) {
        connection.listener = other.config;
        other.startChain(connection, early);
        return;
      }
    }
    const chain =
      this.#matcher.choose({
        localAddress: connection.localAddress,
        remoteAddress: connection.remoteAddress,
        directAddress: connection.directAddress,
        serverName: connection.serverName,
        transportProtocol: connection.transportProtocol,
        applicationProtocols: connection.applicationProtocols,
      }) ?? this.#fallback;
    if (chain === undefined) {
      this.#stats.noFilterChainMatch.inc();
      const { transportFailure } = connection;
      this.logs?.list.log(entryOf(connection, ["NR"], "filter_chain_not_found", transportFailure));
      connection.close(turnAway(early));
      return;
    }
    // What listener filters have consumed is not the chain's, and the rest only if the chain takes it (logs).
    connection.bytesReceived = 0;
    this.#stats.total.inc();
    this.#stats.active.inc();
    this.#stats.ofThread.total.inc();
    this.#stats.ofThread.active.inc();
    const { perConnectionBufferLimitBytes } = this.config;
    const run = new NetworkChainRun(connection, perConnectionBufferLimitBytes, (event) => {
      chain.runs.delete(run);
      this.#stats.active.dec();
      this.#stats.ofThread.active.dec();
      this.#stats.destroy.inc();
      this.#stats.length.record(Date.now() - connection.startTime);
      this.logs?.list.log(entryOf(connection, [], "", event.transportFailure));
    });
    chain.runs.add(run);
    connection.filterChainName = chain.config.name;
    connection.filterChainMetadata = chain.config.metadata;
    const handshake = this.#handshake(chain, connection, run);
    if (handshake === undefined) connection.handler = run;
    // Filters begin before the handshake has ended, as in Envoy: tcp_proxy connects meanwhile.
    run.start(chain.slots);
    if (this.draining !== undefined && connection.open) run.drain(this.draining);
    if (!connection.open) return;
    handshake?.onConnected();
    if (early !== undefined && early.length > 0 && connection.open) {
      connection.bytesReceived += early.length;
      const chunk = new Chunk(early, 0, early.length);
      if (handshake !== undefined) handshake.onData(chunk);
      else run.onData(chunk);
    }
  }

  /** Starts the chain's transport. Undefined: it has none, or it passes bytes as they are. */
  #handshake(
    chain: Chain,
    connection: SocketConnection,
    run: NetworkChainRun,
  ): Handshake | undefined {
    if (chain.transport === undefined) return undefined;
    const generation = chain.transport.current;
    run.transport = generation;
    const handshake = new Handshake(connection, run, generation);
    const transport = generation.value.accept?.(handshake, connection);
    connection.secure = generation.value.secure;
    if (!handshake.take(transport)) return undefined;
    connection.hold(handshake);
    const ms = chain.config.transportTimeoutMs || HANDSHAKE_MS;
    handshake.limit(this.#around.wheel, ms, () => this.#stats.transportTimeout.inc());
    return handshake;
  }
}

/** Envoy's stats of the one resource monitor that there is. */
const MONITOR = "overload.envoy.resource_monitors.global_downstream_max_connections.";

/** Envoy's counters that always stay 0 here. */
const NEVER = ["downstream_cx_overload_reject"];

/** The same, but not of the admin listener. */
const NEVER_IN_WORKERS = ["extension_config_missing", "network_extension_config_missing"];

/**
 * How to close a connection that no chain takes. Envoy only peeks at early bytes, so they are unread when it closes the socket, and the
 * kernel sends RST.
 */
function turnAway(early: Uint8Array | undefined): "abort" | "reset" {
  return early !== undefined && early.length > 0 ? "reset" : "abort";
}

/** The entry of a connection in the listener's access log. */
function entryOf(
  connection: SocketConnection,
  flags: string[],
  details: string,
  transportFailure = "",
  hasChain = details === "",
): LogEntry {
  return {
    info: newStreamInfo({
      startTime: connection.startTime,
      duration: Math.max(0, Date.now() - connection.startTime),
      // Under TLS the connection counts plain text and not the wire's bytes; one that no chain took has none.
      bytesReceived: connection.secure || !hasChain ? 0 : connection.bytesReceived,
      bytesSent: connection.secure ? 0 : connection.bytesSent,
      responseCodeDetails: details,
      flags: connection.responseFlag === undefined ? flags : [...flags, connection.responseFlag],
      downstreamTransportFailure: transportFailure,
      downstreamCloseType: connection.closeType,
      ...(connection.terminationDetails !== undefined && {
        connectionTerminationDetails: connection.terminationDetails,
      }),
      connectionId: connection.id,
      downstreamRemoteAddress: connection.remoteAddress,
      downstreamDirectAddress: connection.directAddress ?? connection.remoteAddress,
      downstreamLocalAddress: connection.localAddress,
      downstreamDirectLocalAddress: connection.directLocalAddress,
      ...connection.describedBy?.describe(),
    }),
    request: undefined,
    response: undefined,
    trailers: undefined,
    metadata: connection.metadata,
    downstream: connection,
    logType: "NotSet",
  };
}

class ListenerStats {
  readonly total: Counter;
  readonly active: Gauge;
  readonly destroy: Counter;
  readonly length: Histogram;
  readonly noFilterChainMatch: Counter;
  readonly preActive: Gauge;
  readonly preTimeout: Counter;
  readonly transportTimeout: Counter;
  readonly filterRemoteClose: Counter;
  readonly filterError: Counter;
  /** Of UDP listeners only. */
  readonly datagramDropped: Counter | undefined;
  readonly overflow: Counter;
  readonly globalOverflow: Counter;
  readonly #acceptedAtOnce: Histogram;
  readonly #own: Stats;
  #ofThread: ThreadStats | undefined = undefined;

  /** `thread`: as in ListenerSurroundings. */
  constructor(stats: Stats, thread: string, isUdp: boolean) {
    this.#own = stats.scope(`${thread}.`);
    // While clients are few, worker 0 serves them all (core/gathering.ts): the others' stats appear with their first connection.
    if (thread === "worker_0" || thread === "main_thread") this.#ofThread = threadStats(this.#own);
    for (const name of NEVER) stats.counter(name);
    if (thread !== "main_thread") for (const name of NEVER_IN_WORKERS) stats.counter(name);
    this.#acceptedAtOnce = stats.histogram("connections_accepted_per_socket_event");
    this.total = stats.counter("downstream_cx_total");
    this.active = stats.gauge("downstream_cx_active");
    this.destroy = stats.counter("downstream_cx_destroy");
    this.length = stats.histogram("downstream_cx_length_ms", "ms");
    this.noFilterChainMatch = stats.counter("no_filter_chain_match");
    this.preActive = stats.gauge("downstream_pre_cx_active");
    this.preTimeout = stats.counter("downstream_pre_cx_timeout");
    this.transportTimeout = stats.counter("downstream_cx_transport_socket_connect_timeout");
    this.filterRemoteClose = stats.counter("downstream_listener_filter_remote_close");
    this.overflow = stats.counter("downstream_cx_overflow");
    this.globalOverflow = stats.counter("downstream_global_cx_overflow");
    this.datagramDropped = isUdp ? stats.counter("udp.downstream_rx_datagram_dropped") : undefined;
    this.filterError = stats.counter("downstream_listener_filter_error");
  }

  /** Sockets are accepted one by one. As in Envoy, the gauge counts as used even if no listener filter holds a connection back. */
  onAccepted(): void {
    this.#acceptedAtOnce.record(1);
    this.preActive.add(0);
  }

  get ofThread(): ThreadStats {
    this.#ofThread ??= threadStats(this.#own);
    return this.#ofThread;
  }
}

interface ThreadStats {
  readonly total: Counter;
  readonly active: Gauge;
}

function threadStats(own: Stats): ThreadStats {
  return {
    total: own.counter("downstream_cx_total"),
    active: own.gauge("downstream_cx_active"),
  };
}

/** Envoy's ListenerFilterChainMatchPredicate, which can only match the destination port. */
function holds(predicate: ListenerPredicate, port: number): boolean {
  const { any_match, destination_port_range: range, not_match, or_match, and_match } = predicate;
  if (any_match !== undefined) return any_match;
  if (range !== undefined) return port >= range.start && port < range.end;
  if (not_match !== undefined) return !holds(not_match, port);
  if (or_match !== undefined) return or_match.rules.some((rule) => holds(rule, port));
  return and_match?.rules.every((rule) => holds(rule, port)) ?? false;
}

/** A connection while its listener filters run, one after the other. */
class Peek implements ConnectionHandler, AcceptedSocket {
  readonly #connection: SocketConnection;
  readonly #listener: Listener;
  readonly #stats: ListenerStats;
  readonly #filters: ListenerFilter[] = [];
  readonly #timer: WheelTimer;
  #at = 0;
  #bytes: Uint8Array = new Uint8Array(0);
  /** The present filter's promise is pending. */
  #isWaiting = false;
  #over = false;

  constructor(
    connection: SocketConnection,
    listener: Listener,
    wheel: TimerWheel,
    stats: ListenerStats,
  ) {
    this.#connection = connection;
    this.#listener = listener;
    this.#stats = stats;
    this.#timer = wheel.timer(() => this.#onTimeout());
  }

  get remoteAddress() {
    return this.#connection.remoteAddress;
  }
  set remoteAddress(address) {
    this.#connection.remoteAddress = address;
  }
  get localAddress() {
    return this.#connection.localAddress;
  }
  set localAddress(address) {
    this.#connection.directLocalAddress ??= this.#connection.localAddress;
    this.#connection.localAddress = address;
    this.#connection.localAddressRestored = true;
  }
  get transportProtocol() {
    return this.#connection.transportProtocol;
  }
  set transportProtocol(value) {
    this.#connection.transportProtocol = value;
  }
  get serverName() {
    return this.#connection.serverName;
  }
  set serverName(value) {
    this.#connection.serverName = value;
  }
  set ja3Fingerprint(value: string) {
    this.#connection.ja3Fingerprint = value;
  }
  set ja4Fingerprint(value: string) {
    this.#connection.ja4Fingerprint = value;
  }
  set transportFailure(reason: string) {
    this.#connection.transportFailure = reason;
  }
  get applicationProtocols() {
    return this.#connection.applicationProtocols;
  }
  set applicationProtocols(value) {
    this.#connection.applicationProtocols = value;
  }

  setMetadata(namespace: string, values: Readonly<Record<string, unknown>>): void {
    const all = (this.#connection.metadata ??= new Map());
    all.set(namespace, { ...all.get(namespace), ...values });
  }
  setFilterState(key: string, value: unknown): void {
    this.#connection.setFilterState(key, value);
  }

  start(): void {
    this.#stats.preActive.inc();
    const { listenerFiltersTimeoutMs } = this.#listener.config;
    if (listenerFiltersTimeoutMs > 0) this.#timer.arm(listenerFiltersTimeoutMs);
    const { listenerFilters, config } = this.#listener;
    for (const [k, slot] of listenerFilters.entries()) {
      const disabled = config.listenerFilters[k]?.filter_disabled;
      if (disabled !== undefined && holds(disabled, this.#connection.localAddress.port)) continue;
      const factory = slot.current.value as ListenerFilterFactory;
      this.#filters.push(factory(this));
    }
    this.#step();
  }

  onData(chunk: Chunk): void {
    if (this.#bytes.length + chunk.length > PEEK_LIMIT) {
      this.#connection.close("abort");
      return;
    }
    const more = new Uint8Array(this.#bytes.length + chunk.length);
    more.set(this.#bytes);
    more.set(chunk.memory.subarray(chunk.at, chunk.end), this.#bytes.length);
    this.#bytes = more;
    if (!this.#isWaiting) this.#step();
  }

  #step(): void {
    for (; this.#at < this.#filters.length; this.#at++) {
      const answer = this.#filters[this.#at]!.onBytes(
        new Chunk(this.#bytes, 0, this.#bytes.length),
      );
      if (typeof answer === "object") {
        this.#wait(answer);
        return;
      }
      if (!this.#take(answer)) return;
    }
    this.#finish();
  }

  /** Applies a filter's answer. True: the next filter runs. */
  #take(answer: ListenerAnswer): boolean {
    if (answer === "more") return false;
    if (answer === "close") {
      this.#connection.close(turnAway(this.#bytes));
      return false;
    }
    if (answer > 0) this.#bytes = this.#bytes.subarray(answer);
    return true;
  }

  /** Waits for a filter's promise; reading is paused meanwhile. */
  #wait(promise: Promise<ListenerAnswer>): void {
    const connection = this.#connection;
    const seen = this.#bytes.length;
    this.#isWaiting = true;
    connection.pause();
    if (!this.#timer.armed) this.#timer.arm(connection.longestPauseMs);
    promise.then(
      (answer) => {
        if (this.#over || !connection.open) return;
        this.#stopWaiting();
        if (this.#take(answer)) this.#at++;
        else if (answer === "close" || this.#bytes.length === seen) return;
        this.#step();
      },
      (error) => {
        if (!this.#over) connection.fail(error);
      },
    );
  }

  #finish(): void {
    if (this.#over) return;
    this.#leave();
    this.#listener.startChain(this.#connection, this.#bytes);
  }

  #stopWaiting(): void {
    if (!this.#isWaiting) return;
    this.#isWaiting = false;
    this.#connection.resume();
    if (this.#listener.config.listenerFiltersTimeoutMs === 0) this.#timer.cancel();
  }

  #leave(): void {
    this.#over = true;
    this.#stopWaiting();
    this.#timer.cancel();
    this.#stats.preActive.dec();
  }

  #onTimeout(): void {
    this.#stats.preTimeout.inc();
    this.#filters[this.#at]?.onAbandoned?.();
    if (this.#listener.config.continueOnListenerFiltersTimeout) this.#finish();
    else this.#connection.close(turnAway(this.#bytes));
  }

  onEof(): void {
    this.#stats.filterRemoteClose.inc();
    this.#connection.close(turnAway(this.#bytes));
  }

  onClosed(event: CloseEvent): void {
    if (this.#over) return;
    if (event.error !== undefined) this.#stats.filterError.inc();
    this.#filters[this.#at]?.onAbandoned?.();
    this.#leave();
    const { logs } = this.#listener;
    logs?.list.log(entryOf(this.#connection, [], "", this.#connection.transportFailure, false));
  }
}
