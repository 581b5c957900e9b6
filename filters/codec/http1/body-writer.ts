// Hot path: runs for every body byte sent. The mode, which says how the body's end is marked, is chosen when the head is written.
import type { Connection, HeaderMap } from "@tsproxy/sdk";
import { NOT_IN_TRAILERS } from "./framing.ts";
import { copySpan, LINE, writeBytes, writeFields, writeHex } from "./writer.ts";

/** How the end of a body is marked. */
export const MODE = {
  /** The message has no body: bytes given to `write` are dropped. */
  NONE: 0,
  LENGTH: 1,
  CHUNKED: 2,
  /** The body ends when the connection closes. */
  UNTIL_CLOSE: 3,
  TUNNEL: 4,
} as const;

/** A chunk of fewer bytes is copied into one buffer with its framing; a larger one's data is written without a copy. */
const COPY_BELOW = 2048;
/** Room for a chunk's size line, its CRLF and the last chunk. */
const CHUNK_EXTRA = 32;

/** Writes the body of one message, request or response, framed as its head has announced. */
export class BodyWriter {
  mode: number = MODE.NONE;
  /** LENGTH: body bytes still to be sent. If above 0 when the message ends, it is incomplete and the connection must close. */
  left = 0;
  /** Bytes of the message sent so far, including its framing; the stream adds those of the head. */
  wireSent = 0;

  begin(mode: number, length: number): void {
    this.mode = mode;
    this.left = mode === MODE.LENGTH ? length : 0;
  }

  write(
    connection: Connection,
    memory: Uint8Array,
    at: number,
    end: number,
    endStream: boolean,
  ): void {
    switch (this.mode) {
      case MODE.LENGTH: {
        // The peer would read bytes beyond the announced length as the next message.
        const size = Math.min(end - at, this.left);
        this.left -= size;
        this.wireSent += size;
        if (size > 0) connection.write(memory, at, at + size);
        break;
      }
      case MODE.CHUNKED:
        this.#writeChunk(connection, memory, at, end, endStream);
        break;
      case MODE.UNTIL_CLOSE:
        this.wireSent += end - at;
        if (end > at) connection.write(memory, at, end);
        break;
      case MODE.TUNNEL:
        this.wireSent += end - at;
        if (end > at) connection.write(memory, at, end);
        if (endStream) connection.end();
        break;
    }
  }

  #writeChunk(
    connection: Connection,
    memory: Uint8Array,
    at: number,
    end: number,
    endStream: boolean,
  ): void {
    const size = end - at;
    if (size > 0 && size < COPY_BELOW) {
      const out = connection.reserve(size + CHUNK_EXTRA);
      const from = out.at;
      writeHex(out, size);
      writeBytes(out, LINE.END);
      copySpan(out, memory, at, end);
      writeBytes(out, LINE.END);
      if (endStream) writeBytes(out, LINE.LAST_CHUNK);
      this.wireSent += out.at - from;
      connection.commit(out);
      return;
    }
    if (size > 0) {
      const out = connection.reserve(CHUNK_EXTRA);
      const from = out.at;
      writeHex(out, size);
      writeBytes(out, LINE.END);
      this.wireSent += out.at - from + size;
      connection.commit(out);
      connection.write(memory, at, end);
    }
    if (size === 0 && !endStream) return; // A chunk of size 0 would end the body.
    const out = connection.reserve(CHUNK_EXTRA);
    const from = out.at;
    if (size > 0) writeBytes(out, LINE.END);
    if (endStream) writeBytes(out, LINE.LAST_CHUNK);
    this.wireSent += out.at - from;
    connection.commit(out);
  }

  /** Ends the body with trailers, which only a chunked body can carry (RFC 9112 §7.1.2); otherwise they are dropped. */
  writeTrailers(connection: Connection, trailers: HeaderMap, enabled: boolean): void {
    if (this.mode !== MODE.CHUNKED || !enabled) {
      this.write(connection, trailers.memory, 0, 0, true);
      return;
    }
    const out = connection.reserve(trailers.wireSize + CHUNK_EXTRA);
    const from = out.at;
    writeBytes(out, LINE.LAST_CHUNK_SIZE);
    writeFields(out, trailers, NOT_IN_TRAILERS, -1);
    writeBytes(out, LINE.END);
    this.wireSent += out.at - from;
    connection.commit(out);
  }
}
