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

/** This thread's handles of the sockets. Never closed: the descriptors belong to the threads that have opened them. */
const lent: PipeHandle[] = [];

/**
 * Makes two unix sockets that are connected with each other, and answers their file descriptors. Each has to be opened by one
 * thread, which owns it from then on. Rejects if no socket can be made in the directory for temporary files.
 */
export async function socketPair(): Promise<readonly [number, number]> {
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
        lent.push(client, peer);
        resolve([client.fd, peer.fd]);
      };
      const status = server.bind(file) || server.listen(1) || client.connect(request, file);
      if (status !== 0) fail(status);
    });
  } finally {
    server.close();
    await rm(directory, { recursive: true, force: true });
  }
}
