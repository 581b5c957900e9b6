#!/usr/bin/env node
// Plain JavaScript, so that any Node from 20 on can start it: finds a Node 24, which runs the TypeScript as it stands, and
// hands over. Where Node can (22.15), this process becomes the other one; elsewhere it waits and passes signals on.
import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

// Isolates need the first. Without the next two a loop that allocates escapes every limit: code that is replaced in the middle
// of a loop no longer checks for interrupts. Two give linear regexes. SIGUSR1 would open a debugger's port.
// The supervisor starts the proxy with its own execArgv, so this is the one list.
const FLAGS = [
  "--no-node-snapshot",
  "--no-maglev",
  "--no-use-osr",
  // Young garbage that stays in the cache: 8 % less CPU a request than with V8's own 16 MiB, and less memory (test/bench/cpu.ts http).
  "--max-semi-space-size=4",
  "--enable-experimental-regexp-engine",
  "--enable-experimental-regexp-engine-on-excessive-backtracks",
  "--disable-sigusr1",
  "--disable-warning=ExperimentalWarning",
];

const node = findNode();
if (node === undefined) {
  process.stderr.write("tsproxy needs Node 24; run: npm install node@24\n");
  process.exit(1);
}
const cli = fileURLToPath(new URL("../cli.ts", import.meta.url));
const args = [...FLAGS, cli, ...process.argv.slice(2)];
if (typeof process.execve === "function") {
  // Its warning of being experimental is nobody's concern here.
  process.emitWarning = () => {};
  process.execve(node, [node, ...args], process.env);
}
const child = spawn(node, args, { stdio: ["inherit", "inherit", "inherit", "ipc"] });
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"])
  process.on(signal, () => child.kill(signal));
child.on("error", (error) => {
  process.stderr.write(`cannot start ${node}: ${error.message}\n`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  if (signal === null) process.exit(code ?? 1);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
});

/** The Node of the npm package `node`, this one, or one in PATH: the first that is new enough. */
function findNode() {
  const installed = installedNode();
  if (installed !== undefined) return installed;
  if (Number(process.versions.node.split(".")[0]) >= 24) return process.execPath;
  const { status, stdout } = spawnSync("node", ["--version"], { encoding: "utf8" });
  return status === 0 && Number(/^v(\d+)/.exec(stdout)?.[1]) >= 24 ? "node" : undefined;
}

function installedNode() {
  try {
    const manifest = createRequire(import.meta.url).resolve("node/package.json");
    const name = process.platform === "win32" ? "node.exe" : "node";
    const file = path.join(path.dirname(manifest), "bin", name);
    return existsSync(file) ? file : undefined;
  } catch {
    return undefined;
  }
}
