import { closeSync, openSync, readFileSync } from "node:fs";

/**
 * Files that a process of the proxy may have open before its first connection. Once it serves there are 41 with one worker, 101 with
 * eight and 173 with sixteen; but while modules load, Node opens many of their files at a time, and it cannot go on without one.
 */
const FILES = { toStart: 128, aWorker: 10 } as const;

/** Why that many workers cannot be started; undefined: they can. With too few files Node ends with a stack trace, or without a word. */
export function tooFewFiles(workers: number, most = openFiles()): string | undefined {
  const least = FILES.toStart + FILES.aWorker * workers;
  if (most >= least) return undefined;
  const threads = workers === 1 ? "one worker" : `${workers} workers`;
  return `only ${most} files may be open at a time, and a proxy with ${threads} needs ${least}, with two more for each request in progress; run: ulimit -n 65536 (systemd: LimitNOFILE=65536)`;
}

interface Says {
  error(message: string): void;
  info(message: string): void;
}

/**
 * Tells of connections that have taken all file descriptors, once, and of the end of that. libuv closes those that come then, as it
 * could not accept them, and tells nobody.
 */
export class RoomForFiles {
  readonly #log: Says;
  /** Read while that can be read. */
  readonly #most = openFiles();
  #isFull = false;

  constructor(log: Says) {
    this.#log = log;
  }

  /** Called every few seconds. */
  look(): void {
    const isFull = !canOpen();
    if (isFull === this.#isFull) return;
    this.#isFull = isFull;
    if (isFull)
      this.#log.error(
        `all ${this.#most} files that may be open are in use: new connections are closed unanswered; raise that (ulimit -n, systemd: LimitNOFILE), or limit connections by global_downstream_max_connections`,
      );
    else this.#log.info("files can be opened again: new connections are served");
  }
}

function canOpen(): boolean {
  try {
    closeSync(openSync("/dev/null", "r"));
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code !== "EMFILE" && code !== "ENFILE";
  }
}

/** How many files a process may have open, sockets included. Node has raised that to the hard limit. */
function openFiles(): number {
  try {
    const limits = readFileSync("/proc/self/limits", "utf8");
    return Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
