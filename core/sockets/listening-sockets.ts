import type dgram from "node:dgram";
import net from "node:net";
import type { AddressConfig } from "../protocol.ts";
import type { SocketFile } from "./socket-file.ts";
import { MAX_CONNECTIONS } from "./socket-table.ts";
import { onAccepted, type StreamHandle } from "./stream-handle.ts";
import { closeWhenQuiet, type ListenOptions, listenTcp, setKeepAlive } from "./tcp-listen.ts";
import { bindUdp } from "./udp.ts";

/** A listening socket. `path`: of a unix socket, else "". */
export interface Listening {
  readonly server: net.Server | dgram.Socket;
  readonly path: string;
  /** The one of a unix socket that is not abstract. */
  readonly file?: SocketFile | undefined;
  /** High watermark of the bytes that wait to be sent on a connection. 0: Node's own. */
  bufferBytes: number;
  /** Connections that were accepted while there was no isolate. */
  readonly waiting: StreamHandle[];
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

  /** Binds (`listenTcp`) and accepts. Rejects with the socket's error. */
  async listen(
    name: string,
    address: AddressConfig,
    options: ListenOptions & { readonly bufferBytes?: number },
  ): Promise<AddressConfig> {
    const { path = "" } = address;
    const { bufferBytes = 0 } = options;
    const { server, bound, file } = await listenTcp(address, options);
    this.#take(name, { server, path, file, bufferBytes, waiting: [] });
    return bound;
  }

  /** Binds a UDP listener's socket. Rejects with the socket's error. */
  async listenUdp(
    name: string,
    address: AddressConfig,
    options: Pick<ListenOptions, "ipv6Only">,
  ): Promise<AddressConfig> {
    const server = await bindUdp(address, options);
    this.#take(name, { server, path: "", bufferBytes: 0, waiting: [] });
    return { ...address, port: server.address().port };
  }

  /** Gives a listening socket that stays open new options, for the connections that it accepts from now on. */
  configure(
    name: string,
    options: Pick<ListenOptions, "keepAlive"> & { readonly bufferBytes: number },
  ): void {
    const listening = this.#byName.get(name);
    if (listening === undefined || !(listening.server instanceof net.Server)) return;
    listening.bufferBytes = options.bufferBytes;
    if (listening.path === "") setKeepAlive(listening.server, options.keepAlive);
  }

  /** Stops accepting; open connections go on. Settles once the connections that waited in the backlog have been accepted. */
  async unlisten(name: string): Promise<void> {
    const listening = this.#byName.get(name);
    this.#byName.delete(name);
    if (listening === undefined) return;
    const { server, file } = listening;
    file?.remove();
    if (server instanceof net.Server) await closeWhenQuiet(server);
    else server.close();
  }

  /** Hands over all sockets to the successor of this object. Connections that come meanwhile wait, unread, for it. */
  giveAll(): ReadonlyMap<string, Listening> {
    const given = new Map(this.#byName);
    for (const { server, waiting } of given.values()) {
      this.#given.add(server);
      if (server instanceof net.Server)
        onAccepted(server, (handle) => {
          if (waiting.length < MAX_CONNECTIONS) waiting.push(handle);
          else handle.close();
        });
    }
    this.#byName.clear();
    return given;
  }

  takeAll(given: ReadonlyMap<string, Listening>): void {
    for (const [name, listening] of given) {
      if (!(listening.server instanceof net.Server))
        for (const event of ["message", "error", "close"])
          listening.server.removeAllListeners(event);
      this.#take(name, listening);
    }
  }

  #take(name: string, listening: Listening): void {
    const { server, waiting } = listening;
    this.#byName.set(name, listening);
    if (server instanceof net.Server) {
      const accepted = (handle: StreamHandle) => this.#arrivals.accepted(name, handle, listening);
      // At the libuv handle: so connections read into our memory, and node:net makes no second socket for each.
      onAccepted(server, accepted);
      waiting.splice(0).forEach(accepted);
    } else this.#arrivals.bound(name, server);
  }
}
