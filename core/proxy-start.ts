import { type ChildProcess, fork, type StdioOptions } from "node:child_process";
import { fileURLToPath } from "node:url";
import { ownModule } from "./own-files.ts";

/**
 * Settings of glibc's malloc. By default it makes up to eight heaps per core for threads, mostly free memory (12 MiB with one
 * worker) since V8 allocates little there. And once a large block is freed, later ones of that size, such as rings, come from
 * these heaps too, which give nothing back (14 MiB). A limit of 128 KiB saves 1 to 2 MiB over one of 256, and is above the 64 KiB
 * that TLS sockets take for each read.
 */
const ALLOCATOR = { MALLOC_ARENA_MAX: "2", MALLOC_MMAP_THRESHOLD_: "131072" } as const;
/**
 * Of Go's collector, for esbuild, which a process starts as its child: a build of the router takes 22 ms of CPU with it and 28
 * without. The 40 MiB that this costs are given back after a minute without a build.
 */
const COLLECTOR = { GOGC: "400" } as const;

/** Starts a process of the program `main`, or, without it, of the proxy (boot.ts), with a channel for messages. */
export function startProcess(options: {
  readonly main?: string | undefined;
  readonly args: readonly string[];
  readonly execPath: string;
  readonly execArgv: readonly string[];
  readonly stdio?: StdioOptions;
  /** Of messages. Absent: JSON. */
  readonly serialization?: "advanced";
}): ChildProcess {
  const {
    main = fileURLToPath(ownModule("boot")),
    args,
    execPath,
    execArgv,
    serialization = "json",
  } = options;
  return fork(main, [...args], {
    execPath,
    execArgv: [...execArgv],
    serialization,
    env: { ...ALLOCATOR, ...COLLECTOR, ...process.env },
    stdio: options.stdio ?? ["inherit", "inherit", "inherit", "ipc"],
  });
}

/**
 * Starts a process of the proxy that waits for its arguments (`ownOptions`). It needs 100 ms before it can use them; meanwhile
 * the launcher (bin/tsproxy.js) loads the supervisor and reads the command line.
 */
export function startEarly(execPath: string, execArgv: readonly string[]): ChildProcess {
  const child = startProcess({ args: [], execPath, execArgv });
  // If this fails, the supervisor starts another process, and reports it if that fails too.
  child.on("error", () => {});
  return child;
}

/** True if that process runs. */
export function isRunning(child: ChildProcess | undefined): child is ChildProcess {
  return child?.pid !== undefined && child.exitCode === null && child.signalCode === null;
}
