import type dgram from "node:dgram";
import type { AddressConfig } from "../protocol.ts";
import { Acceptor } from "./acceptor.ts";
import type { SocketFile } from "./socket-file.ts";
import type { StreamHandle } from "./stream-handle.ts";
import { type ListenOptions, listenTcp, listenUnix } from "./tcp-listen.ts";
import { bindUdp } from "./udp.ts";

/**
 * Sockets for a TCP address. libuv accepts one connection from a socket in a turn of the event loop, and a turn in which much is
 * read takes long: clients would wait for as many turns as there are clients before them. The kernel spreads them over all.
 */
const SOCKETS = 8;
/** Each address after so many has one socket: a config with hundreds would use up the files that may be open. */
const SPREAD_ADDRESSES = 16;

/** What listens at one address. `path`: of a unix socket, else "". */
export interface Listening {
  readonly server: Acceptor | dgram.Socket;
  readonly path: string;
  /** The one of a unix socket that is not abstract. */
  readonly file?: SocketFile | undefined;
  /** High watermark of the bytes that wait to be sent on a connection. 0: Node's own. */
  bufferBytes: number;
}

/** What is done with what listening sockets bring. `name`: of the listening socket. */
export interface Arrivals {
  accepted(name: string, handle: StreamHandle, listening: Listening): void;
  bound(name: string, socket: dgram.Socket): void;
}

/** The listening sockets of a worker, by name. They outlive its isolate: the next one takes them over. */
export class ListeningSockets {
  readonly #arrivals: Arrivals;
  readonly #byName = new Map<string, Listening>();
  /** Those that were given to the successor of this object. */
  readonly #given = new Set<unknown>();

  constructor(arrivals: Arrivals) {
    this.#arrivals = arrivals;
  }

  get names(): readonly string[] {
    return [...this.#byName.keys()];
  }
  get(name: string): Listening | undefined {
    return this.#byName.get(name);
  }
  /** True if this socket listens, here or at the successor. */
  has(socket: dgram.Socket): boolean {
    if (this.#given.has(socket)) return true;
    for (const { server } of this.#byName.values()) if (server === socket) return true;
    return false;
  }

  /** Binds and accepts. Rejects with the socket's error. */
  async listen(
    name: string,
    address: AddressConfig,
    options: ListenOptions & { readonly bufferBytes?: number },
  ): Promise<AddressConfig> {
    const { path, mode } = address;
    const { bufferBytes = 0, backlog } = options;
    if (path !== undefined) {
      const { acceptor: server, file } = await listenUnix(path, { backlog, mode });
      this.#take(name, { server, path, file, bufferBytes });
      return address;
    }
    const sockets = this.#byName.size < SPREAD_ADDRESSES ? SOCKETS : 1;
    const { acceptor: server, bound } = await listenTcp(address, options, sockets);
    this.#take(name, { server, path: "", bufferBytes });
    return bound;
  }

  /** Binds a UDP listener's socket. Rejects with the socket's error. */
  async listenUdp(
    name: string,
    address: AddressConfig,
    options: Pick<ListenOptions, "ipv6Only">,
  ): Promise<AddressConfig> {
    const server = await bindUdp(address, options);
    this.#take(name, { server, path: "", bufferBytes: 0 });
    return { ...address, port: server.address().port };
  }

  /** Gives a listening socket that stays open new options, for the connections that it accepts from now on. */
  configure(
    name: string,
    options: Pick<ListenOptions, "keepAlive"> & { readonly bufferBytes: number },
  ): void {
    const listening = this.#byName.get(name);
    if (listening === undefined || !(listening.server instanceof Acceptor)) return;
    listening.bufferBytes = options.bufferBytes;
    if (listening.path === "") listening.server.setKeepAlive(options.keepAlive);
  }

  /** Stops accepting; open connections go on. Settles once the connections that waited in the backlog have been accepted. */
  async unlisten(name: string): Promise<void> {
    const listening = this.#byName.get(name);
    this.#byName.delete(name);
    if (listening === undefined) return;
    const { server, file } = listening;
    file?.remove();
    await server.close();
  }

  /** Hands over all sockets to the successor of this object. Connections that come meanwhile wait, unread, for it. */
  giveAll(): ReadonlyMap<string, Listening> {
    const given = new Map(this.#byName);
    for (const { server } of given.values()) {
      this.#given.add(server);
      if (server instanceof Acceptor) server.hold();
    }
    this.#byName.clear();
    return given;
  }

  takeAll(given: ReadonlyMap<string, Listening>): void {
    for (const [name, listening] of given) {
      if (!(listening.server instanceof Acceptor))
        for (const event of ["message", "error", "close"])
          listening.server.removeAllListeners(event);
      this.#take(name, listening);
    }
  }

  #take(name: string, listening: Listening): void {
    const { server } = listening;
    this.#byName.set(name, listening);
    if (server instanceof Acceptor)
      server.give((handle) => this.#arrivals.accepted(name, handle, listening));
    else this.#arrivals.bound(name, server);
  }
}
