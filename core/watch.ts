import { type FSWatcher, lstatSync, readlinkSync, statSync, watch } from "node:fs";
import path from "node:path";

/** Names in a directory whose changes count; undefined: all, but for what editors and logs leave beside sources. */
export type Interest = ReadonlySet<string> | undefined;

/**
 * Tells that something changed in a directory, never what: its listener reads again and compares bytes. That makes every kind
 * of saving the same (in place, rename over, unlink and create, a swapped link), and it does not matter which events a
 * platform joins or drops.
 */
export class Watch {
  readonly #onEvent: (directory: string) => void;
  readonly #onTrouble: (directory: string, code: string) => void;
  readonly #watching = new Map<string, { readonly watcher: FSWatcher; readonly inode: number }>();
  #wanted: ReadonlyMap<string, Interest> = new Map();

  /** `onTrouble`: the system has no more watches (ENOSPC, EMFILE); what changes there goes unseen. */
  constructor(
    onEvent: (directory: string) => void,
    onTrouble: (directory: string, code: string) => void = () => {},
  ) {
    this.#onEvent = onEvent;
    this.#onTrouble = onTrouble;
  }

  /** Watches these directories and no others. */
  set(directories: ReadonlyMap<string, Interest>): void {
    this.#wanted = directories;
    this.refresh();
  }

  /** A directory that was moved away or deleted is watched again where it should be; until it is back, what is above it. */
  refresh(): void {
    const directories = new Set([...this.#wanted.keys()].map(nearestDirectory));
    for (const [directory, { watcher, inode }] of this.#watching) {
      if (directories.has(directory) && inodeOf(directory) === inode) continue;
      watcher.close();
      this.#watching.delete(directory);
    }
    for (const directory of directories) if (!this.#watching.has(directory)) this.#open(directory);
  }

  close(): void {
    for (const { watcher } of this.#watching.values()) watcher.close();
    this.#watching.clear();
    this.#wanted = new Map();
  }

  #open(directory: string): void {
    try {
      const watcher = watch(directory, (_event, name) => {
        const interest = this.#wanted.get(directory);
        // A directory's own name tells of its end.
        const counts = interest?.has(name ?? "") ?? !isNoise(name ?? "");
        if (counts || name === null || name === path.basename(directory)) this.#onEvent(directory);
      });
      watcher.on("error", () => this.#lost(directory, watcher));
      this.#watching.set(directory, { watcher, inode: inodeOf(directory) });
    } catch (error) {
      // Gone between the look and the watch, or no watches left: the next refresh tries again.
      const { code = "" } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT") this.#onTrouble(directory, code);
    }
  }

  #lost(directory: string, watcher: FSWatcher): void {
    watcher.close();
    if (this.#watching.get(directory)?.watcher === watcher) this.#watching.delete(directory);
    this.#onEvent(directory);
  }
}

/**
 * Where a change of this file can show, and under what name: in its own directory, and in that of every symbolic link on the
 * way, since a link may be swapped (Kubernetes swaps `..data`).
 */
export function placesOf(file: string): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  const add = (at: string) => {
    const names = found.get(path.dirname(at)) ?? new Set();
    found.set(path.dirname(at), names.add(path.basename(at)));
  };
  let current = path.resolve(file);
  // As many links as Linux follows.
  for (let links = 0; links < 40; links++) {
    const link = firstLink(current);
    if (link === undefined) break;
    add(link.at);
    current = path.resolve(path.dirname(link.at), link.target, link.rest);
  }
  add(current);
  return found;
}

function firstLink(file: string): { at: string; target: string; rest: string } | undefined {
  const parts = file.split(path.sep);
  for (let n = 2; n <= parts.length; n++) {
    const at = parts.slice(0, n).join(path.sep);
    try {
      if (lstatSync(at).isSymbolicLink())
        return { at, target: readlinkSync(at), rest: parts.slice(n).join(path.sep) };
    } catch {
      return undefined;
    }
  }
  return undefined;
}

/** Logs, swap files and backups that live beside sources. */
function isNoise(name: string): boolean {
  return /\.(log|sw[a-z]|tmp)$|~$/.test(name);
}

function nearestDirectory(directory: string): string {
  let current = path.resolve(directory);
  while (inodeOf(current) === -1) {
    const parent = path.dirname(current);
    if (parent === current) break;
    current = parent;
  }
  return current;
}

/** -1: no such directory. */
function inodeOf(directory: string): number {
  const found = statSync(directory, { throwIfNoEntry: false });
  return found?.isDirectory() ? found.ino : -1;
}

/** The times after the last event at which all is looked at again. The last look is the one that may report. */
const LOOK_AGAIN_MS = 60;
const LAST_LOOK_MS = 250;
/** Where something is saved all the time, the last look comes this long after the first event all the same. */
const LAST_LOOK_AT_MOST_MS = 2_000;
/** A folder in which much happens is not looked at more often than this. */
const BETWEEN_LOOKS_MS = 5;

/**
 * When to look. At once at an event; again 60 and 250 ms after the last one, because a file may still be in the middle of
 * being written, and events that follow closely may be lost. One look at a time; events during a look make another.
 */
export class Looks {
  readonly #look: (directories: ReadonlySet<string>, last: boolean) => Promise<void>;
  readonly #touched = new Set<string>();
  #timers: NodeJS.Timeout[] = [];
  #firstEvent: number | undefined;
  #running: Promise<void> | undefined;
  #due = false;
  #lastDue = false;

  /** `look` must not reject. It gets all directories that had an event since the last final look. */
  constructor(look: (directories: ReadonlySet<string>, last: boolean) => Promise<void>) {
    this.#look = look;
  }

  event(directory: string): void {
    this.#touched.add(directory);
    this.#clear();
    const now = performance.now();
    this.#firstEvent ??= now;
    const last = Math.min(LAST_LOOK_MS, Math.max(0, this.#firstEvent + LAST_LOOK_AT_MOST_MS - now));
    this.#timers = [
      setTimeout(() => this.#want(false), LOOK_AGAIN_MS),
      setTimeout(() => this.#want(true), last),
    ];
    this.#want(false);
  }

  /** One look more, for what could not be judged yet by the look that is running. */
  again(ms: number, last: boolean): void {
    this.#timers.push(setTimeout(() => this.#want(last), ms));
  }

  /** Settles when no look is running. */
  async close(): Promise<void> {
    this.#clear();
    this.#due = this.#lastDue = false;
    await this.#running;
  }

  #want(last: boolean): void {
    this.#due = true;
    if (last) this.#lastDue = true;
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    while (this.#due) {
      const last = this.#lastDue;
      this.#due = this.#lastDue = false;
      const directories = new Set(this.#touched);
      if (last) {
        this.#touched.clear();
        this.#firstEvent = undefined;
      }
      await this.#look(directories, last);
      await new Promise((resolve) => setTimeout(resolve, BETWEEN_LOOKS_MS));
    }
    this.#running = undefined;
  }

  #clear(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = [];
  }
}
