import path from "node:path";
import { fileURLToPath } from "node:url";
import { startVitest } from "vitest/node";
import { isPacked, ROOT } from "./own-files.ts";

export interface FilterTestOptions {
  /** The directory that packages lie in. */
  readonly dir: string;
  /** Only test files whose path has one of these; none: all. */
  readonly names: readonly string[];
  readonly watch: boolean;
}

/** Runs the tests beside filters. They need nothing installed: `@tsproxy/sdk`, its testing kit and vitest are those of the proxy. */
export async function filterTest({ dir, names, watch }: FilterTestOptions): Promise<number> {
  const vitest = await startVitest(
    "test",
    [...names],
    {
      config: false,
      root: process.cwd(),
      dir: path.resolve(dir),
      watch,
      pool: "forks",
      // The flags of the proxy's own Node, so that regular expressions mean the same.
      execArgv: process.execArgv,
    },
    { resolve: { alias: aliases() } },
  );
  if (watch) await new Promise<void>((resolve) => vitest.onClose(resolve));
  else await vitest.close();
  return Number(process.exitCode ?? 0);
}

function aliases(): { find: RegExp; replacement: string }[] {
  const sdk = isPacked ? path.join(ROOT, "dist", "sdk") : path.join(ROOT, "sdk");
  const file = isPacked ? "index.js" : "index.ts";
  return [
    { find: /^@tsproxy\/sdk\/testing$/, replacement: path.join(sdk, "testing", file) },
    { find: /^@tsproxy\/sdk$/, replacement: path.join(sdk, file) },
    { find: /^vitest$/, replacement: fileURLToPath(import.meta.resolve("vitest")) },
  ];
}
