import { type BigIntStats, readFileSync, statSync } from "node:fs";
import type { FoundFile } from "./protocol.ts";

export const MAX_BYTES = 64 * 1024 * 1024;

/** One file as it was read. */
interface Contents {
  readonly bytes: Buffer;
  /** Fingerprint of the file when it was read. */
  readonly seen: string;
}

/**
 * The files that packages of one thread have read for what serves: certificates, keys, formats. It outlives the thread's isolate. An
 * isolate, thread or process that has to take the place of another one begins with these contents, whatever is on disk by then;
 * main finds the difference afterwards (FileLook).
 *
 *   read in a setup    ──> serves with the generation's commit
 *   read in a change   ──> what main has found, for all threads alike; serves if the reader takes it (`cx.watchFile`)
 *   read later         ──> serves at once: a part that is set up when it is needed first
 */
export class ServedFiles {
  readonly #served = new Map<string, Contents>();
  /** Uses by setups of the present isolate. */
  readonly #uses = new Map<string, number>();
  readonly #onChanged: (() => void) | undefined;
  /** What the generation that is being set up has read. */
  #pending: Map<string, Contents> | undefined = undefined;
  /** What main has found, until it serves: a reader that refuses a certificate takes it once its key has come. */
  #found = new Map<string, FoundFile>();
  /** What the reader of a changed file has read. */
  #change: Map<string, Contents> | undefined = undefined;
  /** The isolate has its first generation, and so what has been read before stands in for what is on disk. */
  #restores = true;
  #isCommitted = false;

  /** `onChanged`: the text is another one. */
  constructor(onChanged?: () => void) {
    this.#onChanged = onChanged;
  }

  /** For another one: JSON. */
  get text(): string {
    const entries = [...this.#served].map(([path, { bytes, seen }]) => [
      path,
      seen,
      bytes.toString("base64"),
    ]);
    return JSON.stringify(entries);
  }

  /** Begins with what another one has served. `text`: its text. */
  adopt(text: string): void {
    this.#served.clear();
    for (const [path, seen, bytes] of JSON.parse(text) as [string, string, string][])
      this.#served.set(path, { bytes: Buffer.from(bytes, "base64"), seen });
  }

  /** An isolate is built. */
  restore(): void {
    this.#uses.clear();
    this.#found.clear();
    this.#pending = this.#change = undefined;
    this.#restores = true;
    this.#isCommitted = false;
  }

  /** A generation is set up. */
  prepare(): void {
    if (this.#isCommitted) this.#restores = false;
    this.#pending = new Map();
  }

  commit(): void {
    this.#isCommitted = true;
    this.#serve(this.#pending);
    this.#pending = undefined;
  }

  abort(): void {
    this.#pending = undefined;
  }

  /** Throws what Node throws. */
  read(path: string): Buffer {
    if (this.#change !== undefined) return this.#readChange(path, this.#change);
    const kept = this.#restores ? this.#served.get(path) : undefined;
    return kept?.bytes ?? this.#fromDisk(path);
  }

  /** Changed files. Their readers are told next. */
  find(files: readonly FoundFile[]): void {
    for (const file of files) this.#found.set(file.path, file);
  }

  /** One setup more needs the file, until `release` was called as often. */
  use(path: string): void {
    this.#uses.set(path, (this.#uses.get(path) ?? 0) + 1);
  }

  release(path: string): void {
    const uses = (this.#uses.get(path) ?? 0) - 1;
    this.#uses.set(path, uses);
    if (uses > 0) return;
    this.#uses.delete(path);
    this.#found.delete(path);
    // A first generation that is refused is set up again.
    if (!this.#restores && this.#served.delete(path)) this.#onChanged?.();
  }

  /** The fingerprint that the file had when it was read last; of one that was not read, the present one. */
  seen(path: string): string {
    const read = [this.#change, this.#pending, this.#served].find((files) => files?.has(path));
    return read?.get(path)?.seen ?? fingerprint(path);
  }

  /** A reader is told that a file has changed: until `endChange` it reads what main has found. */
  beginChange(): void {
    this.#change = new Map();
  }

  endChange(isTaken: boolean): void {
    const read = this.#change;
    this.#change = undefined;
    if (!isTaken) return;
    // What is being set up may have read what was there before.
    for (const path of read?.keys() ?? []) this.#pending?.delete(path);
    this.#serve(read);
  }

  /** A file that has not changed is as it was read last, whatever is on disk by now: the next look finds that for all threads. */
  #readChange(path: string, change: Map<string, Contents>): Buffer {
    const found = this.#found.get(path);
    const contents =
      found === undefined
        ? [change, this.#pending, this.#served].find((files) => files?.has(path))?.get(path)
        : found.bytes && { bytes: Buffer.from(found.bytes), seen: found.seen };
    if (contents === undefined) return this.#fromDisk(path);
    change.set(path, contents);
    return contents.bytes;
  }

  #fromDisk(path: string): Buffer {
    const seen = fingerprint(path);
    const bytes = readFileSync(path);
    if (bytes.length > MAX_BYTES) throw new Error(`${path} has more than 64 MiB`);
    const read = new Map([[path, { bytes, seen }]]);
    const waits = this.#change ?? this.#pending;
    if (waits === undefined) this.#serve(read);
    else waits.set(path, read.get(path)!);
    return bytes;
  }

  #serve(read: ReadonlyMap<string, Contents> | undefined): void {
    if (read === undefined || read.size === 0) return;
    for (const [path, contents] of read) {
      this.#served.set(path, contents);
      this.#found.delete(path);
    }
    this.#onChanged?.();
  }
}

/** One text for the state of a file, which changes with each save. */
export function fingerprintOf({ ino, mtimeNs, size }: BigIntStats): string {
  return `${ino} ${mtimeNs} ${size}`;
}

/** "": it cannot be read. */
function fingerprint(path: string): string {
  try {
    return fingerprintOf(statSync(path, { bigint: true }));
  } catch {
    return "";
  }
}
