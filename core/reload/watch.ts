import { type FSWatcher, lstatSync, readlinkSync, statSync, watch } from "node:fs";
import path from "node:path";

/** The names in a directory whose changes count. Undefined: all except logs, backups and swap files. */
export type Interest = ReadonlySet<string> | undefined;

/**
 * Reports that something changed in a directory, never what: the listener reads the files again and compares bytes. So all kinds of
 * saving work alike (in place, rename over, unlink and create, a swapped link), whatever events a platform merges or drops.
 */
export class Watch {
  readonly #onEvent: (directory: string) => void;
  readonly #onTrouble: (directory: string, code: string) => void;
  readonly #watching = new Map<string, { readonly watcher: FSWatcher; readonly inode: number }>();
  #wanted: ReadonlyMap<string, Interest> = new Map();
  /** The same for directories that are there: the parent of a missing one counts its name. */
  #interests: ReadonlyMap<string, Interest> = new Map();

  /** `onTrouble`: the system has no more watches (ENOSPC, EMFILE), and changes in that directory are not seen. */
  constructor(
    onEvent: (directory: string) => void,
    onTrouble: (directory: string, code: string) => void = () => {},
  ) {
    this.#onEvent = onEvent;
    this.#onTrouble = onTrouble;
  }

  /** Watches exactly these directories from now on. One that was not watched until now counts as changed. */
  set(directories: ReadonlyMap<string, Interest>): void {
    this.#wanted = directories;
    this.refresh();
  }

  /** Watches a directory by its path: if it was moved away or deleted, its parent is watched until it is back. */
  refresh(): void {
    this.#interests = interestsOf(this.#wanted);
    for (const [directory, { watcher, inode }] of this.#watching) {
      if (this.#interests.has(directory) && inodeOf(directory) === inode) continue;
      watcher.close();
      this.#watching.delete(directory);
    }
    const opened = [...this.#interests.keys()].filter(
      (directory) => !this.#watching.has(directory) && this.#open(directory),
    );
    if (opened.length === 0) return;
    // A missing directory may have come back before its parent was watched.
    this.refresh();
    for (const directory of opened) this.#onEvent(directory);
  }

  close(): void {
    for (const { watcher } of this.#watching.values()) watcher.close();
    this.#watching.clear();
    this.#wanted = this.#interests = new Map();
  }

  #open(directory: string): boolean {
    try {
      const watcher = watch(directory, (event, name) => {
        // The directory itself was moved or deleted: this watch ends, even if another one gets its path and inode.
        if (event === "rename" && name === path.basename(directory))
          return this.#lost(directory, watcher);
        const interest = this.#interests.get(directory);
        const counts = interest?.has(name ?? "") ?? !isNoise(name ?? "");
        if (counts || name === null) this.#onEvent(directory);
      });
      watcher.on("error", () => this.#lost(directory, watcher));
      this.#watching.set(directory, { watcher, inode: inodeOf(directory) });
      return true;
    } catch (error) {
      // The directory has gone, or there are no watches left: the next refresh tries again.
      const { code = "" } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT") this.#onTrouble(directory, code);
      return false;
    }
  }

  #lost(directory: string, watcher: FSWatcher): void {
    watcher.close();
    if (this.#watching.get(directory)?.watcher !== watcher) return;
    this.#watching.delete(directory);
    this.#onEvent(directory);
  }
}

function interestsOf(wanted: ReadonlyMap<string, Interest>): Map<string, Interest> {
  const interests = new Map<string, Interest>();
  for (const [directory, interest] of wanted) {
    const at = nearestDirectory(directory);
    const [missing] = path.relative(at, directory).split(path.sep);
    const names = missing ? new Set([missing]) : interest;
    const others = interests.has(at) ? interests.get(at) : new Set<string>();
    interests.set(at, names && others && new Set([...names, ...others]));
  }
  return interests;
}

/**
 * The directories, and names in them, where a change of this file can show: its own, and that of every symbolic link on the way, since
 * a link may be swapped (Kubernetes swaps `..data`).
 */
export function placesOf(file: string): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  const add = (at: string) => {
    const names = found.get(path.dirname(at)) ?? new Set();
    found.set(path.dirname(at), names.add(path.basename(at)));
  };
  let current = path.resolve(file);
  // Linux follows as many links.
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

/** Matches names of logs, swap files and backups, which often live beside sources. */
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

/** The inode of a directory; -1: there is none. */
function inodeOf(directory: string): number {
  const found = statSync(directory, { throwIfNoEntry: false });
  return found?.isDirectory() ? found.ino : -1;
}

/** Milliseconds after the last event at which to look again. Only the last of these looks may report problems. */
const LOOK_AGAIN_MS = 60;
const LAST_LOOK_MS = 250;
/** With constant saves, the last look still comes this many milliseconds after the first event. */
const LAST_LOOK_AT_MOST_MS = 2_000;
/** Least milliseconds between two looks at a busy directory. */
const BETWEEN_LOOKS_MS = 5;

/**
 * Decides when to look: at once after an event, and again 60 and 250 ms after the last one, because a file may still be being written,
 * and events that follow each other closely may be lost. There is one look at a time; an event during it leads to another.
 */
export class Looks {
  readonly #look: (directories: ReadonlySet<string>, last: boolean) => Promise<void>;
  readonly #touched = new Set<string>();
  #timers: NodeJS.Timeout[] = [];
  /** The last look, when it is due. */
  #dueSoon: NodeJS.Immediate | undefined;
  #firstEvent: number | undefined;
  #running: Promise<void> | undefined;
  #due = false;
  #lastDue = false;

  /** `look` gets all directories with an event since the last final look. It must not reject. */
  constructor(look: (directories: ReadonlySet<string>, last: boolean) => Promise<void>) {
    this.#look = look;
  }

  event(directory: string): void {
    this.#touched.add(directory);
    this.#clear();
    const now = performance.now();
    this.#firstEvent ??= now;
    const last = Math.min(LAST_LOOK_MS, Math.max(0, this.#firstEvent + LAST_LOOK_AT_MOST_MS - now));
    // One that waits for the present look to end would judge too soon.
    if (last > 0) this.#lastDue = false;
    this.#timers = [
      setTimeout(() => this.#want(false), LOOK_AGAIN_MS),
      setTimeout(() => this.#wantLast(), last),
    ];
    this.#want(false);
  }

  /** Asks for another look, because the present one could not judge something yet. */
  again(ms: number, last: boolean): void {
    this.#timers.push(setTimeout(() => this.#want(last), ms));
  }

  /** Settles when no look is running. */
  async close(): Promise<void> {
    this.#clear();
    this.#due = this.#lastDue = false;
    await this.#running;
  }

  /**
   * After a turn that took long, timers come before events that were there first: those are heard before the last look, which judges.
   * Not for ever, though.
   */
  #wantLast(): void {
    const waitedMs = performance.now() - this.#firstEvent!;
    if (waitedMs >= LAST_LOOK_AT_MOST_MS) this.#want(true);
    else this.#dueSoon = setImmediate(() => this.#want(true));
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
    clearImmediate(this.#dueSoon);
  }
}
