import { createWriteStream, type WriteStream } from "node:fs";

const QUEUE_LIMIT = 16 * 1024 * 1024; // bytes of log lines that may wait for a slow disk; past it lines are dropped and counted

/**
 * Written through their descriptors: opening these paths fails where they are sockets, as under systemd or in a pipe of Node's.
 */
const STANDARD: Readonly<Record<string, number>> = { "/dev/stdout": 1, "/dev/stderr": 2 };

/** Those of Envoy's `filesystem.` stats that count writes. */
export interface WriterStats {
  readonly completed: { inc(): void };
  readonly failed: { inc(): void };
  readonly reopenFailed: { inc(): void };
}

export interface WriterEvents {
  /** A file cannot be opened or written. Told once, until a write has succeeded. */
  onTrouble(path: string, message: string): void;
  /** It can be written again; so many bytes were lost. */
  onMended(path: string, lost: number): void;
}

/** Appends to files without ever blocking the caller. */
export class FileWriter {
  readonly #streams = new Map<string, WriteStream>();
  readonly #ending = new Set<Promise<void>>();
  readonly #events: WriterEvents;
  readonly #stats: WriterStats | undefined;
  #dropping = false;
  /** Files that could not be opened or written last time. */
  readonly #failing = new Set<string>();
  /** How many bytes each of them has lost. */
  readonly #lost = new Map<string, number>();

  constructor(events: WriterEvents, stats?: WriterStats) {
    this.#events = events;
    this.#stats = stats;
  }

  /** Appends bytes; none only create the file. `onDone`: they are written, or lost. */
  append(path: string, bytes: Uint8Array, onDone: () => void = () => {}): void {
    const stream = this.#streams.get(path) ?? this.#open(path, false);
    if (bytes.length === 0) return;
    if (stream.writableLength > QUEUE_LIMIT) {
      if (!this.#dropping)
        this.#events.onTrouble(path, "the disk does not keep up: lines are lost");
      this.#dropping = true;
      this.#stats?.failed.inc();
      onDone();
      return;
    }
    this.#dropping = false;
    stream.write(bytes, (error) => {
      onDone();
      this.#onWritten(path, error == null ? 0 : bytes.length);
    });
  }

  #onWritten(path: string, lost: number): void {
    if (lost > 0) {
      this.#stats?.failed.inc();
      this.#lost.set(path, (this.#lost.get(path) ?? 0) + lost);
      return;
    }
    this.#stats?.completed.inc();
    if (this.#failing.delete(path)) this.#events.onMended(path, this.#lost.get(path) ?? 0);
    this.#lost.delete(path);
  }

  #open(path: string, again: boolean): WriteStream {
    const fd = STANDARD[path];
    const stream = createWriteStream(
      path,
      fd === undefined ? { flags: "a" } : { fd, autoClose: false },
    );
    stream.on("error", (error) => {
      // The next line opens the file again.
      if (this.#streams.get(path) === stream) this.#streams.delete(path);
      if (again) this.#stats?.reopenFailed.inc();
      if (!this.#failing.has(path)) this.#events.onTrouble(path, error.message);
      this.#failing.add(path);
    });
    this.#streams.set(path, stream);
    return stream;
  }

  /**
   * Called after files were moved away: bytes that wait still go to the moved files, later ones to new files of the same names.
   */
  reopen(): void {
    for (const [path, stream] of [...this.#streams]) {
      if (STANDARD[path] !== undefined) continue;
      this.#end(path, stream);
      this.#open(path, true);
    }
  }

  #end(path: string, stream: WriteStream): void {
    const ended = new Promise<void>((resolve) => {
      stream.once("close", resolve);
      stream.once("error", () => resolve());
      // Those of the process itself stay open.
      stream.end(() => {
        if (STANDARD[path] !== undefined) resolve();
      });
    });
    this.#ending.add(ended);
    void ended.then(() => this.#ending.delete(ended));
  }

  /** Settles when all is written. */
  async end(): Promise<void> {
    for (const [path, stream] of this.#streams) this.#end(path, stream);
    this.#streams.clear();
    await Promise.all(this.#ending);
  }
}
