// Hot path: reads every byte from a peer.
//
// DATA is passed on in pieces as it arrives; all other frames are handled when they are complete.
import type { Chunk } from "@tsproxy/sdk";
import { CODE, FLAG, FRAME_HEAD, MAX_FRAME_SIZE, PREFACE, TYPE, uint31 } from "./frame.ts";
import { Receiver } from "./receiver.ts";
import type { Session } from "./session.ts";

/** After this many new streams in a turn, other connections are served first. Also limits the memory for heads of a turn. */
const STREAMS_A_TURN = 64;
/** Limit for input that waits for the next turn; reading is paused meanwhile, so only a few more reads can follow. */
const MAX_REST = 1024 * 1024;
const NOTHING = new Uint8Array(0);

/** Splits a connection's input into frames and passes them to the receiver. */
export class FrameReader {
  readonly receiver: Receiver;
  /** New streams in this turn; HeaderBlocks counts them. */
  started = 0;
  readonly #session: Session;
  #prefaceAt: number;
  /** The first `#stashed` bytes hold the received part of an incomplete frame, from its head on. */
  #stash: Uint8Array = NOTHING;
  #stashed = 0;
  /** Bytes of data and padding still to come in the current DATA frame. */
  #dataLeft = 0;
  #padLeft = 0;
  /** Input that waits for the next turn. */
  #rest: Uint8Array = NOTHING;
  #restPaused = false;

  constructor(session: Session) {
    this.#session = session;
    this.receiver = new Receiver(session);
    this.#prefaceAt = session.side.isServer ? 0 : PREFACE.length;
  }

  onData(chunk: Chunk): void {
    if (this.#rest.length > 0) {
      this.#keepRest(chunk.memory, chunk.at, chunk.end);
      return;
    }
    this.started = 0;
    this.#read(chunk.memory, chunk.at, chunk.end);
  }

