// Hot path: decodes chunked bodies. Data is returned as ranges of the received bytes, without a copy.
//
//   SIZE ──digits──> SIZE ──";"──> EXTENSION ──┐
//     ▲                └───CR───> SIZE_LF <──CR┘
//     │                              ├─ size 0 ─> END (BodyReader reads the trailer section)
//     └── DATA_LF <─CR─ DATA_CR <── DATA <─┘
const STATE = {
  SIZE: 0,
  EXTENSION: 1,
  SIZE_LF: 2,
  DATA: 3,
  DATA_CR: 4,
  DATA_LF: 5,
  END: 6,
} as const;

/** Where an extension is: outside of quotes, within, or behind a backslash there (RFC 9110 §5.6.4). */
const QUOTE = { NONE: 0, TEXT: 1, ESCAPE: 2 } as const;

/** Results of `ChunkedDecoder.next`. MORE: needs more bytes; END: the size line of the last chunk has been read. */
export const CHUNK = { MORE: 0, DATA: 1, END: 2, BAD: 3 } as const;

const CR = 13;
const LF = 10;
/** Limit for all chunk extensions of a body; they are ignored (RFC 9112 §7.1.1). */
const MAX_EXTENSION_BYTES = 16 * 1024;
const MAX_SIZE_DIGITS = 16;

/** Decodes the framing of one chunked body (RFC 9112 §7.1). Every line ends with CRLF; a bare LF or CR is an error. */
export class ChunkedDecoder {
  /** After DATA: the data is at [at, end). After END and MORE: `at` is the offset after the consumed bytes. */
  at = 0;
  end = 0;
  #state: number = STATE.SIZE;
  #left = 0;
  #digits = 0;
  #extensionBytes = 0;
  #quote: number = QUOTE.NONE;

  reset(): void {
    this.#state = STATE.SIZE;
    this.#left = this.#digits = this.#extensionBytes = 0;
    this.#quote = QUOTE.NONE;
  }

  /** Reads from `at` up to the next data, the end of the last chunk's size line, or `end`; returns a CHUNK code. */
  next(memory: Uint8Array, at: number, end: number): number {
    let q = at;
    while (q < end) {
      if (this.#state === STATE.DATA) {
        this.at = q;
        this.end = Math.min(end, q + this.#left);
        this.#left -= this.end - q;
        if (this.#left === 0) this.#state = STATE.DATA_CR;
        return CHUNK.DATA;
      }
      const c = memory[q++]!;
      switch (this.#state) {
        case STATE.SIZE: {
          const digit = hexDigit(c);
          if (digit >= 0) {
            this.#left = this.#left * 16 + digit;
            if (++this.#digits > MAX_SIZE_DIGITS || this.#left > Number.MAX_SAFE_INTEGER)
              return CHUNK.BAD;
          } else if (this.#digits === 0) return CHUNK.BAD;
          else if (c === CR) this.#state = STATE.SIZE_LF;
          else if (c === 59) this.#state = STATE.EXTENSION;
          else return CHUNK.BAD;
          break;
        }
        case STATE.EXTENSION:
          if (c === CR && this.#quote === QUOTE.NONE) this.#state = STATE.SIZE_LF;
          else if ((c < 32 && c !== 9) || c === 127) return CHUNK.BAD;
          else if (++this.#extensionBytes > MAX_EXTENSION_BYTES) return CHUNK.BAD;
          else if (this.#quote === QUOTE.ESCAPE) this.#quote = QUOTE.TEXT;
          else if (c === 34) this.#quote = this.#quote === QUOTE.NONE ? QUOTE.TEXT : QUOTE.NONE;
          else if (c === 92 && this.#quote === QUOTE.TEXT) this.#quote = QUOTE.ESCAPE;
          break;
        case STATE.SIZE_LF:
          if (c !== LF) return CHUNK.BAD;
          this.#digits = 0;
          if (this.#left > 0) {
            this.#state = STATE.DATA;
            break;
          }
          this.#state = STATE.END;
          this.at = q;
          return CHUNK.END;
        case STATE.DATA_CR:
          if (c !== CR) return CHUNK.BAD;
          this.#state = STATE.DATA_LF;
          break;
        case STATE.DATA_LF:
          if (c !== LF) return CHUNK.BAD;
          this.#state = STATE.SIZE;
          break;
        default:
          return CHUNK.BAD;
      }
    }
    this.at = q;
    return CHUNK.MORE;
  }

  /** After DATA: false if what follows, up to `end` or the last chunk, is no framing. Reads nothing. */
  isSound(memory: Uint8Array, end: number): boolean {
    const { at, end: dataEnd } = this;
    const state = this.#state;
    const left = this.#left;
    const digits = this.#digits;
    const extensionBytes = this.#extensionBytes;
    const quote = this.#quote;
    let code: number = CHUNK.DATA;
    while (code === CHUNK.DATA) code = this.next(memory, this.end, end);
    this.at = at;
    this.end = dataEnd;
    this.#state = state;
    this.#left = left;
    this.#digits = digits;
    this.#extensionBytes = extensionBytes;
    this.#quote = quote;
    return code !== CHUNK.BAD;
  }

  /** After DATA: true if `CRLF 0 CRLF CRLF` follows, so that this data is the body's last and no trailers come. */
  isLast(memory: Uint8Array, end: number): boolean {
    const q = this.end;
    return (
      this.#state === STATE.DATA_CR &&
      end - q >= 7 &&
      memory[q] === CR &&
      memory[q + 1] === LF &&
      memory[q + 2] === 48 &&
      memory[q + 3] === CR &&
      memory[q + 4] === LF &&
      memory[q + 5] === CR &&
      memory[q + 6] === LF
    );
  }
}

/** Length of `CRLF 0 CRLF CRLF`, which `isLast` looks for. */
export const LAST_CHUNK_BYTES = 7;

function hexDigit(c: number): number {
  if (c >= 48 && c <= 57) return c - 48;
  const lower = c | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}
