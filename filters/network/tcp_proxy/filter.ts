// Hot path (test/bench): handles every read, unless core relays. Bytes are forwarded without a copy or an allocation.
//
//   onConnect ──> connecting ──connected──> open ──both halves ended──> closing (after all output is written)
//       │ ▲        │   ▲                     │ └──upstream gone──────────────▲
//       └─┘        └───┘ another attempt     └──client gone, idle──> closed
//    awaiting data (ON_DOWNSTREAM_DATA)
//
// Until the upstream is connected the client is read from only with `max_early_data_bytes`, and no further than that.
import {
  AccessLogs,
  type AccessLogType,
  type Address,
  type AttemptedHost,
  type BalancerContext,
  type Chunk,
  type CloseEvent,
  type CloseType,
  type Cluster,
  ConfigError,
  type Connection,
  type DownstreamConnection,
  type Drain,
  defineNetworkFilter,
  filterStateText,
  type Host,
  jittered,
  type LogEntry,
  type NetworkChain,
  type NetworkFilter,
  type NetworkFilterFactory,
  newStreamInfo,
  type Relay,
  type SetupContext,
  type StreamInfo,
  type Timer,
  xxHash64,
} from "@tsproxy/sdk";
import { BackOff } from "./back-off.ts";
import { Config } from "./config.ts";
import { Destinations } from "./destinations.ts";
import { idleTimeoutOf, tunnels } from "./overrides.ts";
import { listTunnelStats, type Stats, statsOf } from "./stats.ts";
import { type TunnelHandler, Tunneling, type UpstreamPipe } from "./tunnel.ts";

/** Limit for bytes that come although reading is paused: those that listener filters had already read. */
const MAX_EARLY_BYTES = 1024 * 1024;
const MOST_HOSTS_LISTED = 64; // limit for %UPSTREAM_HOSTS_ATTEMPTED%

/** Why a client gets no upstream, by the numbers that Envoy prints in %DOWNSTREAM_LOCAL_CLOSE_REASON%. */
const INIT_FAILURE = { connectFailed: 0, noHost: 1, overflow: 2, noRoute: 3 } as const;

/** Proxies one downstream connection to one upstream connection. */
class TcpProxy implements NetworkFilter {
  readonly #shared: Shared;
  readonly #downstream: DownstreamConnection;
  readonly #chain: NetworkChain;
  readonly #startedMs: number;
  #cluster: Cluster | undefined = undefined;
  #clusterName = "";
  #host: Host | undefined = undefined;
  /** Hosts of the attempts before the one at `#host`. */
  #hostsBefore: AttemptedHost[] | undefined = undefined;
  #upstreamLocalAddress: Address | undefined = undefined;
  #upstream: Upstream | undefined = undefined;
  /** Set while core passes bytes between the two connections, and after it. */
  #relay: Relay | undefined = undefined;
  #attempts = 0;
  /** Armed between two attempts. */
  #nextAttempt: Timer | undefined = undefined;
  #backsOff = false;
  #connected = false;
  /** False: nothing has been asked for yet, as the client is to speak first. */
  #begun = false;
  /** Reading from the client is paused until the upstream is connected. */
  #held = false;
  /** Set while the listener drains. */
  #drain: Drain | undefined = undefined;
  /**
   * Copies of bytes received before the upstream was connected. As in Envoy they count as received when they are forwarded, but with
   * `max_early_data_bytes` when they come.
   */
  #early: Uint8Array[] | undefined = undefined;
  #earlyBytes = 0;
  #downstreamEnded = false;
  #upstreamEnded = false;
  #downstreamPaused = false;
  #upstreamPaused = false;
  #received = 0;
  /** Size of the last read, which the gauge of buffered bytes holds until the next one. */
  #lastRead = 0;
  #sent = 0;
  #lastByteMs = 0;
  #idle: Timer | undefined = undefined;
  #maxDuration: Timer | undefined = undefined;
  #idleMs = 0;
  #attemptedMs = 0;
  /** What the last attempt waited for its connection; -1: it waits, or there was none. */
  #poolReadyMs = -1;
  #logTimer: Timer | undefined = undefined;
  /** Undefined: a plain TCP upstream connection. */
  #tunneling: Tunneling | undefined = undefined;
  /** Kept after the connection is closed, for access logs. */
  #upstreamConnection: Pick<Connection, "id" | "tls" | "remoteAddress"> | undefined = undefined;
  #downstreamFailure = "";
  readonly #flags: string[] = [];
  #context: BalancerContext = {};
  #transportFailure = "";
  #downstreamCloseType: CloseType = "Normal";
  #upstreamCloseType: CloseType = "Normal";
  /** Why this filter closed both connections; undefined: it did not, or not for a reason that Envoy names. */
  #localCloseReason: string | undefined = undefined;
  /** Made when a log first asks for it. */
  #streamId: string | undefined = undefined;

