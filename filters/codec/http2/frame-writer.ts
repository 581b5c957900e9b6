// Hot path: all that leaves. Frames of a turn are put together here and written at its end, so that one write does for them.
import type { Connection } from "@tsproxy/sdk";
import { FRAME_HEAD, TYPE } from "./frame.ts";
import type { Http2Stats } from "./stats.ts";

/** Room of a buffer; what does not fit makes it grow until the next flush. */
const SIZE = 16 * 1024;
/** More than this is not held back until the end of the turn. */
const FLUSH_ABOVE = 32 * 1024;
/** Payloads up to here are copied beside their frame; larger ones are forwarded where they lie. */
export const COPY_BELOW = 2048;
const BUFFERS_KEPT = 64;
const NOTHING = new Uint8Array(0);

/** Buffers that no connection writes to at the moment. */
export class BufferPool {
  readonly #free: Uint8Array[] = [];

  take(): Uint8Array {
    return this.#free.pop() ?? new Uint8Array(SIZE);
  }
  giveBack(buffer: Uint8Array): void {
    if (buffer.length === SIZE && this.#free.length < BUFFERS_KEPT) this.#free.push(buffer);
  }
}

/** The output of one connection. */
export class FrameWriter {
  memory: Uint8Array = NOTHING;
  at = 0;
  /** Frames written since the peer last took everything. */
  frames = 0;
  controlFrames = 0;
  readonly #connection: Connection;
  readonly #buffers: BufferPool;
  readonly #stats: Http2Stats;
  /** Those of them that the gauges show: of a connection that is blocked. */
  #shownFrames = 0;
  #shownControl = 0;

  constructor(connection: Connection, buffers: BufferPool, stats: Http2Stats) {
    this.#connection = connection;
    this.#buffers = buffers;
    this.#stats = stats;
  }

  /** Room for `size` bytes from `at` on. */
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

  /** A frame whose payload of `size` bytes is written next. */
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

  /** Nothing waits any more. */
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
