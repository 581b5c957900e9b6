// Hot path: decodes every head and trailer section from a peer.
//
// A header block is HEADERS and the CONTINUATION frames after it, with no other frame in between (RFC 9113 §4.3).
import { HeaderMap } from "@tsproxy/sdk";
import { CODE, FLAG, FRAME_HEAD, uint31 } from "./frame.ts";
import { KIND } from "./head-builder.ts";
import { HpackDecoder } from "./hpack-decoder.ts";
import type { Limits } from "./limits.ts";
import type { Session } from "./session.ts";

/** How much larger an encoded block may be than the limit for decoded heads, for the overhead of HPACK. */
const BLOCK_EXTRA = 16 * 1024;
/** Limit for CONTINUATION frames of one block (CVE-2024-27316). */
const MAX_CONTINUATIONS = 32;
const MAX_TABLE = 64 * 1024;
const NOTHING = new Uint8Array(0);

/** Joins the frames of header blocks, decodes the blocks and passes the heads to their streams. */
export class HeaderBlocks {
  /** Size in bytes of the dynamic table that our settings allow the peer. */
  readonly tableSize: number;
  /** Id of the stream whose block is incomplete, so that CONTINUATION must follow; 0 if none. */
  openId = 0;
  readonly #session: Session;
  readonly #limits: Limits;
  readonly #decoder: HpackDecoder;
  #ends = false;
  #block: Uint8Array = NOTHING;
  #size = 0;
  #continuations = 0;

  constructor(session: Session, limits: Limits) {
    this.#session = session;
    this.#limits = limits;
    this.tableSize = Math.min(session.options.hpackTableSize, MAX_TABLE);
    this.#decoder = new HpackDecoder(this.tableSize);
  }

  onSettingsAcknowledged(): void {
    this.#decoder.onTableSizeAcknowledged(this.tableSize);
  }

  onHeaders(flags: number, id: number, memory: Uint8Array, from: number, to: number): void {
    const session = this.#session;
    let at = from;
    let end = to;
    if (id === 0 || (session.side.isServer && (id & 1) === 0)) {
      session.failProtocol();
      return;
    }
    if ((flags & FLAG.PADDED) !== 0) {
      const padding = at < end ? memory[at++]! : 256;
      end -= padding;
    }
    let dependsOnItself = false;
    if ((flags & FLAG.PRIORITY) !== 0) {
      dependsOnItself = end - at >= 5 && uint31(memory, at) === id;
      at += 5;
    }
    if (at > end || dependsOnItself) {
      session.failProtocol();
      return;
    }
    const ends = (flags & FLAG.END_STREAM) !== 0;
    if (!this.#limits.countEmpty(at === end && !ends)) return;
    if ((flags & FLAG.END_HEADERS) !== 0) {
      this.#onBlock(id, ends, memory, at, end);
      return;
    }
    this.openId = id;
    this.#ends = ends;
    this.#size = 0;
    this.#continuations = 0;
    this.#keep(memory, at, end);
  }

  onContinuation(flags: number, id: number, memory: Uint8Array, at: number, end: number): void {
    const session = this.#session;
    if (this.openId === 0) {
      session.failProtocol();
      return;
    }
    const last = (flags & FLAG.END_HEADERS) !== 0;
    if (!this.#limits.countEmpty(at === end && !last)) return;
    if (++this.#continuations > MAX_CONTINUATIONS || !this.#keep(memory, at, end)) {
      session.stats.headerOverflow.inc();
      session.fail(CODE.ENHANCE_YOUR_CALM, "http2.too_many_headers");
      return;
    }
    if (!last) return;
    const block = this.#block;
    this.openId = 0;
    this.#block = NOTHING;
    this.#onBlock(id, this.#ends, block, 0, this.#size);
  }

  /** Adds a piece to the incomplete block; false if that becomes too large. */
  #keep(memory: Uint8Array, at: number, end: number): boolean {
    const size = this.#size + end - at;
    if (size > this.#session.codecOptions.maxHeadBytes + BLOCK_EXTRA) return false;
    if (size > this.#block.length) {
      const bigger = new Uint8Array(Math.max(1024, size * 2));
      bigger.set(this.#block.subarray(0, this.#size));
      this.#block = bigger;
    }
    this.#block.set(memory.subarray(at, end), this.#size);
    this.#size = size;
    return true;
  }

  #onBlock(id: number, ends: boolean, memory: Uint8Array, at: number, end: number): void {
    const session = this.#session;
    const { builder, side } = session;
    let stream = session.streams.get(id);
    if (stream === undefined) {
      const isNew = side.isServer && id > session.lastId;
      if (!isNew && !this.#isLate(id)) return;
      if (isNew) {
        session.lastId = id;
        session.reader.started++;
        stream = side.openStream(id, ends);
        // The client may go on with a refused stream until it knows.
        if (stream === undefined) session.closedStreams.add(id, true);
      }
    }
    if (stream === undefined) {
      // The block is decoded only to update the dynamic table.
      builder.begin(KIND.TRAILERS, new HeaderMap());
      if (!this.#decoder.decode(memory, at, end, builder)) this.#onBadBlock();
      return;
    }
    stream.wireReceived += FRAME_HEAD + end - at;
    stream.headerReceived += FRAME_HEAD + end - at;
    const { kind, headers } = side.headersOf(stream);
    builder.begin(kind, headers);
    if (!this.#decoder.decode(memory, at, end, builder)) {
      this.#onBadBlock();
      return;
    }
    stream.fieldsReceived += builder.size;
    const fault = builder.finish();
    if (stream.closed) return;
    if (stream.receiveEnded) {
      session.failOver(stream);
      return;
    }
    if (kind === KIND.TRAILERS && !ends) {
      // RFC 9113 §8.1: trailers must have END_STREAM.
      session.onMalformed(stream);
      return;
    }
    if (ends) stream.receiveEnded = true;
    if (kind === KIND.TRAILERS && fault === 0) {
      // As in Envoy, only trailers of requests are counted.
      if (side.isServer) session.stats.trailers.inc();
      // As in Envoy, a body too short is the message's fault where trailers end it, and the stream's where data does.
      if (stream.contentLeft > 0) session.onMalformed(stream);
      else stream.receiveTrailers(headers);
      return;
    }
    side.onHead(stream, kind, headers, fault, ends);
  }

  #onBadBlock(): void {
    this.#session.fail(CODE.COMPRESSION_ERROR);
  }

  /**
   * For a block of a closed stream: true if the peer may have sent it before it knew of the end; else the connection fails. What an
   * upstream sends behind the end of its response is ignored, as in Envoy: it would cost the other exchanges their connection.
   */
  #isLate(id: number): boolean {
    const session = this.#session;
    if (session.isIdle(id)) {
      session.failProtocol();
      return false;
    }
    if (!session.side.isServer || session.closedStreams.byUs(id)) return true;
    const code = session.closedStreams.has(id) ? CODE.STREAM_CLOSED : CODE.PROTOCOL_ERROR;
    session.fail(code);
    return false;
  }

  stop(): void {
    this.#block = NOTHING;
  }
}
