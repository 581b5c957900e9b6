// Hot path: called for every attempt.
import type { Connection, Host, StreamInfo } from "@tsproxy/sdk";

/** Notes the host of an attempt that has no connection, or none yet. */
export function noteHost(info: StreamInfo, host: Host): void {
  info.upstreamHost = host.address;
  info.host = host;
}

/** Notes an attempt's host and connection for logs. `startedAt`: when the request or attempt in `info` began, by `cx.now()`. */
export function noteUpstream(
  info: StreamInfo,
  host: Host,
  connection: Connection,
  startedAt: number,
): void {
  noteHost(info, host);
  // As in Envoy, the transport failure of an earlier attempt is forgotten.
  info.upstreamTransportFailure = "";
  info.upstreamRemoteAddress = connection.remoteAddress;
  info.upstreamLocalAddress = connection.localAddress;
  info.upstreamTls = connection.tls;
  info.upstreamConnectionId = connection.id;
  const { connectBegin = -1, connectEnd = -1, handshakeEnd = -1 } = connection;
  info.upstreamConnectBegin = connectBegin < 0 ? Number.NaN : connectBegin - startedAt;
  info.upstreamConnectEnd = connectEnd < 0 ? Number.NaN : connectEnd - startedAt;
  info.upstreamHandshakeEnd = handshakeEnd < 0 ? Number.NaN : handshakeEnd - startedAt;
}
