import { chmodSync, rmSync } from "node:fs";
import net from "node:net";
import type { KeepAlive } from "@tsproxy/sdk";
import type { AddressConfig } from "./protocol.ts";

export interface ListenOptions {
  /** 0: the system's. */
  readonly backlog: number;
  readonly ipv6Only: boolean;
  readonly keepAlive?: KeepAlive | undefined;
}

/** libuv's listening socket: what is set there, Linux hands on to every connection that it accepts. */
interface ListenHandle {
  setKeepAlive?(on: boolean, idleS: number, intervalS: number, probes: number): number;
}

/**
 * Binds; what is accepted goes to nobody yet. Rejects with the socket's error. Port 0 takes a free one; `bound` tells which. The file of a unix
 * socket that somebody left behind is replaced: whoever calls has made sure that nobody listens there.
 */
export function listenTcp(
  address: AddressConfig,
  { backlog, ipv6Only, keepAlive }: ListenOptions,
): Promise<{ readonly server: net.Server; readonly bound: AddressConfig }> {
  const { path } = address;
  const server = net.createServer();
  const isFile = path !== undefined && !path.startsWith("@");
  if (isFile) rmSync(path, { force: true });
  const where =
    path !== undefined
      ? { path: socketPath(path) }
      : { host: address.ip, port: address.port, reusePort: true, ipv6Only };
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ ...where, backlog }, () => {
      server.removeListener("error", reject);
      server.on("error", () => {});
      if (path === undefined) {
        if (keepAlive !== undefined) {
          const { _handle } = server as unknown as { readonly _handle: ListenHandle };
          _handle.setKeepAlive?.(true, keepAlive.idleS, keepAlive.intervalS, keepAlive.probes);
        }
        const bound = server.address() as net.AddressInfo;
        return resolve({ server, bound: { ip: bound.address, port: bound.port } });
      }
      if (isFile && address.mode !== undefined) chmodSync(path, address.mode);
      resolve({ server, bound: address });
    });
  });
}

/** `@name` is the abstract namespace. */
export function socketPath(path: string): string {
  return path.startsWith("@") ? `\0${path.slice(1)}` : path;
}

/** A turn of the event loop that is shorter has found nothing to do. Where there is none, twice as long a one is taken, and so on. */
const QUIET_MS = 0.05;
const LESS_QUIET_AFTER_MS = 250;

/**
 * What waits to be accepted is reset with its socket. So it is closed just after a turn of the event loop that found nothing
 * there: until somebody connects in the microseconds between, nothing is lost.
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
    // The first to come belongs to the turn that is under way.
    setImmediate(() => setImmediate(turn, performance.now()));
  });
}
