import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** In a checkout core is TypeScript, which Node reads as it stands; in the npm package it is JavaScript (pack.ts). */
export const isPacked = !import.meta.url.endsWith(".ts");

/** The npm package, or the checkout. */
export const ROOT = fileURLToPath(new URL(isPacked ? "../.." : "..", import.meta.url));

/** A module of core that is started by its file: a process, a thread. */
export function ownModule(name: string): URL {
  return new URL(`./${name}.${isPacked ? "js" : "ts"}`, import.meta.url);
}

/** isolated-vm. The npm package carries its binaries: installing it needs neither a compiler nor anybody's scripts. */
export function isolatedVm(): unknown {
  const require = createRequire(import.meta.url);
  if (!isPacked) return require("isolated-vm");
  const { platform, arch, versions } = process;
  const libc = existsSync("/etc/alpine-release") ? ".musl" : ".glibc";
  const file = `isolated-vm.abi${versions.modules}${platform === "linux" ? libc : ""}.node`;
  const addon = path.join(ROOT, "dist", "isolated-vm", `${platform}-${arch}`, file);
  return (require(addon) as { ivm: unknown }).ivm;
}
