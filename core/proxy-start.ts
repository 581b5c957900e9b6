import { type ChildProcess, fork, type StdioOptions } from "node:child_process";
import { fileURLToPath } from "node:url";
import { ownModule } from "./own-files.ts";

/**
 * Settings of glibc's malloc. By default it makes up to eight heaps per core for threads, mostly free memory (12 MiB with one
 * worker) since V8 allocates little there. And once a large block is freed, later ones of that size, such as rings, come from
 * these heaps too, which give nothing back (14 MiB).
 */
const ALLOCATOR = { MALLOC_ARENA_MAX: "2", MALLOC_MMAP_THRESHOLD_: "262144" } as const;

/** Starts a process of the proxy (boot.ts), or the program `main` in its place. */
export function startProcess(options: {
  readonly main?: string | undefined;
  readonly args: readonly string[];
  readonly execPath: string;
  readonly execArgv: readonly string[];
  readonly stdio?: StdioOptions;
}): ChildProcess {
  const { main = fileURLToPath(ownModule("boot")), args, execPath, execArgv } = options;
  return fork(main, [...args], {
    execPath,
    execArgv: [...execArgv],
    env: { ...ALLOCATOR, ...process.env },
    stdio: options.stdio ?? ["inherit", "inherit", "inherit", "ipc"],
  });
}

/**
 * Starts a process that waits for its arguments. It takes 100 ms until it needs them; the launcher (bin/tsproxy.js) loads the
 * supervisor and reads the command line meanwhile.
 */
export function startEarly(execPath: string, execArgv: readonly string[]): ChildProcess {
  const child = startProcess({ args: [], execPath, execArgv });
  // If it cannot be started, the supervisor finds that out when it starts another one.
  child.on("error", () => {});
  return child;
}

/** True if that process runs. */
export function isRunning(child: ChildProcess | undefined): child is ChildProcess {
  return child?.pid !== undefined && child.exitCode === null && child.signalCode === null;
}
