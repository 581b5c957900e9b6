import type { FoundFile, FromWorker } from "./protocol.ts";
import type { ServedFiles } from "./served-files.ts";

/** What WatchedFiles tells main, which looks at the files (FileLook). */
export type WatchMessage = Extract<FromWorker, { type: "watch_file" | "unwatch_file" }>;

/** The files that the isolate of a thread watches. */
export class WatchedFiles {
  readonly #files = new Map<string, { uses: number; seen: string }>();
  readonly #served: ServedFiles;
  readonly #post: (message: WatchMessage) => void;
  readonly #onChanged: (path: string) => void;

  /** `served` is told of changes first, and then `onChanged`. */
  constructor(
    served: ServedFiles,
    post: (message: WatchMessage) => void,
    onChanged: (path: string) => void,
  ) {
    this.#served = served;
    this.#post = post;
    this.#onChanged = onChanged;
  }

  /**
   * Watches the file. Uses are counted: it is watched until `remove` was called as often. `seen`: its fingerprint when it was read.
   */
  add(path: string, seen: string): void {
    const known = this.#files.get(path) ?? { uses: 0, seen };
    this.#files.set(path, known);
    known.uses++;
    // Readers that have different contents: what the next look finds is news to one of them.
    if (known.seen !== seen) known.seen = "";
    else if (known.uses > 1) return;
    this.#post({ type: "watch_file", path, seen: known.seen });
  }

  remove(path: string): void {
    const known = this.#files.get(path);
    if (known === undefined || --known.uses > 0) return;
    this.#files.delete(path);
    this.#post({ type: "unwatch_file", path });
  }

  /** The isolate has ended. */
  stop(): void {
    for (const path of this.#files.keys()) this.#post({ type: "unwatch_file", path });
    this.#files.clear();
  }

  /** What a look has found; some of it is for other threads only, or is what this one has. */
  onFound(found: readonly FoundFile[]): void {
    const changed = found.filter(({ path, seen }) => {
      const known = this.#files.get(path);
      return known !== undefined && known.seen !== seen;
    });
    this.#served.find(changed);
    for (const { path, seen } of changed) this.#files.get(path)!.seen = seen;
    for (const { path } of changed) if (this.#files.has(path)) this.#onChanged(path);
  }
}
