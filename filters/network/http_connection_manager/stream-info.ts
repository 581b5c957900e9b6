import type {
  Address,
  DownstreamConnection,
  SetupContext,
  StreamInfo,
  VirtualCluster,
} from "@tsproxy/sdk";

const NOWHERE: Address = { ip: "", port: 0 };

/** The StreamInfo of an HcmStream, reset for each of its streams. */
export class Info implements StreamInfo {
  protocol: StreamInfo["protocol"] = "HTTP/1.1";
  startTime = 0;
  startedAt = 0;
  requestDuration = -1;
  responseDuration = -1;
  duration = -1;
  bytesReceived = 0;
  bytesSent = 0;
  responseCode = 0;
  responseCodeDetails = "";
  readonly flags: string[] = [];
  routeName = "";
  virtualHostName = "";
  clusterName = "";
  virtualCluster: VirtualCluster | undefined = undefined;
  upstreamHost: Address | undefined = undefined;
  upstreamRemoteAddress: Address | undefined = undefined;
  upstreamLocalAddress: Address | undefined = undefined;
  upstreamTransportFailure = "";
  upstreamProtocol: string | undefined = undefined;
  upstreamConnectBegin = Number.NaN;
  upstreamConnectEnd = Number.NaN;
  upstreamHandshakeEnd = Number.NaN;
  upstreamPoolReady = -1;
  upstreamTxBegin = -1;
  upstreamTxEnd = -1;
  upstreamRxEnd = -1;
  downstreamTxBegin = -1;
  downstreamTxEnd = -1;
  cluster: StreamInfo["cluster"] = undefined;
  host: StreamInfo["host"] = undefined;
  upstreamConnectionId: number | undefined = undefined;
  upstreamTls: StreamInfo["upstreamTls"] = undefined;
  downstreamWire: StreamInfo["downstreamWire"] = undefined;
  upstreamWire: StreamInfo["upstreamWire"] = undefined;
  healthCheck = false;
  attempts = 0;
  connectionId = 0;
  downstreamRemoteAddress = NOWHERE;
  downstreamDirectAddress = NOWHERE;
  downstreamLocalAddress = NOWHERE;
  downstreamDirectLocalAddress: StreamInfo["downstreamDirectLocalAddress"] = undefined;
  downstreamLocalAddressRestored = false;
  #clock: Pick<SetupContext, "now"> | undefined = undefined;

  get elapsed(): number {
    if (this.duration >= 0 || this.#clock === undefined) return this.duration;
    return this.#clock.now() - this.startedAt;
  }

  begin(
    connection: DownstreamConnection,
    wire: StreamInfo["downstreamWire"],
    clock: Pick<SetupContext, "now">,
  ): void {
    this.#reset();
    this.#clock = clock;
    this.protocol = "HTTP/1.1";
    this.bytesReceived = 0;
    this.downstreamWire = wire;
    this.connectionId = connection.id;
    const { remoteAddress, directAddress } = connection;
    this.downstreamRemoteAddress = remoteAddress;
    this.downstreamDirectAddress = directAddress ?? remoteAddress;
    this.downstreamLocalAddress = connection.localAddress;
    this.downstreamDirectLocalAddress = connection.directLocalAddress;
    this.downstreamLocalAddressRestored = connection.localAddressRestored === true;
  }

  /** Called when an internal redirect begins another pass: what is known of the client and of its request stays. */
  beginPass(): void {
    this.#reset();
    this.requestDuration = 0;
  }

  /** Called while no stream uses it: lets go of what belongs to clusters, or leads to code that has served the last one. */
  end(): void {
    this.#leaveCluster();
    this.downstreamWire = undefined;
  }

  #leaveCluster(): void {
    this.cluster = undefined;
    this.host = undefined;
    this.virtualCluster = undefined;
    this.upstreamTls = undefined;
    this.upstreamWire = undefined;
  }

  #reset(): void {
    this.#leaveCluster();
    this.requestDuration = -1;
    this.responseDuration = -1;
    this.duration = -1;
    this.bytesSent = 0;
    this.responseCode = 0;
    this.responseCodeDetails = "";
    while (this.flags.length > 0) this.flags.pop();
    this.routeName = "";
    this.virtualHostName = "";
    this.clusterName = "";
    this.upstreamHost = undefined;
    this.upstreamRemoteAddress = undefined;
    this.upstreamLocalAddress = undefined;
    this.upstreamTransportFailure = "";
    this.upstreamProtocol = undefined;
    this.upstreamConnectBegin = Number.NaN;
    this.upstreamConnectEnd = Number.NaN;
    this.upstreamHandshakeEnd = Number.NaN;
    this.upstreamPoolReady = -1;
    this.upstreamTxBegin = -1;
    this.upstreamTxEnd = -1;
    this.upstreamRxEnd = -1;
    this.downstreamTxBegin = -1;
    this.downstreamTxEnd = -1;
    this.upstreamConnectionId = undefined;
    this.healthCheck = false;
    this.attempts = 0;
  }
}
