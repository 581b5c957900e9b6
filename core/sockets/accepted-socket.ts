// Hot path: one for each client (test/bench/cpu.ts).
import { EventEmitter } from "node:events";
import { getSystemErrorName } from "node:util";
import { isEnd, onRead, type StreamHandle, shutdown } from "./stream-handle.ts";

/** Bytes that may wait to be sent until a connection counts as blocked, as in node:net. */
const HIGH_WATER_MARK = 64 * 1024;

/** An end of a TCP connection; nothing is set for a unix socket. */
interface SocketName {
  address?: string;
  port?: number;
}

/** Node's internal handle of an accepted connection. What is optional only TCP has. */
export interface AcceptedHandle extends StreamHandle {
  close(then?: () => void): void;
  /** Closes with a RST. Negative: it cannot now. */
  reset?(then: () => void): number;
  getpeername?(name: SocketName): number;
  getsockname?(name: SocketName): number;
}

/**
 * An accepted connection. A net.Socket would add a node:stream for each client, and none of it would be used: bytes are read and
 * written at the handle. This class does the rest of what a socket does.
 *
 *   open ──end()──> half closed ──end of the peer──> closed
 *     └──────────────────┴──destroy(), error───────────^
 *
 * Events, as a socket's: `end`, `error`, `close`.
 */
export class AcceptedSocket extends EventEmitter {
  /** Named as in node:net. Null: closed. */
  _handle: AcceptedHandle | null;
  destroyed = false;
  /** Always 0: writes go to the handle. */
  readonly writableLength = 0;
  writableEnded = false;
  readonly writableHighWaterMark: number;
  readonly connecting = false;
  #hasEnded = false;
  /** Our direction has ended. */
  #isShut = false;
  /** Called once it has. */
  #onShut: () => void = () => {};
  #timer: NodeJS.Timeout | undefined = undefined;

  constructor(handle: AcceptedHandle, highWaterMark = HIGH_WATER_MARK) {
    super();
    this._handle = handle;
    this.writableHighWaterMark = highWaterMark;
  }

  get remote(): SocketName {
    const name: SocketName = {};
    this._handle?.getpeername?.(name);
    return name;
  }
  get local(): SocketName {
    const name: SocketName = {};
    this._handle?.getsockname?.(name);
    return name;
  }

  /** Begins to read into `buffer`. `onBytes`: as of `onRead`. */
  read(buffer: Uint8Array, onBytes: (bytes: number) => Uint8Array | undefined): void {
    const handle = this._handle!;
    handle.useUserBuffer(buffer);
    onRead(handle, onBytes, (status) => this.#onEnd(status));
    handle.reading = true;
    handle.readStart();
  }

  #onEnd(status: number): void {
    if (this.#hasEnded || this.destroyed) return;
    if (!isEnd(status)) {
      const code = getSystemErrorName(status);
      this.destroy(Object.assign(new Error(code), { code }));
      return;
    }
    this.#hasEnded = true;
    this.emit("end");
    if (this.#isShut) this.destroy();
  }

  /** Ends our direction behind what was written; closes once the peer has ended its own. */
  end(): void {
    this.#shut(() => {
      if (this.#hasEnded) this.destroy();
    });
  }

  /** Closes behind what was written, without waiting for the peer. */
  destroySoon(): void {
    // If the kernel has all of it, what it sends last is the FIN anyway, or a reset where bytes are unread: an end goes before that.
    if (this._handle?.writeQueueSize === 0 && !this.writableEnded) this.destroy();
    else this.#shut(() => this.destroy());
  }

  #shut(then: () => void): void {
    if (this._handle === null) return;
    this.#onShut = then;
    if (this.#isShut) then();
    if (this.writableEnded) return;
    this.writableEnded = true;
    shutdown(this._handle, () => {
      this.#isShut = true;
      if (!this.destroyed) this.#onShut();
    });
  }

  /** Calls `onTimeout` in so many milliseconds, instead of what was given before, unless the connection is closed by then. */
  setTimeout(ms: number, onTimeout: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(onTimeout, ms).unref();
  }

  destroy(error?: Error): void {
    this.#close(false, error);
  }

  /** Closes with a RST, as far as there is one. */
  resetAndDestroy(): void {
    this.#close(true);
  }

  #close(withReset: boolean, error?: Error): void {
    const handle = this._handle;
    if (handle === null) return;
    this._handle = null;
    this.destroyed = true;
    this.writableEnded = true;
    clearTimeout(this.#timer);
    if (error !== undefined) this.emit("error", error);
    const onClosed = () => this.emit("close");
    const isReset = withReset && handle.reset?.(onClosed) === 0;
    if (!isReset) handle.close(onClosed);
  }
}
