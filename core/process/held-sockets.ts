import type { AddressConfig } from "../protocol.ts";

/** A TCP socket at which a process listens. */
export interface ListeningAt {
  /** The name of the listening socket. */
  readonly name: string;
  /** Its address as the config has it, and with the port that it got. */
  readonly asked: AddressConfig;
  readonly address: AddressConfig;
  /** 0: the default. */
  readonly backlog: number;
}

/** The same socket, open in a process from its start on. */
export interface HeldSocket extends Omit<ListeningAt, "backlog"> {
  readonly fd: number;
}

/** libuv's TCP socket, as node:net uses it. */
interface TcpHandle {
  readonly fd: number;
  bind(ip: string, port: number, flags: number): number;
  bind6(ip: string, port: number, flags: number): number;
  listen(backlog: number): number;
  close(): void;
}
interface TcpBinding {
  readonly TCP: new (type: number) => TcpHandle;
  readonly constants: {
    readonly SERVER: number;
    readonly UV_TCP_IPV6ONLY: number;
    /** Node 20 has none. */
    readonly UV_TCP_REUSEPORT?: number;
  };
}

/** Node's own. */
const BACKLOG = 511;

/**
 * Opens the listening sockets of a process that has died, for `start` to start another one with: `fds` are to be its descriptors
 * from `first` on. So clients wait in their backlogs while that process starts, and are not refused. This process never
 * accepts: it closes its own descriptors before it turns to the network again.
 */
export function withHeldSockets<T>(
  listening: readonly ListeningAt[],
  first: number,
  start: (held: readonly HeldSocket[], fds: readonly number[]) => T,
): T {
  const opened = listening.flatMap((socket) => {
    const handle = open(socket);
    return handle === undefined ? [] : { socket, handle };
  });
  const held = opened.map(({ socket: { name, asked, address } }, k) => ({
    name,
    asked,
    address,
    fd: first + k,
  }));
  try {
    return start(
      held,
      opened.map(({ handle }) => handle.fd),
    );
  } finally {
    for (const { handle } of opened) handle.close();
  }
}

/** Undefined: the address cannot be had any more, or this version of Node cannot share it with the workers. */
function open({ asked, address, backlog }: ListeningAt): TcpHandle | undefined {
  const { TCP, constants } = (process as unknown as { binding(name: string): TcpBinding }).binding(
    "tcp_wrap",
  );
  const { SERVER, UV_TCP_IPV6ONLY: onlyV6, UV_TCP_REUSEPORT: shared } = constants;
  if (shared === undefined) return undefined;
  const handle = new TCP(SERVER);
  const { ip, ipv4Compat } = asked;
  const bound = ip.includes(":")
    ? handle.bind6(ip, address.port, ipv4Compat === true ? shared : shared | onlyV6)
    : handle.bind(ip, address.port, shared);
  if (bound === 0 && handle.listen(backlog || BACKLOG) === 0) return handle;
  handle.close();
  return undefined;
}
