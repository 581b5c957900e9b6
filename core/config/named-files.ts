import { readFileSync, statSync } from "node:fs";
import { textHash } from "../reload/text-hash.ts";

interface Known {
  /** Hash of the content; "": it could not be read. */
  readonly hash: string;
  /** Changes with each save, so that a file is not read again for nothing. */
  readonly stamp: string;
}

/** The files that a config names and whose content became part of it: scripts, bodies, modules of Lua. */
export class NamedFiles {
  readonly #files = new Map<string, Known>();

  /** Reads a file that the config names. Throws what readFileSync throws. */
  read(file: string): Buffer {
    const stamp = stampOf(file);
    this.#files.set(file, { hash: "", stamp });
    const bytes = readFileSync(file);
    this.#files.set(file, { hash: hashOf(bytes), stamp });
    return bytes;
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
