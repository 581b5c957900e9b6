/** Longer heads are an error: no measured proxy sends them. */
const MAX_HEAD_BYTES = 1024 * 1024;
const HEAD_END = Buffer.from("\r\n\r\n");
const LINE_END = Buffer.from("\r\n");

/**
 * Counts HTTP/1.1 messages in the bytes of a connection: with Content-Length, chunked, or without a body. It trusts its input,
 * which comes from our own proxy.
 */
export class Messages {
  readonly #onMessage: (startLine: string) => void;
  #kept: Buffer = Buffer.alloc(0);
  #startLine = "";
  /** Bytes still to come of the body, or of this chunk with its line end. Undefined: a head or a chunk's size comes next. */
  #left: number | undefined = undefined;
  #isChunked = false;
  #isHead = true;
  /** True after the last chunk: trailers follow, up to an empty line. */
  #isTrailers = false;

  constructor(onMessage: (startLine: string) => void) {
    this.#onMessage = onMessage;
  }

  /** Reads the next bytes of the connection. False: they are no HTTP/1.1 messages. */
  read(data: Buffer): boolean {
    let bytes = this.#kept.length === 0 ? data : Buffer.concat([this.#kept, data]);
    for (let read = -1; read !== 0 && bytes.length > 0; ) {
      read = this.#step(bytes);
      if (read < 0) return false;
      bytes = bytes.subarray(read);
    }
    this.#kept = bytes;
    return bytes.length <= MAX_HEAD_BYTES;
  }

  /** Answers how many bytes it has used up; 0: more must come; -1: malformed. */
  #step(bytes: Buffer): number {
    if (this.#left !== undefined) {
      const taken = Math.min(this.#left, bytes.length);
      this.#left -= taken;
      if (this.#left === 0) this.#onPart();
      return taken;
    }
    return this.#isHead ? this.#head(bytes) : this.#chunk(bytes);
  }

  #head(bytes: Buffer): number {
    const end = bytes.indexOf(HEAD_END);
    if (end < 0) return 0;
    const head = bytes.toString("latin1", 0, end);
    this.#startLine = head.slice(0, Math.max(head.indexOf("\r\n"), 0) || head.length);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    const hasNone = /^HTTP\/1\.1 (1\d\d|204|304) /.test(head);
    if (hasNone) this.#end();
    else if (/\r\ntransfer-encoding: *chunked/i.test(head)) {
      this.#isHead = false;
      this.#isChunked = true;
    } else if (Number(length ?? 0) > 0) {
      this.#isHead = false;
      this.#left = Number(length);
    } else this.#end();
    return end + HEAD_END.length;
  }

  #chunk(bytes: Buffer): number {
    const end = bytes.indexOf(LINE_END);
    if (end < 0) return 0;
    if (this.#isTrailers) {
      if (end === 0) this.#end();
      return end + LINE_END.length;
    }
    const size = Number.parseInt(bytes.toString("latin1", 0, end), 16);
    if (!(size >= 0)) return -1;
    if (size === 0) this.#isTrailers = true;
    else this.#left = size + LINE_END.length;
    return end + LINE_END.length;
  }

  #onPart(): void {
    this.#left = undefined;
    if (!this.#isChunked) this.#end();
  }

  #end(): void {
    this.#isHead = true;
    this.#isChunked = this.#isTrailers = false;
    // A 1xx response is not final, so it is not counted.
    if (!/^HTTP\/1\.1 1\d\d /.test(this.#startLine)) this.#onMessage(this.#startLine);
  }
}
