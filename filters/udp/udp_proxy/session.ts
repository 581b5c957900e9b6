// Hot path: every datagram.
import type {
  AccessLogs,
  AccessLogType,
  Address,
  Chunk,
  Cluster,
  Host,
  SetupContext,
  Timer,
  UdpHandler,
  UdpSocket,
} from "@tsproxy/sdk";
import { logSession, type ProxyCounts, UdpCounts } from "./session-log.ts";
import type { ClusterUdpStats, DownstreamUdpStats } from "./stats.ts";

/** What the sessions of one listener share. */
export interface SessionOwner {
  readonly cx: SetupContext;
  readonly stats: DownstreamUdpStats;
  readonly idleMs: number;
  readonly maxDatagram: number;
  readonly logs: AccessLogs;
  /** Milliseconds between lines of a running session; 0: there is only the line at its end. */
  readonly logEveryMs: number;
  readonly counts: ProxyCounts;
  onEnded(session: Session): void;
}

/** One client's exchange with one host. It has a socket of its own, so that answers can be told apart from those of other clients. */
export class Session implements UdpHandler {
  readonly key: string;
  #cluster: Cluster;
  #host: Host;
  /** Its cluster counts it as a connection. */
  #isCounted = true;
  readonly #owner: SessionOwner;
  readonly #upstreamStats: ClusterUdpStats;
  readonly #client: Address;
  readonly #listener: UdpSocket;
  readonly #upstream: UdpSocket;
  readonly #idle: Timer;
  readonly #counts = new UdpCounts();
  readonly #id: number;
  readonly #startTime = Date.now();
  readonly #beganMs: number;
  readonly #logTimer: Timer | undefined;
  #lastMs: number;
  #over = false;

  constructor(
    owner: SessionOwner,
    key: string,
    target: { readonly cluster: Cluster; readonly host: Host; readonly stats: ClusterUdpStats },
    client: Address,
    listener: UdpSocket,
  ) {
    this.#owner = owner;
    this.key = key;
    this.#cluster = target.cluster;
    this.#host = target.host;
    this.#upstreamStats = target.stats;
    this.#client = client;
    this.#listener = listener;
    this.#upstream = owner.cx.udp(target.host.address, this);
    this.#lastMs = owner.cx.now();
    this.#idle = owner.cx.timer(() => this.#onIdle());
    if (owner.idleMs > 0) this.#idle.arm(owner.idleMs);
    this.#beganMs = this.#lastMs;
    this.#id = owner.counts.sessions++;
    this.#logTimer = owner.logEveryMs > 0 ? owner.cx.timer(() => this.#onLogTimer()) : undefined;
    this.#logTimer?.arm(owner.logEveryMs);
    owner.stats.total.inc();
    owner.stats.active.inc();
  }

  get cluster(): Cluster {
    return this.#cluster;
  }
  get host(): Host {
    return this.#host;
  }

  /**
   * After a reload of the config other objects stand for the cluster and for its host, whose address is the same. False: the
   * cluster takes no more connections, and the session has to end.
   */
  moveTo(cluster: Cluster, host: Host): boolean {
    this.#cluster.endSession?.();
    this.#isCounted = cluster.beginSession?.() !== false;
    this.#cluster = cluster;
    this.#host = host;
    return this.#isCounted;
  }

  /** From the client. */
  forward(bytes: Chunk): void {
    const { cx, stats } = this.#owner;
    const size = bytes.end - bytes.at;
    this.#lastMs = cx.now();
    stats.rxDatagrams.inc();
    stats.rxBytes.add(size);
    this.#counts.datagramsReceived++;
    this.#counts.bytesReceived += size;
    if (this.#upstream.send(bytes.memory, bytes.at, bytes.end)) {
      this.#upstreamStats.txDatagrams.inc();
      this.#upstreamStats.txBytes.add(size);
    } else this.#upstreamStats.txErrors.inc();
  }

  /** From the host. */
  onDatagram(bytes: Chunk): void {
    const { cx, stats, maxDatagram } = this.#owner;
    const size = bytes.end - bytes.at;
    if (size > maxDatagram) {
      this.#upstreamStats.rxDropped.inc();
      return;
    }
    this.#lastMs = cx.now();
    this.#upstreamStats.rxDatagrams.inc();
    this.#upstreamStats.rxBytes.add(size);
    if (this.#listener.send(bytes.memory, bytes.at, bytes.end, this.#client)) {
      stats.txDatagrams.inc();
      stats.txBytes.add(size);
      this.#counts.datagramsSent++;
      this.#counts.bytesSent += size;
    } else {
      stats.txErrors.inc();
      this.#counts.errorsSent++;
    }
  }

  onError(_error: string): void {
    this.#upstreamStats.rxErrors.inc();
  }

  // Datagrams only note the time: the timer looks how long ago the last one was, and arms itself again for the rest.
  #onIdle(): void {
    const { cx, stats, idleMs } = this.#owner;
    const rest = this.#lastMs + idleMs - cx.now();
    if (rest > 0) {
      this.#idle.arm(rest);
      return;
    }
    stats.idleTimeout.inc();
    this.#owner.counts.idleTimeouts++;
    this.end();
  }

  end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#idle.cancel();
    this.#logTimer?.cancel();
    this.#log("UdpSessionEnd");
    this.#addUp();
    this.#upstream.close();
    if (this.#isCounted) this.#cluster.endSession?.();
    this.#owner.stats.active.dec();
    this.#owner.onEnded(this);
  }

  #onLogTimer(): void {
    this.#log("UdpPeriodic");
    this.#logTimer!.arm(this.#owner.logEveryMs);
  }

  #log(logType: AccessLogType): void {
    const { logs, cx } = this.#owner;
    if (logs.count === 0) return;
    const session = {
      id: this.#id,
      startTime: this.#startTime,
      client: this.#client,
      listener: this.#listener,
      upstream: this.#upstream,
      host: this.#host,
      clusterName: this.#cluster.name,
      counts: this.#counts,
    };
    logSession(logs, session, cx.now() - this.#beganMs, logType);
  }

  #addUp(): void {
    const { counts } = this.#owner;
    const mine = this.#counts;
    counts.bytesReceived += mine.bytesReceived;
    counts.bytesSent += mine.bytesSent;
    counts.datagramsReceived += mine.datagramsReceived;
    counts.datagramsSent += mine.datagramsSent;
    counts.errorsSent += mine.errorsSent;
  }
}
