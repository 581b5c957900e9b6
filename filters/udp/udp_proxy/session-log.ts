import {
  type AccessLogs,
  type AccessLogType,
  type Address,
  type Host,
  type LogEntry,
  newStreamInfo,
  type StreamInfo,
  type UdpSocket,
} from "@tsproxy/sdk";

/** Counts of one session, or of all together. "Sent" is towards the client, as in Envoy. */
export class UdpCounts {
  bytesReceived = 0;
  bytesSent = 0;
  datagramsReceived = 0;
  datagramsSent = 0;
  errorsSent = 0;
}

/** Counts of one worker's sessions since the config came. */
export class ProxyCounts extends UdpCounts {
  sessions = 0;
  idleTimeouts = 0;
  noRoute = 0;
}

interface LoggedSession {
  readonly id: number;
  readonly startTime: number;
  readonly client: Address;
  readonly listener: UdpSocket;
  /** Both undefined: the circuit breaker refused the session. */
  readonly upstream: UdpSocket | undefined;
  readonly host: Host | undefined;
  readonly clusterName: string;
  readonly counts: UdpCounts;
}

export function logSession(
  logs: AccessLogs,
  session: LoggedSession,
  duration: number,
  logType: AccessLogType,
): void {
  const { client, listener, upstream, host, counts } = session;
  const info: StreamInfo = {
    ...infoOf(counts, session.startTime, duration),
    flags: host === undefined ? ["UO"] : [],
    upstreamHost: host?.address,
    host,
    upstreamRemoteAddress: host?.address,
    // Node knows the local address only once the socket is connected.
    upstreamLocalAddress: upstream?.localAddress.ip === "" ? undefined : upstream?.localAddress,
    connectionId: session.id,
    downstreamRemoteAddress: client,
    downstreamDirectAddress: client,
    downstreamLocalAddress: listener.localAddress,
  };
  const told = { cluster_name: session.clusterName, ...countsOf(counts) };
  logs.log(entry(info, "udp.proxy.session", told, logType));
}

/** One line for all sessions, when the config that they began under goes. */
export function logProxy(
  logs: AccessLogs,
  counts: ProxyCounts,
  startTime: number,
  duration: number,
): void {
  const told = {
    ...countsOf(counts),
    // Node does not report errors of receiving.
    errors_received: 0,
    no_route: counts.noRoute,
    session_total: counts.sessions,
    idle_timeout: counts.idleTimeouts,
  };
  logs.log(entry(infoOf(counts, startTime, duration), "udp.proxy.proxy", told, "NotSet"));
}

/** Under Envoy's names. */
function countsOf(counts: UdpCounts): Record<string, number> {
  return {
    bytes_received: counts.bytesReceived,
    bytes_sent: counts.bytesSent,
    datagrams_received: counts.datagramsReceived,
    datagrams_sent: counts.datagramsSent,
    errors_sent: counts.errorsSent,
  };
}

function entry(
  info: StreamInfo,
  namespace: string,
  told: Readonly<Record<string, unknown>>,
  logType: AccessLogType,
): LogEntry {
  return {
    info,
    request: undefined,
    response: undefined,
    trailers: undefined,
    metadata: new Map([[namespace, told]]),
    logType,
  };
}

function infoOf(counts: UdpCounts, startTime: number, duration: number): StreamInfo {
  // As in Envoy, datagrams count no bytes of the wire.
  const { bytesReceived, bytesSent } = counts;
  return newStreamInfo({ startTime, duration, bytesReceived, bytesSent });
}
