import net from "node:net";
import type { KeepAlive } from "@tsproxy/sdk";
import type { AddressConfig } from "../protocol.ts";
import { Acceptor } from "./acceptor.ts";
import { SocketFile } from "./socket-file.ts";

export interface ListenOptions {
  /** 0: the system's default. */
  readonly backlog: number;
  readonly ipv6Only: boolean;
  readonly keepAlive?: KeepAlive | undefined;
  /** A TCP socket that listens at the address already: it is opened as the first of ours. */
  readonly fd?: number | undefined;
}

interface ListeningTcp {
  readonly acceptor: Acceptor;
  /** The address, with the port that the system chose for port 0. */
  readonly bound: AddressConfig;
}

/** Listens at a TCP address, with so many sockets. Rejects with the socket's error. */
export async function listenTcp(
  address: AddressConfig,
  { backlog, ipv6Only, keepAlive, fd }: ListenOptions,
  sockets: number,
): Promise<ListeningTcp> {
  const { ip } = address;
  const at = (port: number) => ({ host: ip, port, reusePort: true, ipv6Only });
  const acceptor = new Acceptor();
  const first = await listen(fd === undefined ? at(address.port) : { fd }, backlog, acceptor);
  const bound = first.address() as net.AddressInfo;
  try {
    for (let k = 1; k < sockets; k++) await listen(at(bound.port), backlog, acceptor);
  } catch (error) {
    void acceptor.close();
    throw error;
  }
  if (keepAlive !== undefined) acceptor.setKeepAlive(keepAlive);
  return { acceptor, bound: { ...address, ip: bound.address, port: bound.port } };
}

/**
 * Listens at a unix socket. Its `file` takes the place of the one that is there: the caller has made sure that this is right. An
 * abstract one has none.
 */
export async function listenUnix(
  path: string,
  { backlog, mode }: { readonly backlog: number; readonly mode?: number | undefined },
): Promise<{ readonly acceptor: Acceptor; readonly file: SocketFile | undefined }> {
  const file = path.startsWith("@") ? undefined : new SocketFile(path);
  const acceptor = new Acceptor();
  await listen({ path: file?.fresh ?? socketPath(path) }, backlog, acceptor);
  try {
    file?.place(mode);
  } catch (error) {
    void acceptor.close();
    throw error;
  }
  return { acceptor, file };
}

function listen(
  where: net.ListenOptions & { fd?: number },
  backlog: number,
  acceptor: Acceptor,
): Promise<net.Server> {
  const server = net.createServer();
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // Of a descriptor's socket, Node takes the backlog from the second argument alone.
    server.listen({ ...where, backlog }, backlog, () => {
      server.removeListener("error", reject);
      server.on("error", () => {});
      acceptor.add(server);
      resolve(server);
    });
  });
}

/** The path as Node takes it; `@name` stands for the abstract namespace. */
export function socketPath(path: string): string {
  return path.startsWith("@") ? `\0${path.slice(1)}` : path;
}
