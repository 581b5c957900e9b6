import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";

/** A dump with more bytes is given up: it waits in memory until its client has taken it. */
const MAX_BYTES = 512 * 1024 * 1024;
/** A dump of which nothing is taken for so long is dropped. */
const IDLE_MS = 30_000;
/** Bytes of a text that are answered at a time. */
const PIECE_BYTES = 256 * 1024;

export interface DumpAnswer {
  /** Names the dump in `next` and `close`. */
  readonly dump?: number;
  readonly error?: string;
}

interface Dump {
  readonly id: number;
  readonly pieces: Buffer[];
  readonly decoder: StringDecoder;
  readonly idle: NodeJS.Timeout;
}

/** Heap snapshots that admin's /heap_dump hands out piece by piece, as its client takes them; only one at a time. */
export class HeapDumps {
  #ids = 0;
  #dump: Dump | undefined;
  #isTaking = false;

  /** `take` answers the snapshot as JSON in DevTools' format, or as a stream of that. */
  async open(take: () => Promise<Readable | string>): Promise<DumpAnswer> {
    if (this.#isTaking || this.#dump !== undefined)
      return { error: "another heap dump is under way" };
    this.#isTaking = true;
    try {
      const taken = await take();
      const pieces = typeof taken === "string" ? cut(Buffer.from(taken)) : await gather(taken);
      const id = ++this.#ids;
      const idle = setTimeout(() => this.close(id), IDLE_MS).unref();
      this.#dump = { id, pieces: pieces.reverse(), decoder: new StringDecoder("utf8"), idle };
      return { dump: id };
    } catch (error) {
      return { error: (error as Error).message };
    } finally {
      this.#isTaking = false;
    }
  }

  /** The next piece; "": there are no more, and the dump is closed. Undefined: it has been dropped. */
  next(id: number): string | undefined {
    const dump = this.#dump;
    if (dump?.id !== id) return undefined;
    dump.idle.refresh();
    const bytes = dump.pieces.pop();
    if (bytes !== undefined) return dump.decoder.write(bytes);
    this.close(id);
    return "";
  }

  close(id: number): void {
    if (this.#dump?.id !== id) return;
    clearTimeout(this.#dump.idle);
    this.#dump = undefined;
  }
}

function cut(bytes: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += PIECE_BYTES)
    pieces.push(bytes.subarray(at, at + PIECE_BYTES));
  return pieces;
}

/** V8 writes all of a snapshot as soon as its stream is read, so it has to be kept. */
async function gather(stream: Readable): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of stream) {
    size += piece.length;
    if (size > MAX_BYTES) throw new Error(`the heap dump is larger than ${MAX_BYTES >> 20} MiB`);
    pieces.push(piece);
  }
  return pieces.flatMap(cut);
}
