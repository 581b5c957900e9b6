import { readFile, stat } from "node:fs/promises";
import type { FoundFile } from "./protocol.ts";
import { fingerprintOf, MAX_BYTES } from "./served-files.ts";

/** Milliseconds between two looks at the watched files. */
const LOOK_MS = 1_000;

interface Watched<Watcher> {
  readonly watchers: Set<Watcher>;
  /** "": some watcher has other contents than the rest. */
  seen: string;
}

/**
 * Main looks at the files that any thread watches, once a second, and reads for all of them: however often a file changes, they go
 * through the same contents. This also notices changes behind a chain of links (as Kubernetes mounts secrets), and a file that appears
 * later. What one look has found is told together: a certificate and its key.
 */
export class FileLook<Watcher> {
  readonly #files = new Map<string, Watched<Watcher>>();
  readonly #onFound: (files: readonly FoundFile[]) => void;
  readonly #timer: NodeJS.Timeout;
  #looking = false;

  constructor(onFound: (files: readonly FoundFile[]) => void) {
    this.#onFound = onFound;
    this.#timer = setInterval(() => void this.look(), LOOK_MS);
    this.#timer.unref();
  }

  /** `seen`: the fingerprint of what the watcher has. */
  watch(watcher: Watcher, path: string, seen: string): void {
    const known = this.#files.get(path);
    if (known === undefined) {
      this.#files.set(path, { watchers: new Set([watcher]), seen });
      return;
    }
    known.watchers.add(watcher);
    if (known.seen !== seen) known.seen = "";
  }

  unwatch(watcher: Watcher, path: string): void {
    const known = this.#files.get(path);
    if (known?.watchers.delete(watcher) && known.watchers.size === 0) this.#files.delete(path);
  }

  /** The watcher has ended. */
  forget(watcher: Watcher): void {
    for (const path of [...this.#files.keys()]) this.unwatch(watcher, path);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#files.clear();
  }

  async look(): Promise<void> {
    if (this.#looking || this.#files.size === 0) return;
    this.#looking = true;
    const found: FoundFile[] = [];
    for (const [path, file] of [...this.#files]) {
      const before = file.seen;
      const now = await readChanged(path, before);
      // Another watcher may have come meanwhile, with contents of its own.
      if (now === undefined || file.seen !== before) continue;
      file.seen = now.seen;
      found.push(now);
    }
    this.#looking = false;
    if (found.length > 0) this.#onFound(found);
  }
}

/** Undefined: there is none, it has not changed, or it does so while it is read. */
async function readChanged(path: string, seen: string): Promise<FoundFile | undefined> {
  const before = await statOf(path);
  if (before === undefined) return undefined;
  const found = fingerprintOf(before);
  if (found === seen) return undefined;
  if (!before.isFile() || before.size > MAX_BYTES) return { path, seen: found };
  const bytes = await readFile(path).catch(() => undefined);
  const after = await statOf(path);
  if (after === undefined || fingerprintOf(after) !== found) return undefined;
  return { path, seen: found, bytes };
}

function statOf(path: string) {
  return stat(path, { bigint: true }).catch(() => undefined);
}
