import net from "node:net";
import type { KeepAlive } from "@tsproxy/sdk";
import type { AddressConfig } from "../protocol.ts";
import { SocketFile } from "./socket-file.ts";

export interface ListenOptions {
  /** 0: the system's default. */
  readonly backlog: number;
  readonly ipv6Only: boolean;
  readonly keepAlive?: KeepAlive | undefined;
  /** A TCP socket that listens at the address already: it is opened, and none is bound. */
  readonly fd?: number | undefined;
}

/** libuv's listening socket. On Linux, accepted connections inherit its options. */
interface ListenHandle {
  setKeepAlive?(on: boolean, idleS: number, intervalS: number, probes: number): number;
}

/**
 * Binds a listening socket, which has no handler for connections yet. Rejects with the socket's error. `bound`: the address, with
 * the port that the system chose for port 0. The `file` of a unix socket takes the place of the one that is there: the caller has
 * made sure that this is right.
 */
export function listenTcp(
  address: AddressConfig,
  { backlog, ipv6Only, keepAlive, fd }: ListenOptions,
): Promise<{
  readonly server: net.Server;
  readonly bound: AddressConfig;
  readonly file: SocketFile | undefined;
}> {
  const { path } = address;
  const server = net.createServer();
  const file = path === undefined || path.startsWith("@") ? undefined : new SocketFile(path);
  const where =
    path !== undefined
      ? { path: file?.fresh ?? socketPath(path) }
      : fd !== undefined
        ? { fd }
        : { host: address.ip, port: address.port, reusePort: true, ipv6Only };
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // Of a descriptor's socket, Node takes the backlog from the second argument alone.
    server.listen({ ...where, backlog }, backlog, () => {
      server.removeListener("error", reject);
      server.on("error", () => {});
      if (path === undefined) {
        if (keepAlive !== undefined) setKeepAlive(server, keepAlive);
        const { address: ip, port } = server.address() as net.AddressInfo;
        return resolve({ server, bound: { ...address, ip, port }, file });
      }
      try {
        file?.place(address.mode);
      } catch (error) {
        server.close();
        return reject(error);
      }
      resolve({ server, bound: address, file });
    });
  });
}

/** Sets TCP keepalive of the connections that this socket accepts from now on. Undefined: off. */
export function setKeepAlive(server: net.Server, keepAlive: KeepAlive | undefined): void {
  const { _handle: handle } = server as unknown as { readonly _handle: ListenHandle | null };
  const { idleS = 0, intervalS = 0, probes = 0 } = keepAlive ?? {};
  handle?.setKeepAlive?.(keepAlive !== undefined, idleS, intervalS, probes);
}

/** The path as Node takes it; `@name` stands for the abstract namespace. */
export function socketPath(path: string): string {
  return path.startsWith("@") ? `\0${path.slice(1)}` : path;
}

/** A turn of the event loop shorter than this found nothing to do. Until there is one, it doubles every LESS_QUIET_AFTER_MS. */
const QUIET_MS = 0.05;
const LESS_QUIET_AFTER_MS = 250;

/**
 * Closes a listening socket just after a turn of the event loop that found no connection to accept. Closing resets those that
 * wait, so only a client that connects in the microseconds in between loses its connection.
 */
export function closeWhenQuiet(server: net.Server): Promise<void> {
  const asked = performance.now();
  return new Promise((resolve) => {
    const turn = (since: number): void => {
      const now = performance.now();
      const quiet = QUIET_MS * 2 ** Math.floor((now - asked) / LESS_QUIET_AFTER_MS);
      if (now - since >= quiet) return void setImmediate(turn, now);
      server.close();
      resolve();
    };
    // The first setImmediate still belongs to the present turn.
    setImmediate(() => setImmediate(turn, performance.now()));
  });
}
