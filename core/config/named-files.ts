import { readFileSync, statSync } from "node:fs";
import { textHash } from "../reload/text-hash.ts";

interface Known {
  /** Hash of the content; "": it could not be read. */
  readonly hash: string;
  /** Changes with each save, so that a file is not read again for nothing. */
  readonly stamp: string;
  /** Undefined: it could not be read. */
  readonly bytes?: Buffer;
}

/** The stamp of a file that was not read from disk: no file there has it. */
const GIVEN = "given";

/** The files that a config names and whose content became part of it: scripts, bodies, modules of Lua. */
export class NamedFiles {
  readonly #files = new Map<string, Known>();
  readonly #given: ReadonlyMap<string, Buffer> | undefined;

  /** `given`: contents in the place of those on disk. */
  constructor(given?: ReadonlyMap<string, Buffer>) {
    this.#given = given;
  }

  /** Reads a file that the config names. Throws what readFileSync throws. */
  read(file: string): Buffer {
    const given = this.#given?.get(file);
    const stamp = given === undefined ? stampOf(file) : GIVEN;
    this.#files.set(file, { hash: "", stamp });
    const bytes = given ?? readFileSync(file);
    this.#files.set(file, { hash: hashOf(bytes), stamp, bytes });
    return bytes;
  }

  /** The contents as they were read. */
  get contents(): ReadonlyMap<string, Buffer> {
    const read = [...this.#files].flatMap(([file, { bytes }]) => (bytes ? [[file, bytes]] : []));
    return new Map(read as [string, Buffer][]);
  }

  get names(): Iterable<string> {
    return this.#files.keys();
  }

  /** One text for the contents as they were read. */
  get asRead(): string {
    return [...this.#files.values()].map((known) => known.hash).join();
  }

  /** The same for the contents that the files have now. */
  get now(): string {
    return [...this.#files].map(([file, known]) => hashNow(file, known)).join();
  }
}

function hashNow(file: string, known: Known): string {
  if (stampOf(file) === known.stamp) return known.hash;
  try {
    return hashOf(readFileSync(file));
  } catch {
    return "";
  }
}

function stampOf(file: string): string {
  const found = statSync(file, { bigint: true, throwIfNoEntry: false });
  return found === undefined ? "" : `${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs}`;
}

function hashOf(bytes: Buffer): string {
  return textHash(bytes.toString("latin1"));
}
