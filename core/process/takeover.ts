import { chmod, lstatSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import path from "node:path";

/**
 * A proxy's end of the socket by which another proxy takes its place: the new proxy binds beside the old one (SO_REUSEPORT), and
 * once it serves it asks the old one to end.
 *
 *   new ──connect──> old          at the start: is there a proxy to replace?
 *   new ──retire MS──> old        the new one serves: take no more connections, end with the last, or after MS
 *   old ──(end of the connection) it is gone
 *
 * The socket is a file in a directory that only the proxies' user may enter.
 */
export class ControlSocket {
  readonly #server: net.Server;
  readonly #path: string;
  /** The socket was given up: the file at this path may be the successor's by now. */
  #left = false;

  private constructor(path: string, server: net.Server) {
    this.#path = path;
    this.#server = server;
  }

  /** Binds the socket. Undefined: another proxy has it, or it cannot be made; then this proxy cannot be taken over. */
  static async listen(
    { file, mode }: { readonly file: string; readonly mode: number },
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
    // A successor that waits must not keep this process alive.
    server.unref();
    server.on("connection", (socket) => socket.unref());
    return new Promise((resolve) => {
      server.once("error", () => resolve(undefined));
      server.listen(file, () => {
        chmod(file, mode, () => resolve(new ControlSocket(file, server)));
      });
    });
  }

  /** Frees the socket file for the successor. The connection on which it asked stays open until this process ends. */
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

  /** Undefined: no proxy of this user's listens at that file. */
  static find(file: string): Promise<Predecessor | undefined> {
    if (!isOwn(path.dirname(file))) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const socket = net.connect(file, () => resolve(new Predecessor(socket)));
      socket.unref();
      socket.on("error", () => resolve(undefined));
    });
  }

  /** Asks the predecessor to end within `ms`. Settles when it is gone. */
  retire(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#socket.on("close", () => resolve());
      this.#socket.resume();
      this.#socket.write(`retire ${ms}\n`);
    });
  }
}

/**
 * True if the kernel is set to migrate connections when a listening socket closes: those that wait in its backlog, or are in the
 * middle of their handshake, go to another socket at that address (Linux 5.14). Otherwise it resets them.
 */
export function keepsConnections(): boolean {
  try {
    return readFileSync("/proc/sys/net/ipv4/tcp_migrate_req", "utf8").trim() === "1";
  } catch {
    return false;
  }
}

/** Makes the file's directory, for this user alone. False: it cannot be made, or belongs to another user. */
function prepare(file: string): boolean {
  const directory = path.dirname(file);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return isOwn(directory);
  } catch {
    return false;
  }
}

/** In the temporary directory anybody may have made one of that name, and a socket in it. */
function isOwn(directory: string): boolean {
  const found = lstatSync(directory, { throwIfNoEntry: false });
  return found?.isDirectory() === true && found.uid === process.getuid?.();
}
