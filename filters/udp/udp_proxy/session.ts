// Hot path: every datagram.
import type {
  Address,
  Chunk,
  Cluster,
  Host,
  SetupContext,
  Timer,
  UdpHandler,
  UdpSocket,
} from "@tsproxy/sdk";
import type { ClusterUdpStats, DownstreamUdpStats } from "./stats.ts";

/** What the sessions of one listener share. */
export interface SessionOwner {
  readonly cx: SetupContext;
  readonly stats: DownstreamUdpStats;
  readonly idleMs: number;
  readonly maxDatagram: number;
  onEnded(session: Session): void;
}

/** One client's exchange with one host: its datagrams go out from a socket of their own, so that answers find back. */
export class Session implements UdpHandler {
  readonly key: string;
  readonly cluster: Cluster;
  readonly host: Host;
  readonly #owner: SessionOwner;
  readonly #upstreamStats: ClusterUdpStats;
  readonly #client: Address;
  readonly #listener: UdpSocket;
  readonly #upstream: UdpSocket;
  readonly #idle: Timer;
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
    this.cluster = target.cluster;
    this.host = target.host;
    this.#upstreamStats = target.stats;
    this.#client = client;
    this.#listener = listener;
    this.#upstream = owner.cx.udp(target.host.address, this);
    this.#lastMs = owner.cx.now();
    this.#idle = owner.cx.timer(() => this.#onIdle());
    if (owner.idleMs > 0) this.#idle.arm(owner.idleMs);
    owner.stats.total.inc();
    owner.stats.active.inc();
  }

  /** From the client. */
  forward(bytes: Chunk): void {
    const { cx, stats } = this.#owner;
    const size = bytes.end - bytes.at;
    this.#lastMs = cx.now();
    stats.rxDatagrams.inc();
    stats.rxBytes.add(size);
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
    } else stats.txErrors.inc();
  }

  onError(_error: string): void {
    this.#upstreamStats.rxErrors.inc();
  }

  // Datagrams only note the time; a timer that is late enough decides.
  #onIdle(): void {
    const { cx, stats, idleMs } = this.#owner;
    const rest = this.#lastMs + idleMs - cx.now();
    if (rest > 0) {
      this.#idle.arm(rest);
      return;
    }
    stats.idleTimeout.inc();
    this.end();
  }

  end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#idle.cancel();
    this.#upstream.close();
    this.#owner.stats.active.dec();
    this.#owner.onEnded(this);
  }
}
