import { fstatSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";

/** libuv's unix socket, as node:net and node:child_process use it. */
interface PipeHandle {
  readonly fd: number;
  onconnection: (status: number, peer: PipeHandle | undefined) => void;
  bind(file: string): number;
  listen(backlog: number): number;
  connect(request: { oncomplete?: (status: number) => void }, file: string): number;
  close(): void;
}
interface PipeBinding {
  readonly Pipe: new (type: number) => PipeHandle;
  readonly PipeConnectWrap: new () => { oncomplete?: (status: number) => void };
  readonly constants: { readonly SOCKET: number; readonly SERVER: number };
}

const { Pipe, PipeConnectWrap, constants } = (
  process as unknown as { binding(name: string): PipeBinding }
).binding("pipe_wrap");

/** One end of a socket pair, for one thread, which opens its descriptor and owns it from then on. */
export class SocketEnd {
  readonly fd: number;
  /** This thread's handle of the socket. Not closed once another thread has opened the descriptor. */
  readonly #handle: PipeHandle;
  readonly #inode: number;

  constructor(handle: PipeHandle) {
    this.fd = handle.fd;
    this.#handle = handle;
    this.#inode = fstatSync(handle.fd).ino;
  }

  /** Called when that thread has ended: closes the socket if it was never opened. What a thread had opened is closed with it. */
  reclaim(): void {
    if (this.#isOpen) this.#handle.close();
  }

  /** The descriptor's number may belong to another file by now. */
  get #isOpen(): boolean {
    try {
      return fstatSync(this.fd).ino === this.#inode;
    } catch {
      return false;
    }
  }
}

/** Makes two unix sockets that are connected with each other. Rejects if none can be made in the directory for temporary files. */
export async function socketPair(): Promise<readonly [SocketEnd, SocketEnd]> {
  // Only this user may enter the directory, so nobody else can connect.
  const directory = await mkdtemp(path.join(os.tmpdir(), "tsproxy-"));
  const file = path.join(directory, "pair");
  const server = new Pipe(constants.SERVER);
  try {
    return await new Promise((resolve, reject) => {
      const client = new Pipe(constants.SOCKET);
      const request = new PipeConnectWrap();
      const fail = (status: number) => reject(new Error(`cannot make a socket pair (${status})`));
      request.oncomplete = (status) => status !== 0 && fail(status);
      server.onconnection = (status, peer) => {
        if (peer === undefined) return fail(status);
        resolve([new SocketEnd(client), new SocketEnd(peer)]);
      };
      const status = server.bind(file) || server.listen(1) || client.connect(request, file);
      if (status !== 0) fail(status);
    });
  } finally {
    server.close();
    await rm(directory, { recursive: true, force: true });
  }
}
