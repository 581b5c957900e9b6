import { lstatSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import { userInfo } from "node:os";
import path from "node:path";

/**
 * One proxy takes another's place: the new one binds beside the old (SO_REUSEPORT), and once it serves it asks the old one to end.
 *
 *   new ──connect──> old          at the start: is anybody there?
 *   new ──retire MS──> old        the new one serves: take no more connections, end with the last, or after MS
 *   old ──(end of the connection) it is gone
 *
 * Both meet at a socket file in a directory that only their user may enter.
 */
export class ControlSocket {
  readonly #server: net.Server;
  readonly #path: string;
  /** The file of that name may be the successor's by now. */
  #left = false;

  private constructor(path: string, server: net.Server) {
    this.#path = path;
    this.#server = server;
  }

  /** Undefined: another proxy has that place, or there can be none; this one cannot be taken over then. */
  static async listen(
    file: string,
    onRetire: (ms: number) => void,
  ): Promise<ControlSocket | undefined> {
    if (!prepare(file)) return undefined;
    if ((await Predecessor.find(file)) !== undefined) return undefined;
    rmSync(file, { force: true });
    const server = net.createServer((socket) => {
      socket.on("error", () => {});
      socket.setEncoding("utf8").once("data", (text: string) => {
        const [, ms] = /^retire (\d{1,12})\n$/.exec(text) ?? [];
        if (ms === undefined) socket.destroy();
        else onRetire(Number(ms));
      });
    });
    // Whoever waits at the other end must not keep this process alive.
    server.unref();
    server.on("connection", (socket) => socket.unref());
    return new Promise((resolve) => {
      server.once("error", () => resolve(undefined));
      server.listen(file, () => resolve(new ControlSocket(file, server)));
    });
  }

  /** Leaves the place to the one that takes over. The connection over which it asked stays open until this process ends. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#server.close();
    rmSync(this.#path, { force: true });
  }
}

/** The proxy that is to be replaced. */
export class Predecessor {
  readonly #socket: net.Socket;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
  }

  static find(file: string): Promise<Predecessor | undefined> {
    return new Promise((resolve) => {
      const socket = net.connect(file, () => resolve(new Predecessor(socket)));
      socket.unref();
      socket.on("error", () => resolve(undefined));
    });
  }

  /** Settles when it is gone. */
  retire(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#socket.on("close", () => resolve());
      this.#socket.resume();
      this.#socket.write(`retire ${ms}\n`);
    });
  }
}

/**
 * Whether the kernel hands connections that wait at a socket, or are in the middle of their handshake, to another socket at that address
 * when the first one closes (Linux 5.14, and only if told to). Otherwise it resets them.
 */
export function keepsConnections(): boolean {
  try {
    return readFileSync("/proc/sys/net/ipv4/tcp_migrate_req", "utf8").trim() === "1";
  } catch {
    return false;
  }
}

/** Its directory, made for this user alone. False: somebody else has been there. */
function prepare(file: string): boolean {
  const directory = path.dirname(file);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const found = lstatSync(directory);
    return found.isDirectory() && found.uid === userInfo().uid;
  } catch {
    return false;
  }
}
