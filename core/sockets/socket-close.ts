import { HOW } from "../inside/ring.ts";
import { AcceptedSocket } from "./accepted-socket.ts";
import { PairedSocket } from "./paired-sockets.ts";
import { SecureSocket } from "./secure-socket.ts";
import type { Entry, RawSocket } from "./socket-table.ts";

/** How long a closed connection waits for its peer to take some of what is left. */
const FLUSH_MS = 60_000;

/** Closes a connection in one of the ways of HOW; `alert`: of a handshake that is refused. */
export function closeSocket(entry: Entry, socket: RawSocket, how: number, alert: number): void {
  entry.local = true;
  if (how === HOW.REFUSE && socket instanceof SecureSocket) {
    socket.refuse(alert);
    return;
  }
  if (how === HOW.FLUSH) {
    behindWrites(entry, () => socket.destroySoon());
    if (!socket.destroyed) destroyWhenStuck(socket, socket._handle?.writeQueueSize ?? 0);
  } else if (how === HOW.RESET) reset(entry.raw ?? socket, socket);
  else socket.destroy();
}

/** Lets a TLS handshake finish whose client certificate is accepted; HOW.REFUSE ends it instead. */
export function acceptPeer(socket: RawSocket): void {
  if (socket instanceof SecureSocket) socket.acceptPeer();
}

/** Ends our direction behind what was written. */
export function endSocket(entry: Entry, socket: RawSocket): void {
  behindWrites(entry, () => socket.end());
}

/** Destroys a closed connection whose peer has taken none of the bytes that wait for it within FLUSH_MS. */
function destroyWhenStuck(socket: RawSocket, waiting: number): void {
  socket.setTimeout(FLUSH_MS, () => {
    const left = socket._handle?.writeQueueSize ?? 0;
    if (left >= waiting || left === 0) socket.destroy();
    else destroyWhenStuck(socket, left);
  });
}

/** Closes with a RST. Unix sockets have none, and are only destroyed. */
function reset(tcp: RawSocket, socket: RawSocket): void {
  const knowsHow = tcp instanceof AcceptedSocket || tcp instanceof PairedSocket;
  if (knowsHow || tcp.remotePort !== undefined) tcp.resetAndDestroy();
  if (!socket.destroyed) socket.destroy();
}

/** Calls `end` once everything is written. With TLS bytes may wait in SecureWrites, where node:stream does not see them. */
function behindWrites({ secure }: Entry, end: () => void): void {
  if (secure === undefined) end();
  else secure.after(end);
}
