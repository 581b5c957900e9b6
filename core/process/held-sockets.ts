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
 * The listening sockets of a process for another one that takes its place, which gets them as descriptors. They are bound beside that
 * process, and get no connection before `listen`: from then on clients wait in their backlogs. This process never accepts: it
 * calls `close` before it turns to the network again.
 */
export class HeldSockets {
  readonly #opened: readonly { readonly at: ListeningAt; readonly handle: TcpHandle }[];

  constructor(listening: readonly ListeningAt[]) {
    this.#opened = listening.flatMap((at) => {
      const handle = bind(at);
      return handle === undefined ? [] : { at, handle };
    });
  }

  /** The descriptors here. */
  get fds(): readonly number[] {
    return this.#opened.map(({ handle }) => handle.fd);
  }

  /** What the other process is told, in which they are the descriptors from `first` on. */
  from(first: number): readonly HeldSocket[] {
    return this.#opened.map(({ at: { name, asked, address } }, k) => ({
      name,
      asked,
      address,
      fd: first + k,
    }));
  }

  /** One that fails here fails again where it is opened, which reports it. */
  listen(): void {
    for (const { at, handle } of this.#opened) handle.listen(at.backlog || BACKLOG);
  }

  close(): void {
    for (const { handle } of this.#opened) handle.close();
  }
}

/** Undefined: the address cannot be had any more, or this version of Node cannot share it with the workers. */
function bind({ asked, address }: ListeningAt): TcpHandle | undefined {
  const { TCP, constants } = (process as unknown as { binding(name: string): TcpBinding }).binding(
    "tcp_wrap",
  );
  const { SERVER, UV_TCP_IPV6ONLY: onlyV6, UV_TCP_REUSEPORT: shared } = constants;
  if (shared === undefined) return undefined;
  const handle = new TCP(SERVER);
  const { ip, ipv4Compat } = asked;
  const failed = ip.includes(":")
    ? handle.bind6(ip, address.port, ipv4Compat === true ? shared : shared | onlyV6)
    : handle.bind(ip, address.port, shared);
  if (failed === 0) return handle;
  handle.close();
  return undefined;
}
