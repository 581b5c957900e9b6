// Hot path: accounts for every body byte, sent or received.
import { CODE, DEFAULT_WINDOW, FLAG, FRAME_HEAD, LARGEST_WINDOW, TYPE } from "./frame.ts";
import type { Session } from "./session.ts";
import type { Stream } from "./stream.ts";

/**
 * Flow-control windows of a connection (RFC 9113 §5.2). Receiving: consumed bytes are returned to the peer by WINDOW_UPDATE
 * once they amount to half a window. Sending: as much as the connection's window, the stream's window and the socket allow;
 * streams that have more to send wait and take turns, one frame each.
 */
export class FlowControl {
  /**
   * DATA frames sent, the end of a body as one of its own: Envoy sends most ends so, and a peer may answer each frame by a number
   * of WINDOW_UPDATE frames that `Limits` derives from this.
   */
  dataFramesCounted = 0;
  readonly #session: Session;
  #receiveWindow: number;
  /** Consumed bytes not yet returned to the peer by WINDOW_UPDATE. */
  #untold = 0;
  #sendWindow = DEFAULT_WINDOW;
  readonly #waiting: Stream[] = [];

  constructor(session: Session) {
    this.#session = session;
    this.#receiveWindow = session.options.initialConnectionWindow;
  }

  /** Announces a connection window above the default of 65,535 bytes. */
  announce(): void {
    const extra = this.#session.options.initialConnectionWindow - DEFAULT_WINDOW;
    if (extra > 0) this.#sendWindowUpdate(0, extra);
  }

  // ---- receiving

  /** Counts received DATA payload; false if the peer has exceeded the connection's window. */
  takes(size: number): boolean {
    this.#receiveWindow -= size;
    return this.#receiveWindow >= 0;
  }

  /** Returns `size` consumed or discarded bytes to the peer's window; `stream` is undefined if the stream is gone. */
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

  /** How many of `want` bytes may be sent in one frame now; 0 or less: none. */
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
    this.dataFramesCounted += ends && size > 0 ? 2 : 1;
    if (ends) stream.sentEnd = true;
    this.#session.out.data(stream.id, memory, at, end, ends ? FLAG.END_STREAM : 0);
  }

  /** Applies the peer's WINDOW_UPDATE for the connection; false if the window exceeds 2^31 - 1. */
  widen(by: number): boolean {
    this.#sendWindow += by;
    return this.#sendWindow <= LARGEST_WINDOW;
  }

  /** Applies a change of SETTINGS_INITIAL_WINDOW_SIZE to open streams; windows may become negative (RFC 9113 §6.9.2). */
  moveStreams(by: number): void {
    for (const stream of this.#session.streams.all()) {
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

  /** A closed stream waits no more. */
  forget(stream: Stream): void {
    if (!stream.waiting) return;
    stream.waiting = false;
    this.#waiting.splice(this.#waiting.indexOf(stream), 1);
  }

  /** Lets a stream send what its own window, just widened, allows. The others still wait for theirs, or for the connection's. */
  sendOf(stream: Stream): void {
    while (stream.proceed());
  }

  /** Lets the waiting streams send one frame each in turn, until none can send. */
  sendWaiting(): void {
    const waiting = this.#waiting;
    let moved = true;
    while (moved && waiting.length > 0 && this.#sendWindow > 0) {
      if (this.#session.connection.blocked) return;
      moved = false;
      for (let n = waiting.length; n > 0; n--) {
        const stream = waiting.shift();
        if (stream === undefined) break; // What was sent has led to the end of others.
        stream.waiting = false;
        const before = this.dataFramesCounted;
        const more = stream.proceed();
        if (this.dataFramesCounted !== before) moved = true;
        if (more || stream.hasPending) this.wait(stream);
      }
    }
  }
}
