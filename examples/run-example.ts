import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Paths in the configs count from here. */
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const CLI = fileURLToPath(new URL("../core/bin/tsproxy.js", import.meta.url));

export interface Example {
  readonly folder: string;
  /** A file of the folder. */
  readonly config: string;
  /** What stands behind the proxy, by the port that the config names. */
  readonly services: Readonly<Record<number, (port: number) => Promise<{ close(): unknown }>>>;
  /** What to try. `port` turns a port of the config into the one in use. */
  tell(port: (inConfig: number) => number): string;
}

/**
 * Starts the services of an example and the proxy in front of them, says what to try, and ends both on Ctrl-C. With
 * `--free-ports` it runs on a copy of the folder in which every port is a free one.
 */
export async function runExample(example: Example): Promise<void> {
  const isCopy = process.argv.includes("--free-ports");
  const { folder, ports } = isCopy
    ? await copyWithFreePorts(example)
    : { ...example, ports: new Map() };
  const port = (inConfig: number): number => ports.get(inConfig) ?? inConfig;
  const services = await Promise.all(
    Object.entries(example.services).map(([inConfig, start]) => start(port(Number(inConfig)))),
  );
  const config = path.join(folder, example.config);
  const proxy = spawn(process.execPath, [CLI, "run", "-c", config], {
    stdio: "inherit",
    cwd: ROOT,
  });
  const ended = once(proxy, "exit");
  // On a terminal the proxy hears Ctrl-C as we do; it ignores hearing of it twice.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => proxy.kill(signal));
  const isReady = await ready(await adminPort(config), ended);
  if (isReady) console.log(example.tell(port));
  const [code] = await ended;
  for (const service of services) service.close();
  if (isCopy) await rm(folder, { recursive: true });
  process.exit(code ?? 1);
}

/** False: the proxy has ended instead. */
async function ready(admin: number, ended: Promise<unknown>): Promise<boolean> {
  let isOver = false;
  void ended.then(() => (isOver = true));
  while (!isOver) {
    if ((await statusOf(`http://127.0.0.1:${admin}/ready`)) === 200) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

/** Undefined: nobody answers. */
function statusOf(url: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    // A connection of its own, closed with the answer: one that is kept would hold the proxy's end up.
    const request = http.get(url, { agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on("error", () => resolve(undefined));
  });
}

const PORT = /port_value: (\d+)/g;

async function adminPort(config: string): Promise<number> {
  const text = await readFile(config, "utf8");
  return Number([...text.slice(text.search(/^admin:/m)).matchAll(PORT)][0]![1]);
}

async function copyWithFreePorts({ folder: from, config }: Example) {
  const folder = await mkdtemp(path.join(os.tmpdir(), "tsproxy-example-"));
  await cp(from, folder, { recursive: true });
  const file = path.join(folder, config);
  const text = await readFile(file, "utf8");
  const ports = new Map<number, number>();
  for (const [, port] of text.matchAll(PORT)) ports.set(Number(port), await freePort());
  const replace = (_: string, port: string) => `port_value: ${ports.get(Number(port))}`;
  await writeFile(file, text.replaceAll(PORT, replace));
  return { folder, ports };
}

/** Below the range that systems give to clients, so that none takes it before we do. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 18_000);
    const server = net.createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.on("error", () => resolve(false));
      server.listen(port, () => server.close(() => resolve(true)));
    });
    if (isFree) return port;
  }
}
