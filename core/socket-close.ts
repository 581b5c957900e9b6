import { HOW } from "./inside/ring.ts";
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
    destroyWhenStuck(socket, socket._handle?.writeQueueSize ?? 0);
    behindWrites(entry, () => socket.destroySoon());
  } else if (how === HOW.RESET) reset(entry.raw ?? socket, socket);
  else socket.destroy();
}

/** The opposite of REFUSE. */
export function acceptPeer(socket: RawSocket): void {
  if (socket instanceof SecureSocket) socket.acceptPeer();
}

/** Ends our direction behind what was written. */
export function endSocket(entry: Entry, socket: RawSocket): void {
  behindWrites(entry, () => socket.end());
}

/** A peer that takes nothing of what a closed connection still has for it loses the rest. */
function destroyWhenStuck(socket: RawSocket, waiting: number): void {
  socket.setTimeout(FLUSH_MS, () => {
    const left = socket._handle?.writeQueueSize ?? 0;
    if (left >= waiting || left === 0) socket.destroy();
    else destroyWhenStuck(socket, left);
  });
}

/** RST, where the socket knows it; unix sockets do not. */
function reset(tcp: RawSocket, socket: RawSocket): void {
  if (tcp.remotePort !== undefined) tcp.resetAndDestroy();
  if (!socket.destroyed) socket.destroy();
}

/** What TLS has taken is not all written, and node:stream does not know of it. */
function behindWrites({ secure }: Entry, end: () => void): void {
  if (secure === undefined) end();
  else secure.after(end);
}
