import { createWriteStream, type WriteStream } from "node:fs";

const QUEUE_LIMIT = 16 * 1024 * 1024; // bytes of log lines that may wait for a slow disk; past it lines are dropped and counted

/** Opened anew these fail where they are sockets, as under systemd or in a pipe of Node's. */
const STANDARD: Readonly<Record<string, number>> = { "/dev/stdout": 1, "/dev/stderr": 2 };

/** Appends to files without ever holding the data path up. */
export class FileWriter {
  readonly #streams = new Map<string, WriteStream>();
  readonly #onTrouble: (path: string, message: string) => void;
  dropped = 0;

  constructor(onTrouble: (path: string, message: string) => void) {
    this.#onTrouble = onTrouble;
  }

  append(path: string, text: string): void {
    let stream = this.#streams.get(path);
    if (stream === undefined) {
      const fd = STANDARD[path];
      stream = createWriteStream(
        path,
        fd === undefined ? { flags: "a" } : { fd, autoClose: false },
      );
      stream.on("error", (error) => {
        this.#streams.delete(path);
        this.#onTrouble(path, error.message);
      });
      this.#streams.set(path, stream);
    }
    if (stream.writableLength > QUEUE_LIMIT) {
      if (this.dropped++ === 0) this.#onTrouble(path, "the disk does not keep up: lines are lost");
      return;
    }
    stream.write(Buffer.from(text, "latin1"));
  }

  /** Settles when all is written. */
  async end(): Promise<void> {
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    await Promise.all(
      streams.map((stream) => new Promise<void>((resolve) => stream.end(() => resolve()))),
    );
  }
}
