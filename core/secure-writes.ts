// Hot path: all that is written over TLS (test/bench/cpu.ts tls).
import { getSystemErrorName } from "node:util";
import { type StreamHandle, writeBuffer, writev } from "./stream-handle.ts";

/**
 * Writes of one TLS connection, below node:stream. OpenSSL takes one at a time and has encrypted it when the call returns; what
 * comes before the kernel has taken that stays where it lies, and is one write then.
 */
export class SecureWrites {
  readonly #handle: StreamHandle;
  readonly #onDrain: () => void;
  readonly #onError: (name: string) => void;
  #unsent: Uint8Array[] = [];
  /** Lets go of what they lie in. */
  #holds: (() => void)[] = [];
  #after: (() => void) | undefined = undefined;
  #isOver = false;
  unsentSize = 0;
  isBusy = false;

  /** `onDrain`: what waited is on its way. `onError` gets the error's name, once. */
  constructor(handle: StreamHandle, onDrain: () => void, onError: (name: string) => void) {
    this.#handle = handle;
    this.#onDrain = onDrain;
    this.#onError = onError;
  }

  /** `hold` is called if the pieces must stay as they are; its answer, when they need not any more. */
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

  /** Once all is written: at once if it is. */
  after(call: () => void): void {
    if (this.isBusy && !this.#isOver) this.#after = call;
    else call();
  }

  /** The connection is gone. */
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
