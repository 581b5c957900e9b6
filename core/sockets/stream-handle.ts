// Hot path: reads and writes of TCP and unix sockets (test/bench).
import type net from "node:net";
import { getSystemErrorName } from "node:util";

/**
 * libuv's stream below a node:net socket, used without node:stream in between: a proxied request costs 1 µs less of 23
 * (test/bench/cpu.ts). These are internals of Node that node:net uses in the same way; tsproxy chooses the version it runs on.
 */
export interface StreamHandle {
  reading: boolean;
  /** Bytes that the kernel has not taken yet. */
  readonly writeQueueSize: number;
  onread: OnRead;
  readStart(): number;
  readStop(): number;
  useUserBuffer(buffer: Uint8Array): void;
  writeBuffer(request: WriteRequest, bytes: Uint8Array): number;
  writev(request: WriteRequest, pieces: readonly Uint8Array[], allBuffers: true): number;
  shutdown(request: ShutdownRequest): number;
  /** Only of TCP. */
  setNoDelay?(on: boolean): number;
  close(): void;
}

type OnRead = (this: StreamHandle, buffer?: ArrayBuffer) => unknown;

/** A write that is under way because the kernel did not take all of it at once. */
export interface WriteRequest {
  oncomplete?: (status: number) => void;
  /** Kept alive as long as the request. */
  bytes?: unknown;
  /** Negative unless Node uses the request. */
  getAsyncId(): number;
}

export interface ShutdownRequest {
  oncomplete?: (status: number) => void;
  /** Kept alive as long as the request. */
  handle?: unknown;
}

interface StreamWrap {
  readonly WriteWrap: new () => WriteRequest;
  readonly ShutdownWrap: new () => ShutdownRequest;
  readonly streamBaseState: Int32Array;
  readonly kReadBytesOrError: number;
  readonly kLastWriteWasAsync: number;
}

const { WriteWrap, ShutdownWrap, streamBaseState, kReadBytesOrError, kLastWriteWasAsync } = (
  process as unknown as { binding(name: string): StreamWrap }
).binding("stream_wrap");

/** An unused request: most writes are over when the call returns, so the next one uses it again. */
let spare = new WriteWrap();

/**
 * Writes the bytes after those written before.
 * @returns undefined: the kernel has taken all; the name of the error that the connection ended with; or the request that is
 * under way, whose `oncomplete` is called later
 */
export function writeBuffer(
  handle: StreamHandle,
  bytes: Uint8Array,
): undefined | string | WriteRequest {
  const status = handle.writeBuffer(spare, bytes);
  if (status === 0 && streamBaseState[kLastWriteWasAsync] === 0) return undefined;
  return unwritten(status, bytes);
}

/** The same for several pieces, in order. */
export function writev(
  handle: StreamHandle,
  pieces: readonly Uint8Array[],
): undefined | string | WriteRequest {
  const status = handle.writev(spare, pieces, true);
  if (status === 0 && streamBaseState[kLastWriteWasAsync] === 0) return undefined;
  return unwritten(status, pieces);
}

/** Answers the error's name, or the request, which is then no longer spare. */
function unwritten(status: number, bytes: unknown): string | WriteRequest {
  if (status !== 0) return getSystemErrorName(status);
  const request = spare;
  spare = new WriteWrap();
  request.bytes = bytes;
  return request;
}

export function newRequest(): WriteRequest {
  return new WriteWrap();
}

/** True if the last write with this request is not over. False: it may be used for another. */
export function isUnderWay(request: WriteRequest): boolean {
  return request.getAsyncId() >= 0;
}

/** Calls `call` with each accepted connection, instead of the server's `connection` event. */
export function onAccepted(server: net.Server, call: (handle: StreamHandle) => void): void {
  const { _handle } = server as unknown as { _handle: ListeningHandle | null };
  // A connection that no file descriptor is left for was closed by libuv, on one that it keeps for this; any other that could not be
  // accepted has gone by itself.
  if (_handle !== null)
    _handle.onconnection = (status, handle) => {
      if (status === 0) call(handle);
    };
}

interface ListeningHandle {
  onconnection: (status: number, handle: StreamHandle) => void;
}

/** Ends our direction after what was written. `then` is called when that is done or has failed. */
export function shutdown(handle: StreamHandle, then: () => void): void {
  const request = new ShutdownWrap();
  request.oncomplete = then;
  request.handle = handle;
  if (handle.shutdown(request) !== 0) then();
}

/**
 * Takes over reading. `onBytes` gets the number of bytes read into the present buffer, and answers the next buffer, or undefined
 * to use the same one again. Ends and errors (negative) go to `onEnd`; without it, to node:net as before.
 */
export function onRead(
  handle: StreamHandle,
  onBytes: (bytes: number) => Uint8Array | undefined,
  onEnd?: (status: number) => void,
): void {
  const otherwise = handle.onread;
  handle.onread = function (this: StreamHandle, buffer) {
    const bytes = streamBaseState[kReadBytesOrError]!;
    if (bytes > 0) return onBytes(bytes);
    // libuv has read again, since the buffer was full, and found nothing more.
    if (bytes === 0) return undefined;
    return onEnd === undefined ? otherwise.call(this, buffer) : onEnd(bytes);
  };
}

const UV_EOF = -4095;

/** True if a status of `onEnd` means that the peer has ended its direction in order (EOF). */
export function isEnd(status: number): boolean {
  return status === UV_EOF;
}
