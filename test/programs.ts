import { spawnSync } from "node:child_process";

/** Whether a program that some tests need beside Node and npm is there; those tests are skipped without it. */
export const hasOpenssl = has("openssl", "version");
export const hasGit = has("git", "--version");

function has(program: string, ask: string): boolean {
  return spawnSync(program, [ask], { stdio: "ignore" }).status === 0;
}
