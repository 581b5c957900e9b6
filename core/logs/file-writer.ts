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

/** Appends to files without ever blocking the caller. */
export class FileWriter {
  readonly #streams = new Map<string, WriteStream>();
  readonly #ending = new Set<Promise<void>>();
  readonly #onTrouble: (path: string, message: string) => void;
  readonly #stats: WriterStats | undefined;
  #dropping = false;
  /** Files that could not be opened or written last time. Their failure is not reported again before a write has succeeded. */
  readonly #failing = new Set<string>();

  constructor(onTrouble: (path: string, message: string) => void, stats?: WriterStats) {
    this.#onTrouble = onTrouble;
    this.#stats = stats;
  }

  /** Appends bytes; none only create the file. `onDone`: they are written, or lost. */
  append(path: string, bytes: Uint8Array, onDone: () => void = () => {}): void {
    const stream = this.#streams.get(path) ?? this.#open(path, false);
    if (bytes.length === 0) return;
    if (stream.writableLength > QUEUE_LIMIT) {
      if (!this.#dropping) this.#onTrouble(path, "the disk does not keep up: lines are lost");
      this.#dropping = true;
      this.#stats?.failed.inc();
      onDone();
      return;
    }
    this.#dropping = false;
    stream.write(bytes, (error) => {
      onDone();
      if (error == null) {
        this.#failing.delete(path);
        this.#stats?.completed.inc();
      } else this.#stats?.failed.inc();
    });
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
      if (!this.#failing.has(path)) this.#onTrouble(path, error.message);
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
