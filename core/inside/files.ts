import type { FileSink } from "@tsproxy/sdk";
import type { Host } from "./host.ts";
import type { TimerWheel, WheelTimer } from "./timers.ts";

const FLUSH_BYTES = 64 * 1024;
const FLUSH_MS = 1000;

/** Files that packages append to. Lines gather here as one string; core gets it by size or time and writes it. */
export class FileTable {
  readonly #host: Host;
  readonly #open = new Map<string, BufferedFile>();
  readonly #timer: WheelTimer;

  constructor(host: Host, wheel: TimerWheel) {
    this.#host = host;
    this.#timer = wheel.timer(() => this.flush());
  }

  open(path: string): FileSink {
    let file = this.#open.get(path);
    if (file === undefined) {
      file = new BufferedFile(path, this.#host, this.#timer);
      this.#open.set(path, file);
    }
    return file;
  }

  flush(): void {
    for (const file of this.#open.values()) file.flush();
  }
}

class BufferedFile implements FileSink {
  readonly #path: string;
  readonly #host: Host;
  readonly #timer: WheelTimer;
  #text = "";

  constructor(path: string, host: Host, timer: WheelTimer) {
    this.#path = path;
    this.#host = host;
    this.#timer = timer;
  }

  append(line: string): void {
    this.#text += line;
    if (this.#text.length >= FLUSH_BYTES) this.flush();
    else if (!this.#timer.armed) this.#timer.arm(FLUSH_MS);
  }

  flush(): void {
    if (this.#text === "") return;
    const text = this.#text;
    this.#text = "";
    // The path ends at the first NUL, which no path holds.
    this.#host.tellText("append", `${this.#path}\0${text}`);
  }
}
