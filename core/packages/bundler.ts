type Esbuild = typeof import("esbuild");

/** esbuild runs in a process of its own, which is stopped so long after the last build has ended. */
export const IDLE_MS = 60_000;
let idle: NodeJS.Timeout | undefined;
let esbuild: Esbuild | undefined;
let builds = 0;

/** Lends esbuild for one build. Its process stays for as long as that takes, which on a busy machine may be longer than IDLE_MS. */
export async function withBundler<T>(build: (esbuild: Esbuild) => Promise<T>): Promise<T> {
  builds++;
  clearTimeout(idle);
  try {
    // Imported with the first build: the npm package starts without building anything.
    esbuild ??= await import("esbuild");
    return await build(esbuild);
  } finally {
    if (--builds === 0) idle = setTimeout(stopBundler, IDLE_MS).unref();
  }
}

/** Ends its process now, if it runs: while it builds, the end of this process would make it print its stacks. */
export function stopBundler(): void {
  clearTimeout(idle);
  void esbuild?.stop();
}
