import { closeSync, fstatSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

/** A slot holds the name of a package, in UTF-8; a slot that begins with NUL is free. */
const SLOT_BYTES = 256;
/** Slot 0 of a thread is for the sandbox that the thread itself is inside; the others are for calls on other threads. */
const SLOTS_A_THREAD = 16;
const FREE = Buffer.alloc(1);

/**
 * Notes which sandboxes a thread is inside, in a file: what a process has written there can still be read when it is dead,
 * unlike its memory. A note takes 1.5 µs, so this is done only in processes that are started after one that died for no known
 * reason.
 */
export class Marks {
  readonly #file: number;
  readonly #from: number;
  readonly #free: number[] = [];

  /** `file`: a descriptor. `thread`: 0 is the control thread, 1 the first worker. */
  constructor(file: number, thread: number) {
    this.#file = file;
    this.#from = thread * SLOTS_A_THREAD * SLOT_BYTES;
    // What a thread with this number that has ended has left.
    this.#write(0, Buffer.alloc(SLOTS_A_THREAD * SLOT_BYTES));
    for (let slot = 1; slot < SLOTS_A_THREAD; slot++) this.#free.push(slot);
  }

  /** The marks of one package's sandbox. */
  of(packageName: string): SandboxMarks {
    const name = Buffer.alloc(SLOT_BYTES);
    // The last byte stays NUL.
    name.write(packageName, 0, SLOT_BYTES - 1);
    return {
      enter: () => this.#write(0, name),
      leave: () => this.#write(0, FREE),
      leaveAlone: () => {
        const slot = this.#free.pop();
        if (slot === undefined) return () => {};
        this.#write(slot, name);
        return () => {
          this.#write(slot, FREE);
          this.#free.push(slot);
        };
      },
    };
  }

  #write(slot: number, bytes: Buffer): void {
    try {
      writeSync(this.#file, bytes, 0, bytes.length, this.#from + slot * SLOT_BYTES);
    } catch {
      // The disk is full: the next crash may blame nobody.
    }
  }
}

export interface SandboxMarks {
  /** This thread is about to enter the sandbox. */
  enter(): void;
  /** It has come back. */
  leave(): void;
  /** A call on another thread begins. The function that is returned is called when it has ended. */
  leaveAlone(): () => void;
}

/** Opens a file for a process's marks. It has no name, so nothing is left of it once all who have it open have ended. */
export function openMarks(): number | undefined {
  const file = path.join(tmpdir(), `tsproxy-marks-${process.pid}-${performance.now()}`);
  try {
    const opened = openSync(file, "wx+", 0o600);
    unlinkSync(file);
    return opened;
  } catch {
    // There is no directory for it. Then nobody can be blamed.
    return undefined;
  }
}

/** The packages that the process was inside when it died. Closes the file. */
export function takeMarks(file: number): ReadonlySet<string> {
  const bytes = Buffer.alloc(fstatSync(file).size);
  readSync(file, bytes, 0, bytes.length, 0);
  closeSync(file);
  const names = new Set<string>();
  for (let at = 0; at < bytes.length; at += SLOT_BYTES)
    if (bytes[at] !== 0) names.add(bytes.toString("utf8", at, bytes.indexOf(0, at)));
  return names;
}