  constructor(shared: Shared, downstream: DownstreamConnection, chain: NetworkChain) {
    this.#shared = shared;
    this.#downstream = downstream;
    this.#chain = chain;
    this.#startedMs = shared.cx.now();
    downstream.describedBy = this;
    downstream.countUnsent?.(shared.stats.txBuffered);
    // As in Envoy, counts connections that a filter before this one may refuse.
    shared.stats.cxTotal.inc();
  }

  describe(): Partial<StreamInfo> {
    return this.#info();
  }

  // ---- downstream

  onConnect(): void {
    const { cx, config } = this.#shared;
    if (this.#shared.logsStart) this.#log("TcpConnectionStart");
    if (this.#shared.logEveryMs > 0 && this.#shared.logs.count > 0) {
      this.#logTimer = cx.timer(() => this.#onLogTimer());
      this.#logTimer.arm(this.#shared.logEveryMs);
    }
    const maxMs = config.max_downstream_connection_duration;
    if (maxMs !== undefined) {
      this.#maxDuration = cx.timer(() => this.#onMaxDuration());
      const jitter = config.max_downstream_connection_duration_jitter_percentage;
      this.#maxDuration.arm(jittered(maxMs, jitter));
    }
    this.#idleMs = idleTimeoutOf(this.#downstream) ?? config.idle_timeout;
    if (this.#idleMs > 0) {
      this.#lastByteMs = cx.now();
      this.#idle = cx.timer(() => this.#onIdle());
      this.#idle.arm(this.#idleMs);
    }
    if (config.max_early_data_bytes === undefined) this.#hold();
    // Else it connects before the client has sent anything, since in some protocols the server speaks first. TLS handshakes are over.
    if (config.upstream_connect_mode !== "ON_DOWNSTREAM_DATA") this.#begin();
  }

  /** Chooses the upstream and asks for a connection. */
  #begin(): void {
    const { cx, stats } = this.#shared;
    this.#begun = true;
    const destination = this.#shared.destinations.choose(this.#downstream);
    this.#clusterName = destination.name;
    if (tunnels(this.#downstream)) this.#tunneling = this.#shared.tunneling;
    this.#context = {
      downstream: this.#downstream,
      metadataMatch: destination.metadataMatch,
      hash: this.#shared.hashOf(this.#downstream),
    };
    this.#cluster = cx.clusters.get(this.#clusterName);
    if (this.#cluster === undefined) {
      stats.noRoute.inc();
      this.#flags.push("NC");
      this.#refuse(INIT_FAILURE.noRoute);
      return;
    }
    this.#connect(this.#cluster);
  }

  onData(chunk: Chunk, endStream: boolean): void {
    if (!this.#connected) {
      this.#keepEarly(chunk, endStream);
      if (this.#shared.checksDrain) this.#leaveIfDraining();
      return;
    }
    const size = chunk.end - chunk.at;
    const upstream = this.#upstream!.connection!;
    if (size > 0) {
      this.#count(size, size);
      this.#lastByteMs = this.#shared.cx.now();
      upstream.write(chunk.memory, chunk.at, chunk.end);
      if (upstream.blocked) this.onUpstreamBlocked();
    }
    if (endStream) this.#endUpstream();
    if (this.#shared.checksDrain) this.#leaveIfDraining();
  }

  onDrain(drain: Drain): void {
    this.#drain = drain;
  }

  /** As in Envoy, drains are looked at when bytes come, from either side. */
  #leaveIfDraining(): void {
    if (!this.#downstream.open || !this.#shared.drains(this.#downstream, this.#drain)) return;
    this.#shared.stats.drainClose.inc();
    this.#localCloseReason = "tcp_proxy_drain_close";
    this.#downstream.close("flush");
  }

  /** `size`: of the last read among them. */
  #count(received: number, size: number): void {
    const { rxBytes, rxBuffered } = this.#shared.stats;
    this.#received += received;
    rxBytes.add(received);
    rxBuffered.add(size - this.#lastRead);
    this.#lastRead = size;
  }

  onRelayed(bytes: number, size: number, at: number): void {
    if (bytes === 0) return;
    this.#count(bytes, size);
    this.#lastByteMs = Math.max(this.#lastByteMs, at);
  }

  onBlocked(): void {
    if (this.#upstreamPaused || !this.#connected) return;
    this.#upstreamPaused = true;
    this.#cluster!.stats.counter("upstream_flow_control_paused_reading_total").inc();
    this.#upstream!.connection!.pause();
  }

  onDrained(): void {
    if (!this.#upstreamPaused) return;
    this.#upstreamPaused = false;
    this.#lastByteMs = this.#shared.cx.now();
    this.#cluster!.stats.counter("upstream_flow_control_resumed_reading_total").inc();
    this.#upstream!.connection!.resume();
  }

  onClose(event: CloseEvent): void {
    this.#shared.stats.rxBuffered.add(-this.#lastRead);
    this.#idle?.cancel();
    this.#maxDuration?.cancel();
    this.#nextAttempt?.cancel();
    const isReset = event.by === "remote" && event.error === "ECONNRESET";
    const isPassedOn = this.#connected && event.by === "remote" && this.#tunneling === undefined;
    this.#upstream?.leave(isPassedOn ? (isReset ? "reset" : "flush") : "abort", this.#shared.stats);
    this.#upstream = undefined;
    this.#connected = false;
    this.#early = undefined;
    this.#logTimer?.cancel();
    this.#downstreamFailure = event.transportFailure ?? "";
    if (isReset) this.#downstreamCloseType = "RemoteReset";
    this.#log("TcpConnectionEnd");
  }

  // ---- upstream

  #connect(cluster: Cluster): void {
    const tunneling = this.#tunneling;
    this.#backsOff = false;
    do {
      this.#attempts++;
      this.#attemptedMs = this.#shared.cx.now();
      const upstream = new Upstream(this);
      this.#upstream = upstream;
      if (tunneling !== undefined) {
        const source = this.#entry("TcpUpstreamConnected");
        upstream.connection = tunneling.open(cluster, upstream, source, this.#context);
        return;
      }
      const begun = cluster.connect(upstream, this.#context);
      if (begun === "no_host" || begun === "overflow") {
        this.onUpstreamRefused(begun);
        return;
      }
      if (begun.connection !== undefined) {
        this.#onHost(begun.host);
        upstream.connection = begun.connection;
        return;
      }
      this.#upstream = undefined;
      this.#listHost(begun.host);
      if (!this.#mayAttempt) this.#onNoMoreAttempts(cluster);
    } while (this.#mayAttempt && !this.#backOff());
  }

  /** True: the next attempt is made later. */
  #backOff(): boolean {
    const { backOff, cx } = this.#shared;
    if (backOff === undefined) return false;
    this.#backsOff = true;
    this.#nextAttempt ??= cx.timer(() => this.#connect(this.#cluster!));
    this.#nextAttempt.arm(backOff.next(this.#attempts));
    return true;
  }

  get #mayAttempt(): boolean {
    return this.#attempts < this.#shared.config.max_connect_attempts;
  }

  onUpstreamHost(host: Host, connection: Connection | undefined): void {
    this.#onHost(host);
    this.#upstreamConnection = connection;
  }

  #onHost(host: Host): void {
    const before = this.#host;
    this.#host = host;
    if (before !== undefined) this.#listHost(before);
  }

  #listHost(host: AttemptedHost): void {
    this.#hostsBefore ??= [];
    if (this.#hostsBefore.length < MOST_HOSTS_LISTED) this.#hostsBefore.push(host);
  }

  onUpstreamRefused(reason: "no_host" | "overflow"): void {
    // No connection was attempted.
    this.#attempts--;
    this.#upstream = undefined;
    this.#flags.push(reason === "no_host" ? "UH" : "UO");
    this.#refuse(reason === "no_host" ? INIT_FAILURE.noHost : INIT_FAILURE.overflow);
  }

  onUpstreamConnected(): void {
    const { cx, config, checksDrain } = this.#shared;
    this.#connected = true;
    this.#lastByteMs = cx.now();
    this.#poolReadyMs = this.#lastByteMs - this.#attemptedMs;
    const upstream = this.#upstream!.connection!;
    this.#upstreamConnection = upstream;
    this.#upstreamLocalAddress = upstream.localAddress;
    if (this.#shared.logsConnected) this.#log("TcpUpstreamConnected");
    const early = this.#early;
    this.#early = undefined;
    if (early !== undefined) {
      if (config.max_early_data_bytes === undefined)
        this.#count(this.#earlyBytes, this.#earlyBytes);
      for (const bytes of early) upstream.write(bytes, 0, bytes.length);
    }
    if (this.#downstreamEnded) this.#endUpstream();
    if (this.#held) this.#downstream.resume();
    this.#held = false;
    // What core relays is not told of read by read.
    if (!checksDrain) this.#relay = this.#chain.relay?.(upstream);
  }

  onUpstreamRelayed(bytes: number, at: number): void {
    if (bytes === 0) return;
    this.#sent += bytes;
    this.#shared.stats.txBytes.add(bytes);
    this.#lastByteMs = Math.max(this.#lastByteMs, at);
  }

  onUpstreamData(chunk: Chunk): void {
    const size = chunk.end - chunk.at;
    const downstream = this.#downstream;
    this.#sent += size;
    this.#shared.stats.txBytes.add(size);
    this.#lastByteMs = this.#shared.cx.now();
    downstream.write(chunk.memory, chunk.at, chunk.end);
    if (downstream.blocked) this.onBlocked();
    if (this.#shared.checksDrain) this.#leaveIfDraining();
  }

  onUpstreamEof(): void {
    this.#upstreamEnded = true;
    this.#downstream.end();
    this.#closeIfEnded();
  }

  onUpstreamClosed(event: CloseEvent): void {
    if (event.phase === "connecting") {
      this.#onConnectFailure(event);
      return;
    }
    // The idle timer keeps running: it closes the connection of a client that does not read the rest.
    this.#upstream = undefined;
    this.#connected = false;
    this.#upstreamPaused = false;
    if (event.error === "ECONNRESET") {
      this.#flags.push("UR");
      this.#upstreamCloseType = "RemoteReset";
      this.#downstreamCloseType = "LocalReset";
      this.#downstream.close("reset");
    } else this.#downstream.close("flush");
  }

  onUpstreamBlocked(): void {
    if (this.#downstreamPaused || !this.#connected) return;
    this.#downstreamPaused = true;
    this.#shared.stats.pausedReading.inc();
    this.#downstream.pause();
  }

  onUpstreamDrained(): void {
    if (!this.#downstreamPaused) return;
    this.#downstreamPaused = false;
    this.#lastByteMs = this.#shared.cx.now();
    this.#shared.stats.resumedReading.inc();
    this.#downstream.resume();
  }

  #onConnectFailure(event: CloseEvent): void {
    this.#upstream = undefined;
    this.#transportFailure = event.transportFailure ?? "";
    // As in Envoy, the flag is set even if a later attempt succeeds.
    if (this.#attempts === 1) this.#flags.push("UF");
    const cluster = this.#cluster!;
    if (!this.#mayAttempt) this.#onNoMoreAttempts(cluster);
    else if (!this.#backOff()) this.#connect(cluster);
  }

  #onNoMoreAttempts(cluster: Cluster): void {
    cluster.stats.counter("upstream_cx_connect_attempts_exceeded").inc();
    this.#flags.push("URX");
    this.#refuse(INIT_FAILURE.connectFailed);
  }

  // ---- both directions

  #hold(): void {
    this.#held = true;
    this.#downstream.pause();
  }

  #keepEarly(chunk: Chunk, endStream: boolean): void {
    const { config, stats } = this.#shared;
    const { max_early_data_bytes: most } = config;
    if (most !== undefined && this.#early === undefined && !this.#downstreamEnded)
      stats.earlyData.inc();
    if (endStream) this.#downstreamEnded = true;
    // Without an upstream (none was found, or it has closed) the bytes are discarded.
    const isOver = this.#begun && this.#upstream === undefined && !this.#backsOff;
    const size = chunk.end - chunk.at;
    if (isOver || size === 0) return;
    this.#earlyBytes += size;
    if (this.#earlyBytes > MAX_EARLY_BYTES + (most ?? 0)) {
      this.#downstream.close("abort");
      return;
    }
    this.#early ??= [];
    this.#early.push(chunk.copy());
    if (most !== undefined) {
      this.#count(size, size);
      if (this.#earlyBytes >= most && !this.#held) this.#hold();
    }
    if (!this.#begun) this.#begin();
  }

  #endUpstream(): void {
    this.#downstreamEnded = true;
    this.#upstream!.connection!.end();
    this.#closeIfEnded();
  }

  #closeIfEnded(): void {
    if (!this.#downstreamEnded || !this.#upstreamEnded) return;
    this.#upstream!.connection!.close("flush");
    this.#downstream.close("flush");
  }

  // Reads only store the time, and the timer is armed again for the remainder: arming it on every read would cost a command each.
  #onIdle(): void {
    this.#relay?.settle();
    const { cx, stats } = this.#shared;
    const rest = this.#lastByteMs + this.#idleMs - cx.now();
    if (rest > 0) {
      this.#idle!.arm(rest);
      return;
    }
    stats.idleTimeout.inc();
    this.#closeBecause("tcp_session_idle_timeout");
  }

  #onMaxDuration(): void {
    this.#shared.stats.maxDuration.inc();
    this.#flags.push("DT");
    this.#closeBecause("max_connection_duration_reached");
  }

  /** Closes the connection of a client that gets no upstream. `why`: one of INIT_FAILURE. */
  #refuse(why: number): void {
    // "initializion" is Envoy's spelling.
    this.#closeBecause(`tcp_initializion_failure:${why}`);
  }

  #closeBecause(reason: string): void {
    this.#localCloseReason = reason;
    this.#downstream.close("abort");
  }

  /** Logs periodically while the connection is open. */
  #onLogTimer(): void {
    this.#log("TcpPeriodic");
    this.#logTimer!.arm(this.#shared.logEveryMs);
  }

  #log(logType: AccessLogType): void {
    const logs = this.#shared.logs;
    if (logs.count > 0) logs.log(this.#entry(logType));
  }

  #entry(logType: AccessLogType): LogEntry {
    return {
      info: this.#info(),
      request: undefined,
      response: undefined,
      trailers: undefined,
      metadata: this.#downstream.metadata,
      downstream: this.#downstream,
      logType,
    };
  }

  #info(): StreamInfo {
    this.#relay?.settle();
    const downstream = this.#downstream;
    const { responseFlag: flag } = downstream;
    this.#streamId ??= crypto.randomUUID();
    return newStreamInfo({
      startTime: downstream.startTime,
      duration: this.#shared.cx.now() - this.#startedMs,
      bytesReceived: this.#received,
      bytesSent: this.#sent,
      downstreamWire: { wireReceived: this.#received, wireSent: this.#sent },
      upstreamWire: { wireReceived: this.#sent, wireSent: this.#received },
      flags: flag === undefined ? this.#flags : [...this.#flags, flag],
      clusterName: this.#cluster === undefined ? "" : this.#clusterName,
      upstreamHost: this.#host?.address,
      host: this.#host,
      cluster: this.#cluster,
      upstreamConnectionId: this.#upstreamConnection?.id,
      upstreamTls: this.#upstreamConnection?.tls,
      downstreamTransportFailure: this.#downstreamFailure,
      downstreamCloseType: this.#downstreamCloseType,
      upstreamCloseType: this.#upstreamCloseType,
      downstreamLocalCloseReason: this.#localCloseReason,
      upstreamLocalCloseReason: this.#upstreamLocalAddress && this.#localCloseReason,
      upstreamRemoteAddress: this.#upstreamLocalAddress && this.#upstreamConnection?.remoteAddress,
      upstreamLocalAddress: this.#upstreamLocalAddress,
      upstreamTransportFailure: this.#transportFailure,
      upstreamPoolReady: this.#poolReadyMs,
      ...(downstream.terminationDetails !== undefined && {
        connectionTerminationDetails: downstream.terminationDetails,
      }),
      attempts: this.#attempts,
      attemptedBefore: this.#hostsBefore,
      connectionId: downstream.id,
      streamId: this.#streamId,
      downstreamRemoteAddress: downstream.remoteAddress,
      downstreamDirectAddress: downstream.directAddress ?? downstream.remoteAddress,
      downstreamDirectLocalAddress: downstream.directLocalAddress,
      downstreamLocalAddress: downstream.localAddress,
    });
  }
}

/** One attempt at an upstream connection. It outlives its TcpProxy while bytes of a client that has left are still written. */
class Upstream implements TunnelHandler {
  /** Set as soon as `connect` has returned. */
  connection: UpstreamPipe | undefined = undefined;
  #proxy: TcpProxy | undefined;
  #flushing: Stats["flushActive"] | undefined = undefined;

  constructor(proxy: TcpProxy) {
    this.#proxy = proxy;
  }

  /** Called when the client is gone. */
  leave(how: Parameters<UpstreamPipe["close"]>[0], stats: Stats): void {
    this.#proxy = undefined;
    const connection = this.connection;
    if (connection === undefined) return;
    if (how === "flush" && connection.blocked) {
      stats.flushTotal.inc();
      stats.flushActive.inc();
      this.#flushing = stats.flushActive;
    }
    connection.close(how);
  }

  onHost(host: Host, connection: Connection | undefined): void {
    this.#proxy?.onUpstreamHost(host, connection);
  }
  onRefused(reason: "no_host" | "overflow"): void {
    this.#proxy?.onUpstreamRefused(reason);
    this.#proxy = undefined;
  }
  onConnected(): void {
    this.#proxy?.onUpstreamConnected();
  }
  onData(chunk: Chunk): void {
    this.#proxy?.onUpstreamData(chunk);
  }
  onRelayed(bytes: number, _size: number, at: number): void {
    this.#proxy?.onUpstreamRelayed(bytes, at);
  }
  onEof(): void {
    this.#proxy?.onUpstreamEof();
  }
  onClosed(event: CloseEvent): void {
    this.#flushing?.dec();
    this.#proxy?.onUpstreamClosed(event);
    this.#proxy = undefined;
  }
  onBlocked(): void {
    this.#proxy?.onUpstreamBlocked();
  }
  onDrained(): void {
    this.#proxy?.onUpstreamDrained();
  }
}

/** The state that the connections of one configured filter share. */
class Shared implements NetworkFilterFactory {
  readonly config: Config;
  readonly cx: SetupContext;
  readonly stats: Stats;
  readonly logs: AccessLogs;
  /** Undefined: plain TCP upstream connections. */
  readonly tunneling: Tunneling | undefined;
  /** Milliseconds between access log entries of an open connection; 0: none before its end. */
  readonly logEveryMs: number;
  readonly logsStart: boolean;
  readonly logsConnected: boolean;
  readonly destinations: Destinations;
  /** Undefined: the next attempt follows at once. */
  readonly backOff: BackOff | undefined;
  /** Connections of a listener that drains are closed. */
  readonly checksDrain: boolean;
  /** `/healthcheck/fail` was called. */
  #failing = false;

  constructor(config: Config, cx: SetupContext) {
    this.config = config;
    this.cx = cx;
    this.stats = statsOf(cx, config.stat_prefix);
    this.logs = new AccessLogs(config.access_log, "access_log", cx);
    this.tunneling = config.tunneling_config && new Tunneling(config.tunneling_config);
    if (this.tunneling !== undefined) listTunnelStats(cx, config.stat_prefix);
    const options = config.access_log_options;
    this.logEveryMs = options?.access_log_flush_interval ?? config.access_log_flush_interval ?? 0;
    this.logsStart = options?.flush_access_log_on_start ?? false;
    this.logsConnected =
      options?.flush_access_log_on_connected ?? config.flush_access_log_on_connected;
    this.destinations = new Destinations(config);
    this.backOff = config.backoff_options && new BackOff(config.backoff_options);
    this.checksDrain = config.check_drain_close ?? false;
    if (config.upstream_connect_mode !== "IMMEDIATE" && config.max_early_data_bytes === undefined)
      throw new ConfigError(
        "max_early_data_bytes",
        `must be set when upstream_connect_mode is ${config.upstream_connect_mode}; write 16384`,
      );
    if (this.checksDrain)
      cx.subscribe("core/health_checks_fail", (failing) => {
        this.#failing = failing === true;
      });
  }

  /** Whether the client is to leave: Envoy's DrainManager::drainClose. */
  drains({ listener }: DownstreamConnection, drain: Drain | undefined): boolean {
    return (this.#failing && listener.drainType !== "MODIFY_ONLY") || drain?.closes() === true;
  }

  create(connection: DownstreamConnection, chain: NetworkChain): NetworkFilter {
    return new TcpProxy(this, connection, chain);
  }

  /** Undefined: there is no hash policy, or nothing to hash. */
  hashOf({ remoteAddress, filterState }: DownstreamConnection): bigint | undefined {
    const [policy] = this.config.hash_policy;
    if (policy === undefined) return undefined;
    const key = policy.filter_state?.key;
    const text = key === undefined ? remoteAddress.ip : filterStateText(filterState?.get(key));
    return text === undefined || text === "" ? undefined : xxHash64(text);
  }
}

export default defineNetworkFilter({
  name: "envoy.filters.network.tcp_proxy",
  aliases: ["envoy.tcp_proxy"],
  types: ["envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"],
  terminal: true,
  config: Config,
  setup: (config, cx) => new Shared(config, cx),
});
