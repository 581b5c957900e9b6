// Hot path: one line a request, test/bench/access-log.ts.
import type { Counter, FileSink, Gauge, Stats } from "@tsproxy/sdk";
import type { Host } from "./host.ts";
import type { TimerWheel, WheelTimer } from "./timers.ts";

/** Envoy's `--file-flush-min-size-kb`. */
const FLUSH_CHARS = 64 * 1024;
/** Envoy's `--file-flush-interval-msec`. */
export const FLUSH_MS = 10_000;

/** Files that packages append to. Lines gather here as one string; core gets it by size or time and writes it. */
export class FileTable {
  readonly #host: Host;
  readonly #stats: Stats;
  readonly #open = new Map<string, BufferedFile>();
  readonly #timer: WheelTimer;
  readonly #flushMs: number;

  constructor(host: Host, wheel: TimerWheel, stats: Stats, flushMs = FLUSH_MS) {
    this.#host = host;
    this.#stats = stats;
    this.#flushMs = flushMs;
    this.#timer = wheel.timer(() => this.#onTimer());
  }

  /** The file is made at once, if it is not there. */
  open(path: string): FileSink {
    let file = this.#open.get(path);
    if (file === undefined) {
      this.#host.tellText("append", `${path}\0`);
      file = new BufferedFile(path, this.#host, this.#stats, () => this.#arm());
      this.#open.set(path, file);
    }
    return file;
  }

  #arm(): void {
    if (!this.#timer.armed) this.#timer.arm(this.#flushMs);
  }

  #onTimer(): void {
    for (const file of this.#open.values()) file.onTimer();
  }

  flush(): void {
    for (const file of this.#open.values()) file.flush();
  }
}

class BufferedFile implements FileSink {
  readonly #path: string;
  readonly #host: Host;
  readonly #onFirst: () => void;
  readonly #buffered: Counter;
  readonly #byTimer: Counter;
  readonly #total: Gauge;
  #text = "";

  constructor(path: string, host: Host, stats: Stats, onFirst: () => void) {
    this.#path = path;
    this.#host = host;
    this.#onFirst = onFirst;
    this.#buffered = stats.counter("filesystem.write_buffered");
    this.#byTimer = stats.counter("filesystem.flushed_by_timer");
    this.#total = stats.gauge("filesystem.write_total_buffered");
  }

  append(line: string): void {
    this.#buffered.inc();
    this.#total.add(line.length);
    if (this.#text === "") this.#onFirst();
    this.#text += line;
    if (this.#text.length >= FLUSH_CHARS) this.flush();
  }

  onTimer(): void {
    if (this.#text === "") return;
    this.#byTimer.inc();
    this.flush();
  }

  flush(): void {
    if (this.#text === "") return;
    const text = this.#text;
    this.#text = "";
    this.#total.add(-text.length);
    // The path ends at the first NUL, which no path holds.
    this.#host.tellText("append", `${this.#path}\0${text}`);
  }
}
