/**
 * What a start of the front proxy example costs: from the spawn of the command until the first answer, CPU of all its processes, and
 * their memory at rest.
 *
 *   node test/bench/start.ts [--starts 5] [--program /path/to/node_modules/.bin/tsproxy] [--rest seconds] [--load seconds] [--config FILE] [--workers 1]
 *
 * The program of the npm package is what users run; without one, the checkout's. A start before those that are measured leaves compiled
 * code on disk, as any does that serves for some seconds; without it they take 100 ms more. `--load`: wrk asks with 64 connections before that
 * rest. ENVOY=/path/to/envoy takes part in turn. Bars: 400 ms to the first answer where Envoy takes 64; at rest after a load 130 MiB
 * for the proxy's process, 200 MiB for all of them, 20 MiB more for each further worker.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";

const ROOT = path.join(import.meta.dirname, "../..");
const PORT = 21_700;
const POLL_MS = 2;
/** After so long its threads have kept what V8 has made of their code (core/compiled-code.ts). */
const KEPT_MS = 5_000;
/** Ticks a second of /proc/PID/stat. */
const TICKS = 100;

const { values } = parseArgs({
  options: {
    starts: { type: "string", default: "5" },
    program: { type: "string" },
    rest: { type: "string", default: "0" },
    load: { type: "string", default: "0" },
    config: { type: "string", default: path.join(ROOT, "examples/front-proxy/front-envoy.yaml") },
    workers: { type: "string", default: "1" },
  },
});
const command = values.program
  ? [values.program]
  : [process.execPath, path.join(ROOT, "core/bin/tsproxy.js")];

const service = http.createServer((_request, response) => response.end("served"));
await new Promise<void>((resolve) => service.listen(0, "127.0.0.1", resolve));
const { port } = service.address() as AddressInfo;
const folder = mkdtempSync(path.join(os.tmpdir(), "tsproxy-bench-"));
const file = path.join(folder, "front.yaml");
const text = readFileSync(values.config, "utf8")
  .replace(/\b818[12]\b/g, `${port}`)
  .replace(/\b8000\b/, `${PORT}`)
  .replace(/\b8001\b/, `${PORT + 1}`);
writeFileSync(file, text);

const own = { run: [...command, "run", "-c", file], walls: [] as number[], cpus: [] as number[] };
const { ENVOY: envoy } = process.env;
const other =
  envoy === undefined
    ? undefined
    : {
        run: [envoy, "--use-dynamic-base-id", "-c", file],
        walls: [] as number[],
        cpus: [] as number[],
      };
await start({ ...own, walls: [], cpus: [] }, () => delay(KEPT_MS));
const starts = Number(values.starts);
for (let k = 0; k < starts; k++) {
  await start(own, k === starts - 1 && Number(values.rest) > 0 ? rest : undefined);
  if (other !== undefined) await start(other);
}
const first = median(own.walls);
console.log(`first answer after ${first} ms (least ${least(own.walls)})`);
console.log(`CPU until then ${median(own.cpus)} ms (least ${least(own.cpus)})`);
if (other !== undefined) {
  const theirs = median(other.walls);
  console.log(
    `Envoy: ${theirs} ms (least ${least(other.walls)}); we take ${(first / theirs).toFixed(1)} times that`,
  );
}
process.exit(0);

/** Starts a proxy, waits for its first answer, and ends it after `meanwhile`, which gets its process id. */
async function start(
  { run, walls, cpus }: typeof own,
  meanwhile?: (pid: number) => Promise<void>,
): Promise<void> {
  const begun = performance.now();
  const [program, ...args] = [...run, "--concurrency", values.workers];
  const child = spawn(program!, args, { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (part: string) => {
    said += part;
  });
  const ended = new Promise((resolve) => child.on("close", resolve));
  while (!(await asks())) {
    if (child.exitCode !== null) throw new Error(`it ended:\n${said}`);
    await delay(POLL_MS);
  }
  walls.push(performance.now() - begun);
  cpus.push(tree(child.pid!).reduce((sum, { cpuMs }) => sum + cpuMs, 0));
  await meanwhile?.(child.pid!);
  child.kill("SIGTERM");
  await ended;
}

/** Tells the memory of its processes after a load and a rest. */
async function rest(pid: number): Promise<void> {
  if (Number(values.load) > 0) await ask(Number(values.load));
  await delay(Number(values.rest) * 1000);
  const processes = tree(pid);
  for (const { name, mib } of processes) console.log(`${name}: ${mib.toFixed(0)} MiB`);
  const all = processes.reduce((sum, { mib }) => sum + mib, 0);
  console.log(`all: ${all.toFixed(0)} MiB`);
}

async function ask(seconds: number): Promise<void> {
  const url = `http://127.0.0.1:${PORT}/service/1`;
  const wrk = spawn("wrk", ["-t1", "-c64", `-d${seconds}s`, url], { stdio: "ignore" });
  await once(wrk, "close");
}

/** True: answered. */
function asks(): Promise<boolean> {
  return new Promise((resolve) => {
    const request = http.get({ port: PORT, path: "/service/1", agent: false }, (response) => {
      response.resume().on("end", () => resolve(response.statusCode === 200));
    });
    request.on("error", () => resolve(false));
  });
}

function least(numbers: readonly number[]): number {
  return Math.round(Math.min(...numbers));
}

function median(numbers: readonly number[]): number {
  return Math.round([...numbers].sort((a, b) => a - b)[numbers.length >> 1]!);
}

interface Process {
  readonly name: string;
  readonly cpuMs: number;
  /** Of its resident pages, those of mapped files included. */
  readonly mib: number;
}

/** A process and all below it. What has ended in between counts for its parent. */
function tree(root: number): Process[] {
  const all = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const known = new Map(all.flatMap((pid) => statOf(Number(pid)) ?? []).map((s) => [s.pid, s]));
  const isBelow = (pid: number): boolean =>
    pid === root || (known.has(pid) && isBelow(known.get(pid)!.parent));
  return [...known.values()].filter(({ pid }) => isBelow(pid));
}

function statOf(pid: number): (Process & { pid: number; parent: number }) | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const cpuMs = [11, 12, 13, 14].reduce((sum, k) => sum + Number(fields[k]), 0) * (1000 / TICKS);
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const mib = Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024;
    const name = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, 12).join(" ");
    return { pid, parent: Number(fields[1]), cpuMs, mib, name: `${pid} ${name.slice(-90)}` };
  } catch {
    return undefined;
  }
}
