// Hot path: runs for every body byte received.
import { FLAG, HeaderMap, SPAN } from "@tsproxy/sdk";
import { CHUNK, ChunkedDecoder, LAST_CHUNK_BYTES } from "./chunked.ts";
import { PARSE } from "./error.ts";
import { NOT_IN_TRAILERS } from "./framing.ts";
import { type HeadLimits, HeadReader, KIND } from "./head-reader.ts";

const FRAME = { NONE: 0, LENGTH: 1, CHUNKED: 2, TRAILERS: 3, RAW: 4 } as const;

/** Results of `BodyReader.next`. */
export const BODY = {
  /** All given bytes are consumed without data to deliver; the body continues. */
  MORE: 0,
  /** Body data is in [dataAt, dataEnd); `last` is true if the body ends with it. */
  DATA: 1,
  END: 2,
  /** The body has ended and `trailers` holds its trailers. */
  TRAILERS: 3,
  BAD: 4,
} as const;

/** Reads the bodies of a connection's messages in sequence, requests or responses alike. */
export class BodyReader {
  /** Offset after the bytes that the last `next` consumed. */
  at = 0;
  dataAt = 0;
  dataEnd = 0;
  last = false;
  /** A PARSE code; set when `next` returns BAD. */
  error = 0;
  readonly #limits: HeadLimits;
  readonly #enableTrailers: boolean;
  #frame: number = FRAME.NONE;
  #left = 0;
  #chunks: ChunkedDecoder | undefined = undefined;
  /** Where the bytes end whose chunks are known to be sound; 0: none are. */
  #soundTo = 0;
  #trailers: HeaderMap | undefined = undefined;
  /** `#trailers` went to a receiver, which may keep it beyond the message: the next message gets another map. */
  #isGiven = false;
  #trailerReader: HeadReader | undefined = undefined;

  constructor(limits: HeadLimits, enableTrailers: boolean) {
    this.#limits = limits;
    this.#enableTrailers = enableTrailers;
  }

  get trailers(): HeaderMap {
    this.#trailers ??= new HeaderMap();
    return this.#trailers;
  }

  /** Starts a body of `length` bytes, which must be above 0. */
  beginLength(length: number): void {
    this.#frame = FRAME.LENGTH;
    this.#left = length;
  }

  beginChunked(): void {
    this.#frame = FRAME.CHUNKED;
    this.#chunks ??= new ChunkedDecoder();
    this.#chunks.reset();
    this.#soundTo = 0;
    if (this.#isGiven) this.#trailers = undefined;
    this.#isGiven = false;
  }

  /** Starts a body of all bytes until the connection closes: a tunnel, or a response without a length. */
  beginRaw(): void {
    this.#frame = FRAME.RAW;
  }

  get isRaw(): boolean {
    return this.#frame === FRAME.RAW;
  }

  /** Reads up to the next event and returns its BODY code. Requires `at` < `end`. */
  next(memory: Uint8Array, at: number, end: number): number {
    switch (this.#frame) {
      case FRAME.LENGTH:
        this.dataAt = at;
        this.at = this.dataEnd = Math.min(end, at + this.#left);
        this.#left -= this.dataEnd - at;
        this.last = this.#left === 0;
        return BODY.DATA;
      case FRAME.CHUNKED:
        return this.#nextChunk(memory, at, end);
      case FRAME.TRAILERS:
        return this.#readTrailers(memory, at, end);
      default:
        this.dataAt = at;
        this.at = this.dataEnd = end;
        this.last = false;
        return BODY.DATA;
    }
  }

  #nextChunk(memory: Uint8Array, at: number, end: number): number {
    const chunks = this.#chunks!;
    switch (chunks.next(memory, at, end)) {
      case CHUNK.MORE:
        this.#soundTo = 0;
        this.at = chunks.at;
        return BODY.MORE;
      case CHUNK.DATA:
        this.dataAt = chunks.at;
        this.at = this.dataEnd = chunks.end;
        this.last = chunks.isLast(memory, end);
        if (this.last) this.at += LAST_CHUNK_BYTES;
        else if (chunks.end === end) this.#soundTo = 0;
        // As in Envoy, nothing goes on of chunks that came at once with a bad one.
        else if (this.#soundTo !== end) {
          if (!chunks.isSound(memory, end)) return this.#bad(end);
          this.#soundTo = end;
        }
        return BODY.DATA;
      case CHUNK.END:
        this.#frame = FRAME.TRAILERS;
        this.at = chunks.at;
        return chunks.at < end ? this.#readTrailers(memory, chunks.at, end) : BODY.MORE;
      default:
        return this.#bad(end);
    }
  }

  #bad(end: number): number {
    this.error = PARSE.MALFORMED;
    this.at = end;
    return BODY.BAD;
  }

  #readTrailers(memory: Uint8Array, at: number, end: number): number {
    this.#trailerReader ??= new HeadReader(KIND.TRAILERS, this.#limits);
    const reader = this.#trailerReader;
    const trailers = this.trailers;
    const code = reader.read(trailers, memory, at, end);
    if (code < 0) {
      this.error = code;
      this.at = end;
      return BODY.BAD;
    }
    if (code === PARSE.INCOMPLETE) {
      this.at = end;
      return BODY.MORE;
    }
    this.at = reader.at;
    this.#isGiven = this.#enableTrailers && dropFraming(trailers);
    return this.#isGiven ? BODY.TRAILERS : BODY.END;
  }
}

/** Removes fields that are forbidden in trailers; returns false if no field is left. */
function dropFraming(trailers: HeaderMap): boolean {
  let kept = false;
  const { spans } = trailers;
  for (let i = 0; i < trailers.count * SPAN; i += SPAN) {
    if (((NOT_IN_TRAILERS >>> (spans[i + 5]! & FLAG.KNOWN)) & 1) === 0) kept = true;
    else spans[i + 5] = spans[i + 5]! | FLAG.REMOVED;
  }
  return kept;
}
