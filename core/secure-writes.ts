// Hot path: all that is written over TLS (test/bench/cpu.ts tls).
import { getSystemErrorName } from "node:util";
import { type StreamHandle, writeBuffer, writev } from "./stream-handle.ts";

/**
 * Writes of one TLS connection, below node:stream. OpenSSL takes one write at a time and has encrypted it when the call returns.
 * Pieces that come before the kernel has taken all of it wait where they are, and become one write then.
 */
export class SecureWrites {
  readonly #handle: StreamHandle;
  readonly #onDrain: () => void;
  readonly #onError: (name: string) => void;
  #unsent: Uint8Array[] = [];
  /** Functions that release the memory of `#unsent`. */
  #holds: (() => void)[] = [];
  #after: (() => void) | undefined = undefined;
  #isOver = false;
  /** Bytes that wait. */
  unsentSize = 0;
  /** The kernel has not taken the last write completely. */
  isBusy = false;

  /** `onDrain` is called when a write has ended and what waited has been passed on; `onError` with the name of an error. */
  constructor(handle: StreamHandle, onDrain: () => void, onError: (name: string) => void) {
    this.#handle = handle;
    this.#onDrain = onDrain;
    this.#onError = onError;
  }

  /** Writes the pieces. If they have to wait, calls `hold`, and later its answer, once their memory may be reused. */
  write(pieces: readonly Uint8Array[], hold: () => () => void): void {
    if (!this.isBusy) {
      this.#encrypt(pieces);
      return;
    }
    for (const piece of pieces) {
      this.#unsent.push(piece);
      this.unsentSize += piece.length;
    }
    this.#holds.push(hold());
  }

  /** Calls `call` once everything is written; at once if it is already, or if the connection is gone. */
  after(call: () => void): void {
    if (this.isBusy && !this.#isOver) this.#after = call;
    else call();
  }

  /** Called when the connection is gone: drops what waits. */
  end(): void {
    this.#isOver = true;
    this.#letGo();
    this.#unsent = [];
    this.#after = undefined;
  }

  #encrypt(pieces: readonly Uint8Array[]): void {
    const [first] = pieces;
    const request =
      pieces.length === 1 ? writeBuffer(this.#handle, first!) : writev(this.#handle, pieces);
    if (request === undefined) return;
    if (typeof request === "string") {
      this.#onError(request);
      return;
    }
    this.isBusy = true;
    request.oncomplete = (status) => this.#onWritten(status);
  }

  #onWritten(status: number): void {
    this.isBusy = false;
    if (this.#isOver) return;
    if (status < 0) {
      this.#onError(getSystemErrorName(status));
      return;
    }
    const unsent = this.#unsent;
    if (unsent.length > 0) {
      this.#unsent = [];
      this.unsentSize = 0;
      this.#encrypt(unsent);
      this.#letGo();
    }
    this.#onDrain();
    if (!this.isBusy) this.#after?.();
  }

  #letGo(): void {
    for (const letGo of this.#holds) letGo();
    this.#holds = [];
  }
}
