// Hot path: every body byte that arrives.
import { FLAG, HeaderMap, SPAN } from "@tsproxy/sdk";
import { CHUNK, ChunkedDecoder, LAST_CHUNK_BYTES } from "./chunked.ts";
import { PARSE } from "./error.ts";
import { NOT_IN_TRAILERS } from "./framing.ts";
import { type HeadLimits, HeadReader, KIND } from "./head-reader.ts";

const FRAME = { NONE: 0, LENGTH: 1, CHUNKED: 2, TRAILERS: 3, RAW: 4 } as const;

export const BODY = {
  /** All bytes are read and the body goes on. */
  MORE: 0,
  /** The range [dataAt, dataEnd); `last`: the body ends with it. */
  DATA: 1,
  END: 2,
  /** `trailers` is filled and the body has ended. */
  TRAILERS: 3,
  BAD: 4,
} as const;

/** Reads the body of one message after the other, either direction. */
export class BodyReader {
  /** Where `next` stopped. */
  at = 0;
  dataAt = 0;
  dataEnd = 0;
  last = false;
  /** After BAD: a PARSE code. */
  error = 0;
  readonly #limits: HeadLimits;
  readonly #enableTrailers: boolean;
  #frame: number = FRAME.NONE;
  #left = 0;
  #chunks: ChunkedDecoder | undefined = undefined;
  #trailers: HeaderMap | undefined = undefined;
  #trailerReader: HeadReader | undefined = undefined;

  constructor(limits: HeadLimits, enableTrailers: boolean) {
    this.#limits = limits;
    this.#enableTrailers = enableTrailers;
  }

  get trailers(): HeaderMap {
    this.#trailers ??= new HeaderMap();
    return this.#trailers;
  }

  /** The length is above 0. */
  beginLength(length: number): void {
    this.#frame = FRAME.LENGTH;
    this.#left = length;
  }

  beginChunked(): void {
    this.#frame = FRAME.CHUNKED;
    this.#chunks ??= new ChunkedDecoder();
    this.#chunks.reset();
  }

  /** All that comes: a tunnel, or a response that ends with its connection. */
  beginRaw(): void {
    this.#frame = FRAME.RAW;
  }

  get isRaw(): boolean {
    return this.#frame === FRAME.RAW;
  }

  /** Reads up to the next piece that somebody must hear of; a BODY code. `at` < `end`. */
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
        this.at = chunks.at;
        return BODY.MORE;
      case CHUNK.DATA:
        this.dataAt = chunks.at;
        this.at = this.dataEnd = chunks.end;
        this.last = chunks.isLast(memory, end);
        if (this.last) this.at += LAST_CHUNK_BYTES;
        return BODY.DATA;
      case CHUNK.END:
        this.#frame = FRAME.TRAILERS;
        this.at = chunks.at;
        return chunks.at < end ? this.#readTrailers(memory, chunks.at, end) : BODY.MORE;
      default:
        this.error = PARSE.MALFORMED;
        return BODY.BAD;
    }
  }

  #readTrailers(memory: Uint8Array, at: number, end: number): number {
    this.#trailerReader ??= new HeadReader(KIND.TRAILERS, this.#limits);
    const reader = this.#trailerReader;
    const trailers = this.trailers;
    const code = reader.read(trailers, memory, at, end);
    if (code < 0) {
      this.error = code;
      return BODY.BAD;
    }
    if (code === PARSE.INCOMPLETE) {
      this.at = end;
      return BODY.MORE;
    }
    this.at = reader.at;
    if (!this.#enableTrailers) return BODY.END;
    return dropFraming(trailers) ? BODY.TRAILERS : BODY.END;
  }
}

/** False if no line is left. */
function dropFraming(trailers: HeaderMap): boolean {
  let kept = false;
  const { spans } = trailers;
  for (let i = 0; i < trailers.count * SPAN; i += SPAN) {
    if (((NOT_IN_TRAILERS >>> (spans[i + 5]! & FLAG.KNOWN)) & 1) === 0) kept = true;
    else spans[i + 5] = spans[i + 5]! | FLAG.REMOVED;
  }
  return kept;
}
