// Hot path: reads and writes of TCP and unix sockets (test/bench).
import type net from "node:net";
import { getSystemErrorName } from "node:util";

/**
 * libuv's stream below a node:net socket, used without node:stream in between: a proxied request costs 1 µs less of 23 (test/bench/cpu.ts).
 * None of this has a public form; node:net itself uses exactly these, and the runtime's version is ours to choose.
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
  /** TCP alone. */
  setNoDelay?(on: boolean): number;
  close(): void;
}

type OnRead = (this: StreamHandle, buffer?: ArrayBuffer) => unknown;

/** What libuv works on when the kernel did not take all at once. */
export interface WriteRequest {
  oncomplete?: (status: number) => void;
  /** Kept alive as long as the request. */
  bytes?: unknown;
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

/** A request that no write has taken: most writes are over when they return. */
let spare = new WriteWrap();

/**
 * Writes behind what was written before.
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

function unwritten(status: number, bytes: unknown): string | WriteRequest {
  if (status !== 0) return getSystemErrorName(status);
  const request = spare;
  spare = new WriteWrap();
  request.bytes = bytes;
  return request;
}

/** Those who connect to a listening server are told to `call`, in the place of its `connection` event. */
export function onAccepted(server: net.Server, call: (handle: StreamHandle) => void): void {
  const { _handle } = server as unknown as { _handle: ListeningHandle | null };
  // An error (no descriptors are left) is of no use to anybody: the next one is tried as it comes.
  if (_handle !== null)
    _handle.onconnection = (status, handle) => {
      if (status === 0) call(handle);
    };
}

interface ListeningHandle {
  onconnection: (status: number, handle: StreamHandle) => void;
}

/** Ends our direction behind what was written; `then` is called when that is over, however it went. */
export function shutdown(handle: StreamHandle, then: () => void): void {
  const request = new ShutdownWrap();
  request.oncomplete = then;
  request.handle = handle;
  if (handle.shutdown(request) !== 0) then();
}

/**
 * `onBytes` is told how many bytes were read into the buffer last given; it answers the next buffer, or undefined for the same again.
 * Ends and errors go to `onEnd`, below zero; without one to node:net as ever.
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
    return onEnd === undefined ? otherwise.call(this, buffer) : onEnd(bytes);
  };
}

const UV_EOF = -4095;

/** Of what `onEnd` is told: the peer has ended its direction in good order. */
export function isEnd(status: number): boolean {
  return status === UV_EOF;
}
