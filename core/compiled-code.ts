import {
  closeSync,
  fstatSync,
  openSync,
  readFileSync,
  rmSync,
  type Stats,
  statSync,
} from "node:fs";
import { mkdir, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { threadId } from "node:worker_threads";
import { crc32 } from "node:zlib";

/** A file begins with the CRC-32 of the script and that of the rest, which is what V8 has made of the script. */
const HEAD_BYTES = 8;

/** A script, which replaces all others of its name. */
export interface NamedScript {
  readonly name: string;
  readonly code: string;
  readonly filename: string;
}

/** Compiles scripts into what V8 can take instead (isolate.ts). */
export type CompileScripts = (scripts: readonly NamedScript[]) => AsyncIterable<ArrayBuffer>;

/**
 * V8's compiled form of the scripts that isolates of a thread run (core's prelude, the SDK, shipped packages), kept in files for later
 * starts: to compile them takes three times as long. V8 itself refuses what another version of it, or other flags, have made; but it
 * neither looks at the script nor checks the data, and crashes on wrong ones. So this is done here, and a file that somebody else may
 * have written is left alone.
 */
export class CompiledCode {
  readonly #folder: string;
  /** What was missing. Undefined: nothing is made. */
  #wanted: Map<string, NamedScript> | undefined;
  #keeping: Promise<void> = Promise.resolve();

  /** `keeps`: `keep` will be called. */
  constructor(folder: string, keeps: boolean) {
    this.#folder = folder;
    this.#wanted = keeps ? new Map() : undefined;
  }

  /** What V8 can take instead of compiling that script. Undefined: there is nothing; `keep` will make it. */
  find(script: NamedScript): ArrayBuffer | undefined {
    const found = this.#read(script);
    if (found === undefined) this.#wanted?.set(script.name, script);
    return found;
  }

  /** V8 has refused what was found for that script: `keep` will make it anew. */
  forget(script: NamedScript): void {
    // One that keeps nothing may run under other flags, to which V8 has objected.
    if (this.#wanted === undefined) return;
    this.#wanted.set(script.name, script);
    try {
      rmSync(this.#fileOf(script), { force: true });
    } catch {
      // It cannot be replaced either.
    }
  }

  /**
   * Called once the thread has served for a while: makes what its start has missed. Where no file can be written, every start
   * compiles.
   */
  keep(compile: CompileScripts): void {
    const missed = [...(this.#wanted?.values() ?? [])];
    this.#wanted = undefined;
    // Another thread may have made them meanwhile.
    const scripts = missed.filter((script) => this.#read(script) === undefined);
    if (scripts.length > 0) this.#keeping = this.#write(scripts, compile).catch(() => {});
  }

  /** Resolves once nothing is being compiled, which must not outlive the thread. */
  get kept(): Promise<void> {
    return this.#keeping;
  }

  #read(script: NamedScript): ArrayBuffer | undefined {
    try {
      const bytes = isOurs(statSync(this.#folder)) ? readOurs(this.#fileOf(script)) : undefined;
      if (bytes === undefined) return undefined;
      const data = bytes.subarray(HEAD_BYTES);
      return bytes.subarray(0, HEAD_BYTES).equals(head(script, data))
        ? new Uint8Array(data).buffer
        : undefined;
    } catch {
      return undefined;
    }
  }

  async #write(scripts: readonly NamedScript[], compile: CompileScripts): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    if (!isOurs(statSync(this.#folder))) return;
    let k = 0;
    for await (const made of compile(scripts)) {
      const script = scripts[k++]!;
      const file = this.#fileOf(script);
      const draft = `${file}.${process.pid}.${threadId}`;
      const data = new Uint8Array(made);
      await writeFile(draft, Buffer.concat([head(script, data), data]), { mode: 0o600 });
      await rename(draft, file);
    }
  }

  #fileOf({ name }: NamedScript): string {
    return path.join(this.#folder, name.replace(/[^\w@]/g, "-"));
  }
}

function head({ code }: NamedScript, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES);
  bytes.writeUInt32LE(crc32(code), 0);
  bytes.writeUInt32LE(crc32(data), 4);
  return bytes;
}

/** Undefined: somebody else may have written that file. */
function readOurs(file: string): Buffer | undefined {
  const fd = openSync(file, "r");
  try {
    return isOurs(fstatSync(fd)) ? readFileSync(fd) : undefined;
  } finally {
    closeSync(fd);
  }
}

/** Only this user, or root, can write it. */
function isOurs({ uid, mode }: Stats): boolean {
  return (uid === 0 || uid === process.getuid?.()) && (mode & 0o022) === 0;
}
