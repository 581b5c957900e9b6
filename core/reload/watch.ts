import { type FSWatcher, lstatSync, readdirSync, readlinkSync, statSync, watch } from "node:fs";
import path from "node:path";
import { shortPath } from "../problem.ts";

/** The names in a directory whose changes count. Undefined: all except logs, backups and swap files. */
export type Interest = ReadonlySet<string> | undefined;

/** How often directories are looked at that are not watched, in milliseconds. */
const POLL_MS = 2_000;
/**
 * A directory with this many events in POLL_MS that do not matter is looked at instead. Each takes 5 µs of CPU, a look as much as
 * thousands of them.
 */
const MANY_EVENTS = 10_000;

/** Directories that cannot be watched, and why (ENOSPC, EMFILE). */
export interface Unwatched {
  readonly directories: readonly string[];
  readonly code: string;
}

const UNWATCHED_HELP: Readonly<Record<string, string>> = {
  ENOSPC: "raise fs.inotify.max_user_watches",
  EMFILE: "raise fs.inotify.max_user_instances, or the files that may be open (ulimit -n)",
  EACCES: "permission denied; let its user read them",
};

export function unwatchedMessage({ directories, code }: Unwatched): string {
  const [first = "", ...others] = directories.map(shortPath);
  const which = others.length === 0 ? first : `${first} and ${others.length} other folders`;
  const help = UNWATCHED_HELP[code] ?? "send SIGHUP after an edit that cannot wait";
  return `cannot watch ${which} (${code}), so edits there are looked for every ${POLL_MS / 1000} s; ${help}`;
}

/**
 * Reports that something changed in a directory, never what: the listener reads the files again and compares bytes. So all kinds of
 * saving work alike (in place, rename over, unlink and create, a swapped link), whatever events a platform merges or drops. Where
 * the system has no more watches, names, sizes and times are compared every POLL_MS, until it has; where too much happens that does
 * not matter, until the next time.
 */
export class Watch {
  readonly #onEvent: (directory: string) => void;
  readonly #onTrouble: (unwatched: Unwatched | undefined) => void;
  readonly #watching = new Map<string, { readonly watcher: FSWatcher; readonly inode: number }>();
  /** Directories in which too much happens that does not matter. */
  readonly #busy = new Set<string>();
  #wanted: ReadonlyMap<string, Interest> = new Map();
  /** The same for directories that are there: the parent of a missing one counts its name. */
  #interests: ReadonlyMap<string, Interest> = new Map();

  /** Directories without a watch, as they were looked at last. */
  readonly #polled = new Map<string, string>();
  #poll: NodeJS.Timeout | undefined;
  /** Why the last attempt to watch a directory failed. */
  #code = "";
  #isTroubled = false;

  /** `onTrouble`: the system has no watches for these directories; undefined: now it has for all. */
  constructor(
    onEvent: (directory: string) => void,
    onTrouble: (unwatched: Unwatched | undefined) => void = () => {},
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
    const missing = [...this.#interests.keys()].filter(
      (at) => !this.#watching.has(at) && !this.#busy.has(at),
    );
    const opened = missing.filter((directory) => this.#open(directory));
    const changed = opened.filter((directory) => this.#hasChanged(directory));
    this.#pollUnwatched();
    const isGone = missing.some((at) => !this.#watching.has(at) && inodeOf(at) === -1);
    if (opened.length === 0 && !isGone) return;
    // A missing directory may have come back before its parent was watched; of one that has just gone, the parent has to count the name.
    this.refresh();
    for (const directory of changed) this.#onEvent(directory);
  }

  close(): void {
    for (const { watcher } of this.#watching.values()) watcher.close();
    this.#watching.clear();
    clearInterval(this.#poll);
    this.#busy.clear();
    this.#wanted = this.#interests = new Map();
  }

  #open(directory: string): boolean {
    let others = 0;
    let since = performance.now();
    try {
      const watcher = watch(directory, (event, name) => {
        // The directory itself was moved or deleted: this watch ends, even if another one gets its path and inode.
        if (event === "rename" && name === path.basename(directory))
          return this.#lost(directory, watcher);
        const interest = this.#interests.get(directory);
        const counts = interest?.has(name ?? "") ?? !isNoise(name ?? "");
        if (counts || name === null) return this.#onEvent(directory);
        if (++others < MANY_EVENTS) return;
        const now = performance.now();
        if (now - since < POLL_MS) return this.#rest(directory, watcher);
        others = 0;
        since = now;
      });
      watcher.on("error", () => this.#lost(directory, watcher));
      this.#watching.set(directory, { watcher, inode: inodeOf(directory) });
      return true;
    } catch (error) {
      // The directory has gone, or there are no watches left: the next refresh tries again.
      this.#code = (error as NodeJS.ErrnoException).code ?? "";
      return false;
    }
  }

  /** Compares from now on what has no watch, and begins to tell, or to be silent, of that. */
  #pollUnwatched(): void {
    const unwatched = [...this.#interests.keys()].filter(
      (at) => !this.#watching.has(at) && inodeOf(at) !== -1,
    );
    for (const at of this.#polled.keys()) if (!unwatched.includes(at)) this.#polled.delete(at);
    for (const at of unwatched)
      if (!this.#polled.has(at)) this.#polled.set(at, stateOf(at, this.#interests.get(at)) ?? "");
    if (unwatched.length > 0 !== (this.#poll !== undefined)) {
      clearInterval(this.#poll);
      this.#poll = undefined;
      if (unwatched.length > 0) this.#poll = setInterval(() => this.#compare(), POLL_MS).unref();
    }
    const directories = unwatched.filter((at) => !this.#busy.has(at));
    if (directories.length > 0 === this.#isTroubled) return;
    this.#isTroubled = !this.#isTroubled;
    this.#onTrouble(this.#isTroubled ? { directories, code: this.#code } : undefined);
  }

  #compare(): void {
    this.#busy.clear();
    this.refresh();
    for (const directory of [...this.#polled.keys()])
      if (this.#hasChanged(directory)) this.#onEvent(directory);
  }

  /** Since it was looked at last; it never was: true. */
  #hasChanged(directory: string): boolean {
    const before = this.#polled.get(directory);
    const now = stateOf(directory, this.#interests.get(directory)) ?? before;
    if (before !== undefined) this.#polled.set(directory, now!);
    return before === undefined || now !== before;
  }

  /** Events that wait behind those that do not matter are lost: it counts as changed. */
  #rest(directory: string, watcher: FSWatcher): void {
    watcher.close();
    if (this.#watching.get(directory)?.watcher !== watcher) return;
    this.#watching.delete(directory);
    this.#busy.add(directory);
    this.#pollUnwatched();
    this.#onEvent(directory);
  }

  #lost(directory: string, watcher: FSWatcher): void {
    watcher.close();
    if (this.#watching.get(directory)?.watcher !== watcher) return;
    this.#watching.delete(directory);
    this.#onEvent(directory);
  }
}

/** Which of the names in a directory that count are there, and since when; undefined: it cannot be read now. */
function stateOf(directory: string, interest: Interest): string | undefined {
  try {
    const names = interest ?? readdirSync(directory).filter((name) => !isNoise(name));
    return [...names]
      .map((name) => {
        const found = lstatSync(path.join(directory, name), {
          bigint: true,
          throwIfNoEntry: false,
        });
        return found === undefined ? name : `${name} ${found.ino} ${found.mtimeNs} ${found.size}`;
      })
      .join("\n");
  } catch {
    return undefined;
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
