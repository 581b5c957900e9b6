// Hot path: one line a request (test/bench/access-log.ts).
import type { Counter, FileSink, Gauge, Stats } from "@tsproxy/sdk";
import { FILE_FLUSH, type FileFlush } from "../protocol.ts";
import type { Host } from "./host.ts";
import type { TimerWheel, WheelTimer } from "./timers.ts";

/**
 * So many chars of lines gather in a string here. Longer ones would live until V8 moves them to its old generation, which is then
 * collected as a whole several times a second.
 */
const CHUNK_CHARS = 8 * 1024;

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

  constructor(host: Host, wheel: TimerWheel, stats: Stats, flush = FILE_FLUSH) {
    this.#host = host;
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
  #text = "";
  /** How many chars core has got since the last flush. */
  #gathered = 0;
  /** When text was appended: pairs of monotonic ms and the index of the first char appended then, one pair per crossing. */
  #marks: number[] = [];
  #marked = -1;

  constructor(
    path: string,
    host: Host,
    wheel: TimerWheel,
    stats: Stats,
    { size, onFirst }: { readonly size: number; readonly onFirst: () => void },
  ) {
    this.#path = path;
    this.#flushSize = size;
    this.#host = host;
    this.#wheel = wheel;
    this.#onFirst = onFirst;
    this.#buffered = stats.counter("filesystem.write_buffered");
    this.#byTimer = stats.counter("filesystem.flushed_by_timer");
    this.#total = stats.gauge("filesystem.write_total_buffered");
  }

  append(line: string): void {
    this.#buffered.inc();
    this.#total.add(line.length);
    if (this.#isEmpty) this.#onFirst();
    const { now } = this.#wheel;
    if (now !== this.#marked) {
      this.#marks.push(now, this.#text.length);
      this.#marked = now;
    }
    this.#text += line;
    const { length } = this.#text;
    if (this.#gathered + length >= this.#flushSize) this.flush();
    else if (length >= CHUNK_CHARS) this.#gather();
  }

  onTimer(): void {
    if (this.#isEmpty) return;
    this.#byTimer.inc();
    this.flush();
  }

  get #isEmpty(): boolean {
    return this.#text === "" && this.#gathered === 0;
  }

  #gather(): void {
    // A path contains no NUL, so the first one ends it.
    this.#host.tellText("append", `${this.#path}\0${this.#marks.join()}\0${this.#text}`);
    this.#gathered += this.#text.length;
    this.#text = "";
    this.#marks = [];
    this.#marked = -1;
  }

  flush(): void {
    if (this.#isEmpty) return;
    if (this.#text !== "") this.#gather();
    this.#total.add(-this.#gathered);
    this.#gathered = 0;
    this.#host.tellText("flush", this.#path);
  }
}
