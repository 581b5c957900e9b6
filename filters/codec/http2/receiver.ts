// Hot path: handles every frame from a peer.
import {
  CODE,
  FLAG,
  FRAME_HEAD,
  LARGEST_FRAME_SIZE,
  LARGEST_WINDOW,
  MAX_FRAME_SIZE,
  SETTING,
  TYPE,
  uint31,
  uint32,
} from "./frame.ts";
import { HeaderBlocks } from "./header-blocks.ts";
import { Limits } from "./limits.ts";
import type { Session } from "./session.ts";
import type { Stream } from "./stream.ts";

const NOTHING = new Uint8Array(0);

/**
 * Handles a peer's frames by type (RFC 9113 §6). A frame that breaks a rule ends its stream or, if it affects the connection's
 * state, the connection.
 */
export class Receiver {
  readonly blocks: HeaderBlocks;
  readonly limits: Limits;
  readonly #session: Session;
  #settingsSeen = false;
  /** Stream of the current DATA frame; undefined: its data is discarded. */
  #dataStream: Stream | undefined = undefined;
  #dataEnds = false;

  constructor(session: Session) {
    this.#session = session;
    this.limits = new Limits(session);
    this.blocks = new HeaderBlocks(session, this.limits);
  }

  /**
   * Checks the order of frames: SETTINGS must be first, and no frame may interrupt a header block. False: the connection has
   * failed.
   */
  expects(type: number, flags: number, id: number): boolean {
    if (!this.#settingsSeen && (type !== TYPE.SETTINGS || (flags & FLAG.ACK) !== 0)) {
      this.#session.fail(CODE.PROTOCOL_ERROR);
      return false;
    }
    const { openId } = this.blocks;
    if (openId === 0 || (type === TYPE.CONTINUATION && id === openId)) return true;
    this.#session.failProtocol();
    return false;
  }

  onFrame(
    type: number,
    flags: number,
    id: number,
    memory: Uint8Array,
    at: number,
    end: number,
  ): void {
    switch (type) {
      case TYPE.HEADERS:
        this.blocks.onHeaders(flags, id, memory, at, end);
        break;
      case TYPE.CONTINUATION:
        this.blocks.onContinuation(flags, id, memory, at, end);
        break;
      case TYPE.PRIORITY:
        this.#onPriority(id, memory, at, end);
        break;
      case TYPE.RST_STREAM:
        this.#onReset(id, memory, at, end);
        break;
      case TYPE.SETTINGS:
        this.#onSettings(flags, id, memory, at, end);
        break;
      case TYPE.PUSH_PROMISE:
        // RFC 9113 §8.4: clients must not push, and our settings disable push by servers.
        this.#session.failMisplaced(id);
        break;
      case TYPE.PING:
        this.#onPing(flags, id, memory, at, end);
        break;
      case TYPE.GOAWAY:
        if (id !== 0) this.#session.failMisplaced(id);
        else if (end - at < 8) this.#failSize();
        else this.#session.side.onGoAway(uint31(memory, at), uint32(memory, at + 4));
        break;
      case TYPE.WINDOW_UPDATE:
        this.#onWindowUpdate(id, memory, at, end);
        break;
    }
  }

