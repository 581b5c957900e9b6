import type net from "node:net";
import type { KeepAlive } from "@tsproxy/sdk";
import { MAX_CONNECTIONS } from "./socket-table.ts";
import { onAccepted, type StreamHandle } from "./stream-handle.ts";

/** libuv's listening socket. On Linux, accepted connections inherit its options. */
interface ListenHandle {
  setKeepAlive?(on: boolean, idleS: number, intervalS: number, probes: number): number;
}

/** The sockets that listen at one address, as one. Connections wait, unread, while nobody takes them. */
export class Acceptor {
  readonly #servers: net.Server[] = [];
  readonly #waiting: StreamHandle[] = [];
  #take: ((handle: StreamHandle) => void) | undefined = undefined;

  /** Called as soon as the socket listens, before node:net accepts a connection. */
  add(server: net.Server): void {
    this.#servers.push(server);
    // At libuv's handle: so connections read into our memory, and node:net makes no second socket for each.
    onAccepted(server, (handle) => this.#onConnection(handle));
  }

  #onConnection(handle: StreamHandle): void {
    if (this.#take !== undefined) this.#take(handle);
    else if (this.#waiting.length < MAX_CONNECTIONS) this.#waiting.push(handle);
    else handle.close();
  }

  /** From now on `take` gets the connections, first those that wait. */
  give(take: (handle: StreamHandle) => void): void {
    this.#take = take;
    this.#waiting.splice(0).forEach(take);
  }

  /** From now on connections wait. */
  hold(): void {
    this.#take = undefined;
  }

  /** Sets TCP keepalive of the connections that are accepted from now on. Undefined: off. */
  setKeepAlive(keepAlive: KeepAlive | undefined): void {
    const { idleS = 0, intervalS = 0, probes = 0 } = keepAlive ?? {};
    for (const server of this.#servers) {
      const { _handle: handle } = server as unknown as { readonly _handle: ListenHandle | null };
      handle?.setKeepAlive?.(keepAlive !== undefined, idleS, intervalS, probes);
    }
  }

  /**
   * Closes just after a turn of the event loop that found no connection to accept. Closing resets those that wait, so only a client
   * that connects in the microseconds in between loses its connection.
   */
  close(): Promise<void> {
    const asked = performance.now();
    return new Promise((resolve) => {
      const turn = (since: number): void => {
        const now = performance.now();
        const quiet = QUIET_MS * 2 ** Math.floor((now - asked) / LESS_QUIET_AFTER_MS);
        if (now - since >= quiet) return void setImmediate(turn, now);
        for (const server of this.#servers) server.close();
        resolve();
      };
      // The first setImmediate still belongs to the present turn.
      setImmediate(() => setImmediate(turn, performance.now()));
    });
  }
}

/** A turn of the event loop shorter than this found nothing to do. Until there is one, it doubles every LESS_QUIET_AFTER_MS. */
const QUIET_MS = 0.05;
const LESS_QUIET_AFTER_MS = 250;
