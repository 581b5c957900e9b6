import dgram from "node:dgram";
import { isIPv6 } from "node:net";
import type { AddressConfig } from "../protocol.ts";

/** Bytes that may wait to be sent in a socket; beyond this, datagrams are dropped. */
const MAX_QUEUED_BYTES = 4 * 1024 * 1024;
/** Size asked for of the kernel's buffers, each way. */
const BUFFER_BYTES = 1024 * 1024;

type Lookup = (
  host: string,
  options: unknown,
  callback: (error: null, address: string, family: number) => void,
) => void;

/** Hosts are IP addresses already, so DNS is not asked. An IPv6 socket sends to an IPv4 peer at its mapped address. */
const LOOKUPS: Readonly<Record<"udp4" | "udp6", Lookup>> = {
  udp4: (host, _options, callback) => callback(null, host, 4),
  udp6: (host, _options, callback) => callback(null, isIPv6(host) ? host : `::ffff:${host}`, 6),
};

function createSocket(
  ip: string,
  { reusePort, ipv6Only }: { readonly reusePort: boolean; readonly ipv6Only: boolean },
): dgram.Socket {
  const type = ip.includes(":") ? "udp6" : "udp4";
  const own = type === "udp6" ? { ipv6Only } : {};
  return dgram.createSocket({
    type,
    reusePort,
    ...own,
    lookup: LOOKUPS[type],
  } as dgram.SocketOptions);
}

/** Binds a listener's socket. Rejects with the socket's error. */
export function bindUdp(
  { ip, port }: AddressConfig,
  { ipv6Only }: { readonly ipv6Only: boolean },
): Promise<dgram.Socket> {
  const socket = createSocket(ip, { reusePort: true, ipv6Only });
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    socket.bind({ address: ip, port, exclusive: true }, () => {
      socket.removeListener("error", reject);
      enlarge(socket);
      resolve(socket);
    });
  });
}

/** Makes a socket with one peer; datagrams of others are not received. `bind`: the local IP address, or "". */
export function connectUdp(ip: string, port: number, bind: string): dgram.Socket {
  const socket = createSocket(ip, { reusePort: false, ipv6Only: false });
  const connect = () => socket.connect(port, ip, () => enlarge(socket));
  if (bind === "") connect();
  else socket.bind({ address: bind }, connect);
  return socket;
}

/** Sends a datagram; `to` undefined: to the socket's one peer. False: too much waits, and the datagram was not sent. */
export function sendUdp(
  socket: dgram.Socket,
  bytes: Buffer,
  to: { readonly ip: string; readonly port: number } | undefined,
  onError: (code: string) => void,
): boolean {
  if (queued(socket) > MAX_QUEUED_BYTES) return false;
  const done = (error: NodeJS.ErrnoException | null): void => {
    if (error) onError(error.code ?? "");
  };
  try {
    if (to === undefined) socket.send(bytes, done);
    else socket.send(bytes, to.port, to.ip, done);
  } catch (error) {
    onError((error as NodeJS.ErrnoException).code ?? "");
  }
  return true;
}

function queued(socket: dgram.Socket): number {
  try {
    return socket.getSendQueueSize();
  } catch {
    return 0;
  }
}

/** Enlarges the kernel's buffers: datagrams that do not fit in are lost. The system may allow less. */
function enlarge(socket: dgram.Socket): void {
  try {
    socket.setRecvBufferSize(BUFFER_BYTES);
    socket.setSendBufferSize(BUFFER_BYTES);
  } catch {
    // It stays as it is.
  }
}

export function closeUdp(socket: dgram.Socket): void {
  try {
    socket.close();
  } catch {
    // It is closed already.
  }
}