  /** Reads the input that waited; called in the next turn. */
  onAgain(): void {
    const rest = this.#rest;
    if (rest.length > 0) {
      this.#rest = NOTHING;
      this.started = 0;
      this.#read(rest, 0, rest.length);
    }
    if (this.#rest.length === 0) this.#resume();
  }

  stop(): void {
    this.#rest = this.#stash = NOTHING;
    this.receiver.blocks.stop();
    this.#resume();
  }

  #resume(): void {
    if (!this.#restPaused) return;
    this.#restPaused = false;
    this.#session.connection.resume();
  }

  #read(memory: Uint8Array, from: number, end: number): void {
    const at = this.#run(memory, from, end);
    if (!this.#session.dead && at < end) this.#keepRest(memory, at, end);
    this.receiver.limits.checkOutput();
  }

  #keepRest(memory: Uint8Array, at: number, end: number): void {
    const { connection } = this.#session;
    const kept = this.#rest.length;
    if (kept + end - at > MAX_REST) {
      this.#session.fail(CODE.ENHANCE_YOUR_CALM, "http2.too_much_input");
      return;
    }
    const rest = new Uint8Array(kept + end - at);
    rest.set(this.#rest);
    rest.set(memory.subarray(at, end), kept);
    this.#rest = rest;
    if (!this.#restPaused) {
      this.#restPaused = true;
      connection.pause();
    }
    connection.again();
  }

  /** Reads frames and returns the offset of the first byte not read. */
  #run(memory: Uint8Array, from: number, end: number): number {
    let at = from;
    if (this.#prefaceAt < PREFACE.length) at = this.#readPreface(memory, at, end);
    while (at < end && !this.#session.dead) {
      if (this.#dataLeft > 0 || this.#padLeft > 0) {
        at = this.#readData(memory, at, end);
        continue;
      }
      if (this.#stashed > 0) {
        at = this.#fillStash(memory, at, end);
        continue;
      }
      if (this.started >= STREAMS_A_TURN) return at;
      const next = this.#readFrame(memory, at, end);
      if (next < 0) {
        this.#keepStash(memory, at, end);
        return end;
      }
      at = next;
    }
    return at;
  }

  #readPreface(memory: Uint8Array, at: number, end: number): number {
    let q = at;
    while (q < end && this.#prefaceAt < PREFACE.length) {
      if (memory[q++] !== PREFACE.charCodeAt(this.#prefaceAt++)) {
        this.#session.failPreface();
        return end;
      }
    }
    return q;
  }

  #keepStash(memory: Uint8Array, at: number, end: number): void {
    const size = end - at;
    if (this.#stash.length < size) this.#stash = new Uint8Array(Math.max(64, size));
    this.#stash.set(memory.subarray(at, end));
    this.#stashed = size;
  }

  /** Adds input to the incomplete frame and handles it once complete; returns the offset after the bytes used. */
  #fillStash(memory: Uint8Array, at: number, end: number): number {
    let q = at;
    const target = this.#stashTarget();
    const size = Math.min(end - q, target - this.#stashed);
    if (this.#stash.length < target) {
      const bigger = new Uint8Array(target);
      bigger.set(this.#stash.subarray(0, this.#stashed));
      this.#stash = bigger;
    }
    this.#stash.set(memory.subarray(q, q + size), this.#stashed);
    this.#stashed += size;
    q += size;
    if (this.#stashed < target || this.#stashTarget() > target) return q;
    const stash = this.#stash;
    const stashed = this.#stashed;
    this.#stashed = 0;
    // The stash can be reused, as nothing points into it after the frame; a large one is freed.
    if (stash.length > 1024) this.#stash = NOTHING;
    this.#readFrame(stash, 0, stashed);
    return q;
  }

  /** Bytes that the stash needs before #readFrame can read it. */
  #stashTarget(): number {
    if (this.#stashed < FRAME_HEAD) return FRAME_HEAD;
    const stash = this.#stash;
    const size = (stash[0]! << 16) | (stash[1]! << 8) | stash[2]!;
    // #readFrame refuses a larger frame by its head.
    if (size > MAX_FRAME_SIZE) return FRAME_HEAD;
    if (stash[3] !== TYPE.DATA) return FRAME_HEAD + size;
    return (stash[4]! & FLAG.PADDED) !== 0 && size > 0 ? FRAME_HEAD + 1 : FRAME_HEAD;
  }

  /** Reads the frame at `at`, of DATA only the head. Returns the offset after the bytes read, or -1 if they are incomplete. */
  #readFrame(memory: Uint8Array, at: number, end: number): number {
    if (end - at < FRAME_HEAD) return -1;
    const size = (memory[at]! << 16) | (memory[at + 1]! << 8) | memory[at + 2]!;
    const type = memory[at + 3]!;
    const flags = memory[at + 4]!;
    const id = uint31(memory, at + 5);
    const payload = at + FRAME_HEAD;
    if (size > MAX_FRAME_SIZE) {
      this.#session.fail(CODE.FRAME_SIZE_ERROR);
      return end;
    }
    if (!this.receiver.expects(type, flags, id)) return end;
    if (type !== TYPE.DATA) {
      if (end - payload < size) return -1;
      this.receiver.onFrame(type, flags, id, memory, payload, payload + size);
      return payload + size;
    }
    const padded = (flags & FLAG.PADDED) !== 0;
    if (padded && size > 0 && end === payload) return -1;
    if (padded && size === 0) {
      this.#session.fail(CODE.FRAME_SIZE_ERROR);
      return end;
    }
    // The byte with the padding's length counts as padding.
    const padding = padded ? memory[payload]! + 1 : 0;
    if (this.receiver.onDataHead(id, size, padding, flags)) {
      this.#padLeft = padded ? padding - 1 : 0;
      this.#dataLeft = size - padding;
    }
    return padded ? payload + 1 : payload;
  }

  /** Passes on data and skips padding of the current DATA frame; returns the offset after the bytes read. */
  #readData(memory: Uint8Array, at: number, end: number): number {
    let q = at;
    if (this.#dataLeft > 0) {
      const size = Math.min(end - q, this.#dataLeft);
      this.#dataLeft -= size;
      this.receiver.onDataPiece(memory, q, q + size, this.#dataLeft === 0);
      q += size;
    }
    if (this.#dataLeft > 0) return q;
    const padding = Math.min(end - q, this.#padLeft);
    this.#padLeft -= padding;
    return q + padding;
  }
}
