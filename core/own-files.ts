import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { restoreHeapSizes } from "./isolate-flags.ts";

/** True in the npm package, where core is JavaScript (pack.ts). In a checkout Node runs the TypeScript itself. */
export const isPacked = !import.meta.url.endsWith(".ts");

/** The folder of the npm package, or of the checkout. */
export const ROOT = fileURLToPath(new URL(isPacked ? "../.." : "..", import.meta.url));

/** The folder of core: its rooms in a checkout, its bundled programs in the npm package. */
export const CORE = fileURLToPath(new URL(".", import.meta.url));

/** The URL of a module of core that is started as a process or a thread. */
export function ownModule(name: string): URL {
  return new URL(`./${name}.${isPacked ? "js" : "ts"}`, import.meta.url);
}

/**
 * Loads isolated-vm, whose isolates need flags (isolate-flags.ts). The npm package brings its binaries, so that its installation needs
 * no compiler and no install scripts.
 */
export function isolatedVm(): unknown {
  const loaded = loadIsolatedVm();
  restoreHeapSizes();
  return loaded;
}

function loadIsolatedVm(): unknown {
  const require = createRequire(import.meta.url);
  if (!isPacked) return require("isolated-vm");
  const { platform, arch, versions } = process;
  const libc = existsSync("/etc/alpine-release") ? ".musl" : ".glibc";
  const file = `isolated-vm.abi${versions.modules}${platform === "linux" ? libc : ""}.node`;
  const addon = path.join(ROOT, "dist", "isolated-vm", `${platform}-${arch}`, file);
  return (require(addon) as { ivm: unknown }).ivm;
}
