import http from "node:http";
import net, { type AddressInfo } from "node:net";

/** A server behind the proxy, on a free port. */
export interface Upstream<S extends net.Server = net.Server> {
  readonly server: S;
  readonly port: number;
  /** Connections accepted so far. */
  readonly accepted: () => number;
  /** Connections that are open now. */
  readonly sockets: Set<net.Socket>;
  close(): Promise<void>;
}

export function httpUpstream(answer: http.RequestListener): Promise<Upstream<http.Server>> {
  const server = http.createServer({ keepAliveTimeout: 120_000, requestTimeout: 0 }, answer);
  return listen(server);
}

export function tcpUpstream(
  onConnection: (socket: net.Socket) => void,
  options: net.ServerOpts = { allowHalfOpen: true },
): Promise<Upstream> {
  const server = net.createServer(options, (socket) => {
    socket.on("error", () => socket.destroy());
    onConnection(socket);
  });
  return listen(server);
}

function listen<S extends net.Server>(server: S): Promise<Upstream<S>> {
  let accepted = 0;
  const sockets = new Set<net.Socket>();
  server.on("connection", (socket: net.Socket) => {
    accepted++;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      resolve({ server, port, accepted: () => accepted, sockets, close });
    });
  });
}

/** The whole body of a message. */
export async function bodyOf(message: http.IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of message) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}
