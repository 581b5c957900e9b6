// Hot path: all that is written over TLS (test/bench/cpu.ts tls).
import { getSystemErrorName } from "node:util";
import { isUnderWay, newRequest, type StreamHandle, type WriteRequest } from "./stream-handle.ts";

/** Most bytes in a TLS record. Shorter writes of several pieces are joined, for Node would allocate memory to do so. */
const RECORD = 16 * 1024;
const joined = new Uint8Array(RECORD);

/**
 * Writes of one TLS connection, below node:stream. OpenSSL takes one write at a time and has encrypted it when the call returns.
 * Node says a turn later that the write is over, even if the kernel has taken all of it. Pieces that come before that wait where
 * they are, and become one write then. Being called back costs 1 µs, so it is asked for only if something waits.
 */
export class SecureWrites {
  readonly #handle: StreamHandle;
  /** The socket below TLS. */
  readonly #raw: StreamHandle;
  readonly #onDrain: (behind: number) => void;
  readonly #onError: (name: string) => void;
  /** Of the last write. It may be used again once that write is over. */
  #request: WriteRequest | undefined = undefined;
  /** `#onWritten` will be called. */
  #isAwaited = false;
  #unsent: Uint8Array[] = [];
  /** Functions that release the memory of `#unsent`. */
  #holds: (() => void)[] = [];
  #after: (() => void) | undefined = undefined;
  #isOver = false;
  /** Bytes that wait. */
  unsentSize = 0;

  /** `onDrain` is called when a write has ended and what waited has been passed on, with what is `behind`; `onError` with the name of an error. */
  constructor(
    handle: StreamHandle,
    raw: StreamHandle,
    onDrain: (behind: number) => void,
    onError: (name: string) => void,
  ) {
    this.#handle = handle;
    this.#raw = raw;
    this.#onDrain = onDrain;
    this.#onError = onError;
  }

  /** Bytes that the kernel had no room for, and those that wait behind them; not those that only wait for Node's turn. */
  get behind(): number {
    const encrypted = this.#isAwaited ? this.#raw.writeQueueSize : 0;
    return encrypted === 0 ? 0 : encrypted + this.unsentSize;
  }

  /** The last write is not over. */
  get isBusy(): boolean {
    return this.#isAwaited || (this.#request !== undefined && isUnderWay(this.#request));
  }

  /** Writes the pieces. If they have to wait, calls `hold`, and later its answer, once their memory may be reused. */
  write(pieces: readonly Uint8Array[], hold: () => () => void): void {
    if (!this.isBusy) {
      this.#encrypt(pieces);
      return;
    }
    this.#await();
    for (const piece of pieces) {
      this.#unsent.push(piece);
      this.unsentSize += piece.length;
    }
    this.#holds.push(hold());
  }

  /** Calls `call` once everything is written; at once if it is already, or if the connection is gone. */
  after(call: () => void): void {
    if (this.#isOver || !this.isBusy) {
      call();
      return;
    }
    this.#after = call;
    this.#await();
  }

  /** Called when the connection is gone: drops what waits. */
  end(): void {
    this.#isOver = true;
    this.#letGo();
    this.#unsent = [];
    this.#after = undefined;
  }

  #encrypt(pieces: readonly Uint8Array[]): void {
    let size = 0;
    for (let k = 0; k < pieces.length; k++) size += pieces[k]!.length;
    this.#request ??= newRequest();
    const request = this.#request;
    const handle = this.#handle;
    const status =
      pieces.length > 1 && size > RECORD
        ? handle.writev(request, pieces, true)
        : handle.writeBuffer(request, pieces.length === 1 ? pieces[0]! : join(pieces, size));
    if (status !== 0) this.#onError(getSystemErrorName(status));
    // The kernel has not taken all, or Node has not offered it all yet: this may still fail.
    else if (size > RECORD || this.#raw.writeQueueSize > 0) this.#await();
  }

  #await(): void {
    if (this.#isAwaited) return;
    this.#isAwaited = true;
    this.#request!.oncomplete = (status) => this.#onWritten(status);
  }

  #onWritten(status: number): void {
    this.#isAwaited = false;
    // Node still uses the request until this call has returned.
    this.#request = undefined;
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
    this.#onDrain(this.behind);
    if (this.#after === undefined) return;
    if (this.isBusy) this.#await();
    else this.#after();
  }

  #letGo(): void {
    for (const letGo of this.#holds) letGo();
    this.#holds = [];
  }
}

/** Copies the pieces into one, which is valid until the next call. */
function join(pieces: readonly Uint8Array[], size: number): Uint8Array {
  let at = 0;
  for (let k = 0; k < pieces.length; k++) {
    joined.set(pieces[k]!, at);
    at += pieces[k]!.length;
  }
  return joined.subarray(0, size);
}
