// Hot path: all output of a connection. The frames of a turn are collected here and written at its end in one write.
import type { Connection } from "@tsproxy/sdk";
import { FRAME_HEAD, TYPE } from "./frame.ts";
import type { Http2Stats } from "./stats.ts";

/** Size of a pooled buffer; one that is too small is replaced by a larger one until the next flush. */
const SIZE = 16 * 1024;
/** With more bytes than this, the buffer is written before the turn ends. */
const FLUSH_ABOVE = 32 * 1024;
/** Smaller DATA payloads are copied behind their frame head; larger ones are written without a copy. */
export const COPY_BELOW = 2048;
const BUFFERS_KEPT = 64;
const NOTHING = new Uint8Array(0);

/** Free output buffers, shared by the connections of a setup. */
export class BufferPool {
  readonly #free: Uint8Array[] = [];

  take(): Uint8Array {
    return this.#free.pop() ?? new Uint8Array(SIZE);
  }
  giveBack(buffer: Uint8Array): void {
    if (buffer.length === SIZE && this.#free.length < BUFFERS_KEPT) this.#free.push(buffer);
  }
}

/** Collects and writes the frames of one connection. */
export class FrameWriter {
  memory: Uint8Array = NOTHING;
  at = 0;
  /** Numbers of frames and of control frames written since the socket last accepted all output; checked by Limits. */
  frames = 0;
  controlFrames = 0;
  readonly #connection: Connection;
  readonly #buffers: BufferPool;
  readonly #stats: Http2Stats;
  /** What the gauges currently include of the two counts; above 0 only while the connection is blocked. */
  #shownFrames = 0;
  #shownControl = 0;

  constructor(connection: Connection, buffers: BufferPool, stats: Http2Stats) {
    this.#connection = connection;
    this.#buffers = buffers;
    this.#stats = stats;
  }

  /** Makes room for `size` bytes at `at`. */
  ensure(size: number): void {
    if (this.at + size <= this.memory.length) return;
    if (this.at === 0 && this.memory.length === 0) {
      this.#connection.again();
      this.memory = this.#buffers.take();
      if (size <= this.memory.length) return;
    }
    const bigger = new Uint8Array(Math.max(this.memory.length * 2, this.at + size));
    bigger.set(this.memory.subarray(0, this.at));
    this.#buffers.giveBack(this.memory);
    this.memory = bigger;
  }

  /** Writes a frame head; the caller writes the payload of `size` bytes next. */
  head(type: number, flags: number, stream: number, size: number): void {
    this.ensure(FRAME_HEAD + size);
    this.putHead(this.at, type, flags, stream, size);
    this.at += FRAME_HEAD;
    this.frames++;
    if (type > TYPE.HEADERS && type !== TYPE.CONTINUATION) this.controlFrames++;
  }

  putHead(at: number, type: number, flags: number, stream: number, size: number): void {
    const { memory } = this;
    memory[at] = size >>> 16;
    memory[at + 1] = size >>> 8;
    memory[at + 2] = size;
    memory[at + 3] = type;
    memory[at + 4] = flags;
    memory[at + 5] = stream >>> 24;
    memory[at + 6] = stream >>> 16;
    memory[at + 7] = stream >>> 8;
    memory[at + 8] = stream;
  }

  uint32(value: number): void {
    const { memory } = this;
    const { at } = this;
    memory[at] = value >>> 24;
    memory[at + 1] = value >>> 16;
    memory[at + 2] = value >>> 8;
    memory[at + 3] = value;
    this.at = at + 4;
  }

  uint16(value: number): void {
    this.memory[this.at++] = value >>> 8;
    this.memory[this.at++] = value;
  }

  bytes(memory: Uint8Array, at: number, end: number): void {
    const size = end - at;
    this.ensure(size);
    const to = this.at;
    if (size <= 64) for (let k = 0; k < size; k++) this.memory[to + k] = memory[at + k]!;
    else this.memory.set(memory.subarray(at, end), to);
    this.at = to + size;
  }

  data(stream: number, memory: Uint8Array, at: number, end: number, flags: number): void {
    this.head(TYPE.DATA, flags, stream, 0);
    const head = this.at - FRAME_HEAD;
    this.putHead(head, TYPE.DATA, flags, stream, end - at);
    if (end - at < COPY_BELOW) this.bytes(memory, at, end);
    else {
      this.flush();
      this.#connection.write(memory, at, end);
    }
    if (this.at > FLUSH_ABOVE) this.flush();
  }

  flush(): void {
    if (this.at > 0) this.#connection.write(this.memory, 0, this.at);
    this.at = 0;
    if (this.memory.length > 0) this.#buffers.giveBack(this.memory);
    this.memory = NOTHING;
    if (!this.#connection.blocked) this.frames = this.controlFrames = 0;
    if (this.frames !== this.#shownFrames) this.#show();
  }

  /** Drops what has not been written. */
  discard(): void {
    this.at = 0;
  }

  /** Resets the counts and gauges when the connection ends. */
  release(): void {
    this.frames = this.controlFrames = 0;
    if (this.#shownFrames > 0) this.#show();
  }

  #show(): void {
    this.#stats.outboundFramesActive.add(this.frames - this.#shownFrames);
    this.#stats.outboundControlFramesActive.add(this.controlFrames - this.#shownControl);
    this.#shownFrames = this.frames;
    this.#shownControl = this.controlFrames;
  }
}
