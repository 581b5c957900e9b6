// Hot path: every body byte, both ways.
import { CODE, DEFAULT_WINDOW, FLAG, FRAME_HEAD, LARGEST_WINDOW, TYPE } from "./frame.ts";
import type { Session } from "./session.ts";
import type { Stream } from "./stream.ts";

/**
 * Windows (RFC 9113 §5.2). What comes: the peer may send again as many bytes as have found their consumer, told when half a window
 * has gathered. What goes: as much as the connection's window, the stream's and the socket let through; streams that want more wait
 * and take turns, a frame each.
 */
export class FlowControl {
  dataFramesSent = 0;
  readonly #session: Session;
  #receiveWindow: number;
  /** Bytes taken that the peer has not been told of. */
  #untold = 0;
  #sendWindow = DEFAULT_WINDOW;
  readonly #waiting: Stream[] = [];

  constructor(session: Session) {
    this.#session = session;
    this.#receiveWindow = session.options.initialConnectionWindow;
  }

  /** The connection's window is beyond what a peer assumes. */
  announce(): void {
    const extra = this.#session.options.initialConnectionWindow - DEFAULT_WINDOW;
    if (extra > 0) this.#sendWindowUpdate(0, extra);
  }

  // ---- receiving

  /** False: the peer has sent more than it may. */
  takes(size: number): boolean {
    this.#receiveWindow -= size;
    return this.#receiveWindow >= 0;
  }

  /** Bytes have found their consumer, or nobody wants them: the peer may send as many again. */
  onTaken(stream: Stream | undefined, size: number): void {
    const { dead, options } = this.#session;
    if (dead || size === 0) return;
    this.#untold += size;
    if (this.#untold * 2 >= options.initialConnectionWindow) {
      this.#receiveWindow += this.#untold;
      this.#sendWindowUpdate(0, this.#untold);
      this.#untold = 0;
    }
    if (stream === undefined || stream.receiveEnded || stream.closed) return;
    stream.untold += size;
    if (stream.untold * 2 < options.initialStreamWindow) return;
    stream.receiveWindow += stream.untold;
    this.#sendWindowUpdate(stream.id, stream.untold);
    stream.untold = 0;
  }

  #sendWindowUpdate(id: number, size: number): void {
    const { out } = this.#session;
    out.head(TYPE.WINDOW_UPDATE, 0, id, 4);
    out.uint32(size);
  }

  // ---- sending

  /** How many of `want` bytes may go now. */
  roomFor(stream: Stream, want: number): number {
    const { connection, peerMaxFrame } = this.#session;
    if (want === 0 || connection.blocked) return 0;
    let room = Math.min(want, peerMaxFrame);
    if (stream.sendWindow < room) room = stream.sendWindow;
    if (this.#sendWindow < room) room = this.#sendWindow;
    return room;
  }

  send(stream: Stream, memory: Uint8Array, at: number, end: number, ends: boolean): void {
    const size = end - at;
    stream.sendWindow -= size;
    stream.wireSent += FRAME_HEAD + size;
    this.#sendWindow -= size;
    this.dataFramesSent++;
    if (ends) stream.sentEnd = true;
    this.#session.out.data(stream.id, memory, at, end, ends ? FLAG.END_STREAM : 0);
  }

  /** The peer takes more on the connection. False: beyond what a window can be. */
  widen(by: number): boolean {
    this.#sendWindow += by;
    return this.#sendWindow <= LARGEST_WINDOW;
  }

  /** RFC 9113 §6.9.2: windows of open streams move with the setting, below zero too. */
  moveStreams(by: number): void {
    for (const stream of this.#session.streams.values()) {
      stream.sendWindow += by;
      if (stream.sendWindow <= LARGEST_WINDOW) continue;
      this.#session.fail(CODE.FLOW_CONTROL_ERROR);
      return;
    }
  }

  wait(stream: Stream): void {
    if (stream.waiting) return;
    stream.waiting = true;
    this.#waiting.push(stream);
  }

  /** Lets every stream that waits send one frame in turn, as long as one can. */
  sendWaiting(): void {
    const waiting = this.#waiting;
    let moved = true;
    while (moved && waiting.length > 0) {
      moved = false;
      for (let n = waiting.length; n > 0; n--) {
        const stream = waiting.shift()!;
        stream.waiting = false;
        const before = this.dataFramesSent;
        const more = stream.proceed();
        if (this.dataFramesSent !== before) moved = true;
        if (more || stream.hasPending) this.wait(stream);
      }
      if (this.#sendWindow <= 0 || this.#session.connection.blocked) break;
    }
  }
}
