// Hot path: one line a request (test/bench/access-log.ts).
import {
  type Counter,
  type FileSink,
  type Format,
  type FormatSource,
  type Gauge,
  LineWriter,
  type Stats,
  utf8Decode,
} from "@tsproxy/sdk";
import { FILE_FLUSH, type FileFlush } from "../protocol.ts";
import type { Host } from "./host.ts";
import { type Chunk, chunkOf } from "./line-chunks.ts";
import type { TimerWheel, WheelTimer } from "./timers.ts";

/**
 * Files that packages append to. Lines gather in core, which writes a file's when there are enough of them or the flush interval is
 * over. All threads flush at the same moments of the clock, so that core can put their lines in order.
 */
export class FileTable {
  readonly #host: Host;
  readonly #stats: Stats;
  readonly #open = new Map<string, BufferedFile>();
  readonly #wheel: TimerWheel;
  readonly #timer: WheelTimer;
  readonly #flush: FileFlush;
  readonly #chunks: SharedArrayBuffer;

  /** `chunks`: chunkMemory. */
  constructor(
    host: Host,
    wheel: TimerWheel,
    stats: Stats,
    chunks: SharedArrayBuffer,
    flush = FILE_FLUSH,
  ) {
    this.#host = host;
    this.#chunks = chunks;
    this.#stats = stats;
    this.#flush = flush;
    this.#wheel = wheel;
    this.#timer = wheel.timer(() => this.#onTimer());
  }

  /** Opens a file; core creates it at once if it does not exist. */
  open(path: string): FileSink {
    let file = this.#open.get(path);
    if (file === undefined) {
      this.#host.tellText("append", `${path}\0\0`);
      file = new BufferedFile(path, this.#host, this.#wheel, this.#stats, {
        chunk: chunkOf(this.#chunks, this.#open.size),
        size: this.#flush.bytes,
        onFirst: () => this.#arm(),
      });
      this.#open.set(path, file);
    }
    return file;
  }

  #arm(): void {
    if (!this.#timer.armed) this.#timer.arm(this.#flush.ms - (Date.now() % this.#flush.ms));
  }

  #onTimer(): void {
    for (const file of this.#open.values()) file.onTimer();
  }

  flush(): void {
    for (const file of this.#open.values()) file.flush();
  }
}

/** One file and the lines that wait for it. */
class BufferedFile implements FileSink {
  readonly #path: string;
  readonly #host: Host;
  readonly #wheel: TimerWheel;
  readonly #flushSize: number;
  readonly #onFirst: () => void;
  readonly #buffered: Counter;
  readonly #byTimer: Counter;
  readonly #total: Gauge;
  readonly #line: LineWriter;
  /** Where in the chunk the lines end. */
  #used = 0;
  /** How many bytes core has got since the last flush. */
  #gathered = 0;
  /** Chunk.marks, a pair for each crossing, and how many of its numbers are in use. */
  readonly #marks: Float64Array;
  #marked = 0;

  constructor(
    path: string,
    host: Host,
    wheel: TimerWheel,
    stats: Stats,
    {
      chunk,
      size,
      onFirst,
    }: { readonly chunk: Chunk; readonly size: number; readonly onFirst: () => void },
  ) {
    this.#line = new LineWriter(chunk.lines);
    this.#marks = chunk.marks;
    this.#path = path;
    this.#flushSize = size;
    this.#host = host;
    this.#wheel = wheel;
    this.#onFirst = onFirst;
    this.#buffered = stats.counter("filesystem.write_buffered");
    this.#byTimer = stats.counter("filesystem.flushed_by_timer");
    this.#total = stats.gauge("filesystem.write_total_buffered");
  }

  append(text: string): void {
    const line = this.#line;
    line.begin(this.#used);
    line.text(text);
    if (line.full && this.#used > 0) {
      this.#gather();
      line.begin(0);
      line.text(text);
    }
    this.#end(line.full ? text : undefined);
  }

  print(format: Format, source: FormatSource): void {
    if (format.write === undefined) {
      this.append(format.format(source));
      return;
    }
    const line = this.#line;
    line.begin(this.#used);
    format.write(source, line);
    if (line.full && this.#used > 0) {
      this.#gather();
      line.begin(0);
      format.write(source, line);
    }
    this.#end(line.full ? format.format(source) : undefined);
  }

  /** A line lies behind `#used`. `long`: it does not fit into the chunk, which is empty. */
  #end(long: string | undefined): void {
    const size = long?.length ?? this.#line.at - this.#used;
    this.#buffered.inc();
    this.#total.add(size);
    if (this.#isEmpty) this.#onFirst();
    const { now } = this.#wheel;
    if (long !== undefined) {
      this.#tellText(now, long);
      this.#gathered += size;
    } else {
      const marked = this.#marked;
      if (marked === 0 || this.#marks[marked - 2] !== now) {
        this.#marks[marked] = now;
        this.#marks[marked + 1] = this.#used;
        this.#marked += 2;
      }
      this.#used += size;
    }
    if (this.#gathered + this.#used >= this.#flushSize) this.flush();
    else if (this.#marked === this.#marks.length) this.#gather();
  }

  onTimer(): void {
    if (this.#isEmpty) return;
    this.#byTimer.inc();
    this.flush();
  }

  get #isEmpty(): boolean {
    return this.#used === 0 && this.#gathered === 0;
  }

  #gather(): void {
    if (this.#used === 0) return;
    const { memory } = this.#line;
    if (memory.buffer instanceof SharedArrayBuffer)
      // A path contains no NUL, so the first one ends it.
      this.#host.tellText(
        "lines",
        `${this.#path}\0${memory.byteOffset}\0${this.#used}\0${this.#marked}`,
      );
    else this.#tellPieces(memory);
    this.#gathered += this.#used;
    this.#used = this.#marked = 0;
  }

  #tellPieces(memory: Uint8Array): void {
    const marks = this.#marks;
    for (let k = 0; k < this.#marked; k += 2) {
      const end = k + 2 < this.#marked ? marks[k + 3]! : this.#used;
      this.#tellText(marks[k]!, utf8Decode(memory, marks[k + 1]!, end));
    }
  }

  #tellText(time: number, text: string): void {
    this.#host.tellText("append", `${this.#path}\0${time}\0${text}`);
  }

  flush(): void {
    if (this.#isEmpty) return;
    this.#gather();
    this.#total.add(-this.#gathered);
    this.#gathered = 0;
    this.#host.tellText("flush", this.#path);
  }
}
