import { chmodSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

/**
 * The file of a unix socket that listens. It is bound beside its place and then renamed into it, so a client finds either the
 * socket of before or this one. From then on libuv, which removes the file that it has bound, knows nothing of this one.
 */
export class SocketFile {
  /** Where to bind the socket. Short, as the whole path may have 107 bytes. */
  readonly fresh: string;
  readonly #place: string;
  #inode: bigint | undefined;

  constructor(place: string) {
    this.#place = place;
    this.fresh = join(dirname(place), `.${process.pid.toString(36)}`);
    // One of a process that ended just there.
    rmSync(this.fresh, { force: true });
  }

  /** Moves the socket, which listens, into its place. */
  place(mode: number | undefined): void {
    if (mode !== undefined) chmodSync(this.fresh, mode);
    this.#inode = statSync(this.fresh, { bigint: true }).ino;
    renameSync(this.fresh, this.#place);
  }

  /** Removes the file, unless another process has put its own in the place. */
  remove(): void {
    try {
      const { ino } = statSync(this.#place, { bigint: true });
      if (ino === this.#inode) rmSync(this.#place);
    } catch {
      // It is gone already, or stays, as the folder is another user's by now.
    }
  }
}
