// Hot path: every body byte that leaves. How the end of a message is marked is settled with its head.
import type { Connection, HeaderMap } from "@tsproxy/sdk";
import { NOT_IN_TRAILERS } from "./framing.ts";
import { copySpan, LINE, writeBytes, writeFields, writeHex } from "./writer.ts";

export const MODE = {
  /** No body goes out, whatever is given. */
  NONE: 0,
  LENGTH: 1,
  CHUNKED: 2,
  /** Ends with the connection. */
  UNTIL_CLOSE: 3,
  TUNNEL: 4,
} as const;

/** Up to here a chunk is put together in one place; beyond, its data is forwarded where it lies. */
const COPY_BELOW = 2048;
/** Size line, CRLF and last chunk. */
const CHUNK_EXTRA = 32;

/** Writes the body of one message, either direction, so that it is what the head has announced. */
export class BodyWriter {
  mode: number = MODE.NONE;
  /** Of a LENGTH body: bytes that are still owed. Not 0 at the end: the message is cut and the connection with it. */
  left = 0;
  /** Bytes of the message so far, its framing among them. */
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
        // Bytes beyond the announced length would be read as the next message.
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
    if (size === 0 && !endStream) return; // A chunk of size 0 would be the end.
    const out = connection.reserve(CHUNK_EXTRA);
    const from = out.at;
    if (size > 0) writeBytes(out, LINE.END);
    if (endStream) writeBytes(out, LINE.LAST_CHUNK);
    this.wireSent += out.at - from;
    connection.commit(out);
  }

  /** RFC 9112 §7.1.2: only a chunked body has a place for trailers; otherwise they are dropped. */
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
