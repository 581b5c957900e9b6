// Processes on one core each, and the CPU that they take.
import { type ChildProcess, spawn } from "node:child_process";
import fs from "node:fs";
import http2 from "node:http2";
import net from "node:net";
import path from "node:path";
import tls from "node:tls";
import { dir } from "./cpu-run.ts";

export const children = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  fs.rmSync(dir, { recursive: true, force: true });
});
export function run(core: number, argv: readonly string[]): ChildProcess {
  const log = fs.openSync(path.join(dir, "proc.log"), "a");
  const child = spawn("taskset", ["-c", String(core), ...argv], { stdio: ["ignore", log, log] });
  children.add(child);
  child.on("exit", () => children.delete(child));
  return child;
}
export const stopped = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    const timer = setTimeout(() => child.kill("SIGKILL"), 8000);
    child.on("exit", () => {
      clearTimeout(timer);
      resolve();
    });
    child.kill("SIGTERM");
  });

/** Nanoseconds on CPU of each thread of a process and its children, from schedstat. */
export function cpuOf(pid: number): ReadonlyMap<string, number> {
  const parents = new Map<number, number[]>();
  for (const entry of fs.readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = fs.readFileSync(`/proc/${entry}/stat`, "utf8");
      const parent = Number(stat.slice(stat.lastIndexOf(")") + 4).split(" ")[0]);
      parents.set(parent, [...(parents.get(parent) ?? []), Number(entry)]);
    } catch {}
  }
  const all = [pid];
  for (let k = 0; k < all.length; k++) all.push(...(parents.get(all[k]!) ?? []));
  const found = new Map<string, number>();
  for (const p of all) {
    try {
      for (const task of fs.readdirSync(`/proc/${p}/task`)) {
        const text = fs.readFileSync(`/proc/${p}/task/${task}/schedstat`, "utf8");
        found.set(task, Number(text.split(" ")[0]));
      }
    } catch {}
  }
  return found;
}

/** One that has ended in between, like the bundler's a minute after its last build, takes what it did with it: it counts nothing. */
export function cpuSince(before: ReadonlyMap<string, number>, pid: number): number {
  let sum = 0;
  for (const [task, now] of cpuOf(pid)) sum += now - (before.get(task) ?? 0);
  return sum;
}

/** HTTP/2 by prior knowledge answers. */
function answersHttp2(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    session.on("error", () => resolve(false));
    const stream = session.request({});
    stream.on("error", () => resolve(false));
    stream.on("response", (headers) => {
      resolve(headers[":status"] === 200);
      session.destroy();
    });
  });
}

export async function ready(port: number, speaksHttp2 = false, speaksTls = false): Promise<void> {
  for (let k = 0; k < 400; k++) {
    if (speaksHttp2 && (await answersHttp2(port))) return;
    const ok = await new Promise<boolean>((resolve) => {
      if (speaksHttp2) return resolve(false);
      const ask = () => s.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
      const at = { port, host: "127.0.0.1", rejectUnauthorized: false };
      const s: net.Socket = speaksTls ? tls.connect(at, ask) : net.connect(at, ask);
      let text = "";
      s.on("data", (d) => {
        text += d;
        if (text.includes(" 200 ")) s.destroy();
      });
      s.on("error", () => resolve(false));
      s.on("close", () => resolve(text.includes(" 200 ")));
      s.setTimeout(1000, () => s.destroy());
    });
    if (ok) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(
    `nothing answers on port ${port}: ${fs.readFileSync(path.join(dir, "proc.log"), "utf8").slice(-2000)}`,
  );
}
