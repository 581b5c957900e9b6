import net from "node:net";
import { constants } from "node:os";
import type { ShutdownRequest, StreamHandle, WriteRequest } from "./stream-handle.ts";

/** Node's stream for OpenSSL on top of JavaScript, used as node:tls uses it below a connection that is no socket. */
interface JsStream extends StreamHandle {
  writeQueueSize: number;
  onreadstart(): number;
  onreadstop(): number;
  onwrite(request: WriteRequest, pieces: readonly Buffer[]): number;
  onshutdown(request: ShutdownRequest): number;
  isClosing(): boolean;
  close(then?: () => void): void;
  readBuffer(bytes: Uint8Array): void;
  emitEOF(): void;
  finishWrite(request: WriteRequest, status: number): void;
  finishShutdown(request: ShutdownRequest, status: number): void;
}

const { JSStream } = (
  process as unknown as { binding(name: string): { readonly JSStream: new () => JsStream } }
).binding("js_stream");

const CANCELLED = -constants.errno.ECANCELED;
/** Most bytes in one read. */
const READ_MAX = 64 * 1024;

type PairOptions = Pick<net.SocketConstructorOpts, "onread"> & { readonly highWaterMark?: number };

/** Two sockets of this thread, connected with each other without the kernel. They behave as those of a TCP connection do. */
export function pairedSockets(options: PairOptions): readonly [net.Socket, net.Socket] {
  const one = new End();
  const other = new End();
  one.peer = other;
  other.peer = one;
  return [new PairedSocket(one, options), new PairedSocket(other, options)];
}

export class PairedSocket extends net.Socket {
  readonly #end: End;

  constructor(end: End, options: PairOptions) {
    const { handle } = end;
    super({ handle, allowHalfOpen: true, ...options } as unknown as net.SocketConstructorOpts);
    this.#end = end;
    end.onReset = () => {
      this.destroy(Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" }));
    };
  }

  override resetAndDestroy(): this {
    this.#end.reset();
    return this.destroy();
  }
}

/** Bytes on their way, with the request of their writer, which ends when they are read or when the writer closes. */
interface Piece {
  bytes: Uint8Array;
  request: WriteRequest | undefined;
}

/**
 * One end of a pair. It reads once in a turn of the event loop, as sockets do: their reader may use its buffer until the turn ends.
 *
 *   the peer's writes ──> queue ──turn──> handle
 */
class End {
  readonly handle: JsStream = new JSStream();
  peer: End | undefined = undefined;
  onReset: () => void = () => {};
  #queue: Piece[] = [];
  #isReading = false;
  #isScheduled = false;
  #isClosed = false;
  /** Whether the peer has ended its direction: `waiting` while bytes are queued before the end. */
  #eof: "no" | "waiting" | "told" = "no";
  /** The peer was closed when this end wrote. */
  #isReset = false;

  constructor() {
    const { handle } = this;
    handle.writeQueueSize = 0;
    handle.onreadstart = () => this.#onReading(true);
    handle.onreadstop = () => this.#onReading(false);
    handle.onwrite = (request, pieces) => this.#onWrite(request, pieces);
    handle.onshutdown = (request) => {
      this.peer?.onPeerEnded();
      setImmediate(() => handle.finishShutdown(request, 0));
      return 0;
    };
    handle.isClosing = () => this.#isClosed;
    handle.close = (then) => this.#close(then);
  }

  #onReading(on: boolean): number {
    this.#isReading = on;
    this.#schedule();
    return 0;
  }

  /** The pieces are Node's copies, so the writer's memory is free at once. */
  #onWrite(request: WriteRequest, pieces: readonly Buffer[]): number {
    const bytes = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
    if (this.peer !== undefined) this.peer.#take({ bytes, request });
    else {
      // TCP would accept the bytes and get RST for them.
      this.#isReset = true;
      setImmediate(() => this.handle.finishWrite(request, 0));
      this.#schedule();
    }
    return 0;
  }

  #take(piece: Piece): void {
    this.#queue.push(piece);
    if (this.peer !== undefined) this.peer.handle.writeQueueSize += piece.bytes.length;
    this.#schedule();
  }

  /** The peer writes no more. */
  onPeerEnded(): void {
    if (this.#eof === "no") this.#eof = "waiting";
    this.#schedule();
  }

  /** Ends the peer with an error, and all that is on its way. */
  reset(): void {
    const { peer } = this;
    if (peer === undefined) return;
    this.#cancel(peer.#queue);
    peer.#queue = [];
    peer.onReset();
  }

  #close(then: (() => void) | undefined): void {
    this.#isClosed = true;
    const { peer } = this;
    const lost = this.#queue;
    this.#queue = [];
    this.peer = undefined;
    if (peer !== undefined) {
      // What this end has written still arrives, as from the buffers of a kernel.
      this.#cancel(peer.#queue);
      peer.peer = undefined;
      peer.handle.writeQueueSize = 0;
      peer.onPeerEnded();
    }
    setImmediate(() => {
      for (const { request } of lost)
        if (request !== undefined) peer?.handle.finishWrite(request, 0);
      then?.();
    });
  }

  /** Ends this end's writes that wait at its peer. */
  #cancel(pieces: readonly Piece[]): void {
    for (const piece of pieces) {
      const { request } = piece;
      piece.request = undefined;
      if (request !== undefined) setImmediate(() => this.handle.finishWrite(request, CANCELLED));
    }
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isClosed || !this.#isReading) return;
    this.#isScheduled = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#isScheduled = false;
    if (this.#isClosed || !this.#isReading) return;
    if (this.#queue.length > 0) {
      this.#read();
      this.#schedule();
    } else if (this.#isReset) this.onReset();
    else if (this.#eof === "waiting") {
      this.#eof = "told";
      this.handle.emitEOF();
    }
  }

  /** Reads what has come, up to READ_MAX bytes. */
  #read(): void {
    let size = 0;
    const pieces: Uint8Array[] = [];
    const over: WriteRequest[] = [];
    while (this.#queue.length > 0 && size < READ_MAX) {
      const piece = this.#queue[0]!;
      const part = piece.bytes.subarray(0, READ_MAX - size);
      pieces.push(part);
      size += part.length;
      piece.bytes = piece.bytes.subarray(part.length);
      if (piece.bytes.length > 0) break;
      this.#queue.shift();
      if (piece.request !== undefined) over.push(piece.request);
    }
    const writer = this.peer?.handle;
    if (writer !== undefined) writer.writeQueueSize -= size;
    this.handle.readBuffer(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces));
    // The reader may have closed this end meanwhile, and the writer its own.
    for (const request of over) writer?.finishWrite(request, 0);
  }
}