  #failSize(): void {
    this.#session.fail(CODE.FRAME_SIZE_ERROR);
  }

  // ---- DATA

  /** Begins a DATA frame. `padding` includes the byte with its length. False: the connection has failed. */
  onDataHead(id: number, size: number, padding: number, flags: number): boolean {
    const session = this.#session;
    if (id === 0 || padding > size || session.isIdle(id)) {
      session.failProtocol();
      return false;
    }
    // RFC 9113 §6.9.1: the whole payload counts, even if it is discarded.
    if (!session.flow.takes(size)) {
      session.fail(CODE.FLOW_CONTROL_ERROR);
      return false;
    }
    const ends = (flags & FLAG.END_STREAM) !== 0;
    if (!this.limits.countEmpty(size === padding && !ends)) return false;
    const stream = this.#dataFor(id, size);
    if (session.dead) return false;
    this.#dataStream = stream;
    this.#dataEnds = ends;
    if (padding > 0) session.flow.onTaken(stream, padding);
    if (stream !== undefined && size === padding) this.#onBody(stream, NOTHING, 0, 0, true);
    return true;
  }

  /** The stream that takes the data; undefined if none does, in which case a client has been sent a reset unless we closed it. */
  #dataFor(id: number, size: number): Stream | undefined {
    const session = this.#session;
    const stream = session.streams.get(id);
    if (stream === undefined) {
      if (session.side.isServer && !session.closedStreams.byUs(id))
        session.sendReset(id, CODE.STREAM_CLOSED);
      return undefined;
    }
    if (stream.headerReceived === 0) {
      // A response of data without a head; after a 1xx, as in Envoy, its stream alone is lost.
      session.failProtocol();
      return undefined;
    }
    if (stream.receiveEnded) {
      // RFC 9113 §5.1 asks for a reset of the stream; Envoy ends the connection.
      session.fail(CODE.STREAM_CLOSED);
      return undefined;
    }
    if (!stream.headReceived) {
      session.resetStream(stream, CODE.PROTOCOL_ERROR);
      return undefined;
    }
    stream.receiveWindow -= size;
    stream.wireReceived += FRAME_HEAD + size;
    if (stream.receiveWindow >= 0) return stream;
    session.resetStream(stream, CODE.FLOW_CONTROL_ERROR);
    return undefined;
  }

  /** Handles a piece of the current DATA frame, without padding. */
  onDataPiece(memory: Uint8Array, at: number, end: number, isLast: boolean): void {
    const stream = this.#dataStream;
    if (stream === undefined || stream.closed) this.#session.flow.onTaken(undefined, end - at);
    else this.#onBody(stream, memory, at, end, isLast);
  }

  #onBody(stream: Stream, memory: Uint8Array, at: number, end: number, isLast: boolean): void {
    const ends = this.#dataEnds && isLast;
    if (stream.contentLeft >= 0) {
      // RFC 9113 §8.1.1: a body whose size differs from content-length is malformed.
      stream.contentLeft -= end - at;
      if (stream.contentLeft < 0 || (ends && stream.contentLeft > 0)) {
        this.#session.flow.onTaken(undefined, end - at);
        this.#session.onWrongLength(stream);
        return;
      }
    }
    if (ends) stream.receiveEnded = true;
    stream.receive(memory, at, end, ends);
  }

  // ---- other frames

  #onPriority(id: number, memory: Uint8Array, at: number, end: number): void {
    const session = this.#session;
    if (id === 0) session.failProtocol();
    else if (end - at !== 5) this.#failSize();
    // A server resets a stream that depends on itself, as RFC 7540 §5.3.1 asks; upstreams may say so, as in Envoy.
    else if (session.side.isServer && uint31(memory, at) === id)
      session.errorOn(id, CODE.PROTOCOL_ERROR);
    else this.limits.countPriority();
  }

  #onReset(id: number, memory: Uint8Array, at: number, end: number): void {
    const session = this.#session;
    if (end - at !== 4) {
      this.#failSize();
      return;
    }
    if (id === 0 || session.isIdle(id)) {
      session.failProtocol();
      return;
    }
    const stream = session.streams.get(id);
    if (stream === undefined) return;
    session.stats.rxReset.inc();
    session.loseToPeer(stream, uint32(memory, at));
  }

  #onSettings(flags: number, id: number, memory: Uint8Array, from: number, end: number): void {
    const session = this.#session;
    if (id !== 0) {
      session.failMisplaced(id);
      return;
    }
    const isAck = (flags & FLAG.ACK) !== 0;
    if (isAck ? end > from : (end - from) % 6 !== 0) {
      this.#failSize();
      return;
    }
    if (isAck) {
      this.blocks.onSettingsAcknowledged();
      return;
    }
    this.#settingsSeen = true;
    // Applied once: each change moves the windows of all streams, and a frame has room for 2,730 of them.
    let window = session.peerWindow;
    for (let at = from; at < end && !session.dead; at += 6) {
      const setting = (memory[at]! << 8) | memory[at + 1]!;
      const value = uint32(memory, at + 2);
      if (setting !== SETTING.INITIAL_WINDOW_SIZE) this.#onSetting(setting, value);
      else if (value <= LARGEST_WINDOW) window = value;
      else session.fail(CODE.FLOW_CONTROL_ERROR);
    }
    if (!session.dead && window !== session.peerWindow) {
      session.flow.moveStreams(window - session.peerWindow);
      session.peerWindow = window;
    }
    if (session.dead) return;
    session.out.head(TYPE.SETTINGS, FLAG.ACK, 0, 0);
    session.side.onSettings();
    session.flow.sendWaiting();
  }

  #onSetting(id: number, value: number): void {
    const session = this.#session;
    switch (id) {
      case SETTING.HEADER_TABLE_SIZE:
        session.encoder.setLimit(value);
        break;
      case SETTING.ENABLE_PUSH:
        if (value > 1 || (value === 1 && !session.side.isServer)) session.failProtocol();
        break;
      case SETTING.MAX_CONCURRENT_STREAMS:
        session.peerMaxStreams = value;
        break;
      case SETTING.MAX_FRAME_SIZE:
        if (value < MAX_FRAME_SIZE || value > LARGEST_FRAME_SIZE) session.failProtocol();
        else session.peerMaxFrame = value;
        break;
      case SETTING.ENABLE_CONNECT_PROTOCOL:
        if (value > 1) session.failProtocol();
        else session.peerAllowsConnect = value === 1;
        break;
    }
  }

  #onPing(flags: number, id: number, memory: Uint8Array, at: number, end: number): void {
    const session = this.#session;
    if (id !== 0) session.failMisplaced(id);
    else if (end - at !== 8) this.#failSize();
    else if ((flags & FLAG.ACK) !== 0) session.keepAlive.onPong();
    else {
      session.out.head(TYPE.PING, FLAG.ACK, 0, 8);
      session.out.bytes(memory, at, end);
    }
  }

  #onWindowUpdate(id: number, memory: Uint8Array, at: number, end: number): void {
    const session = this.#session;
    if (end - at !== 4) {
      this.#failSize();
      return;
    }
    if (!this.limits.countWindowUpdate()) return;
    if (id !== 0 && session.isIdle(id)) {
      session.failProtocol();
      return;
    }
    const by = uint31(memory, at);
    if (id === 0) {
      if (by === 0) {
        session.failProtocol();
        return;
      }
      if (!session.flow.widen(by)) {
        session.fail(CODE.FLOW_CONTROL_ERROR);
        return;
      }
      session.flow.sendWaiting();
    } else {
      const stream = session.streams.get(id);
      if (stream === undefined) return;
      if (by === 0) {
        session.failOver(stream);
        return;
      }
      stream.sendWindow += by;
      if (stream.sendWindow > LARGEST_WINDOW) {
        session.resetStream(stream, CODE.FLOW_CONTROL_ERROR);
        return;
      }
      session.flow.sendOf(stream);
    }
  }
}
