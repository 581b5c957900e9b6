import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Paths in the configs count from here. */
const ROOT = fileURLToPath(new URL("..", import.meta.url));
const CHECKOUT = fileURLToPath(new URL("../core/bin/tsproxy.js", import.meta.url));
/** In a copy of this folder out of the package, the command of the package. */
const CLI = existsSync(CHECKOUT)
  ? CHECKOUT
  : fileURLToPath(new URL("dist/bin/tsproxy.js", import.meta.resolve("tsproxy/package.json")));

export interface Example {
  readonly folder: string;
  /** Files of the folder: a proxy runs for each. */
  readonly config: string | readonly string[];
  /** What stands behind the proxy, by the port that the config names. */
  readonly services: Services;
  /** With `--free-ports`: what stands in for the world outside, and the config that finds it. */
  readonly standIns?: {
    readonly services: Services;
    readonly edit: (text: string, folder: string) => string;
  };
  /** What to try. `port` turns a port of the config into the one in use. */
  tell(port: (inConfig: number) => number): string;
}

/** `folder`: where the config lies that runs. */
type Services = Readonly<
  Record<number, (port: number, folder: string) => Promise<{ close(): unknown }>>
>;

/**
 * Starts the services of an example and the proxies in front of them, says what to try, and ends all on Ctrl-C. With
 * `--free-ports` it runs on a copy of the folder in which every port is a free one, and a busy machine has time to connect.
 */
export async function runExample(example: Example): Promise<void> {
  const isCopy = process.argv.includes("--free-ports");
  const { folder, ports } = isCopy
    ? await copyWithFreePorts(example)
    : { ...example, ports: new Map() };
  const port = (inConfig: number): number => ports.get(inConfig) ?? inConfig;
  const services = await Promise.all(
    Object.entries({ ...example.services, ...(isCopy && example.standIns?.services) }).map(
      ([inConfig, start]) => start(port(Number(inConfig)), folder),
    ),
  );
  const configs = [example.config].flat().map((file) => path.join(folder, file));
  // Several share the machine.
  const threads = configs.length > 1 ? ["--concurrency", "1"] : [];
  const proxies = configs.map((config) =>
    spawn(process.execPath, [CLI, "run", "-c", config, ...threads], {
      stdio: "inherit",
      cwd: ROOT,
    }),
  );
  const stop = (signal: NodeJS.Signals) => {
    for (const proxy of proxies) proxy.kill(signal);
  };
  // On a terminal the proxies hear Ctrl-C as we do; they ignore hearing of it twice.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stop(signal));
  if (process.env.npm_execpath !== undefined) onParentGone(() => stop("SIGTERM"));
  const ends = proxies.map((proxy) => once(proxy, "exit"));
  const ready = await Promise.all(
    configs.map(async (config, k) => isReady(await adminPort(config), ends[k]!)),
  );
  if (ready.every(Boolean)) console.log(example.tell(port));
  // None is of use without the others.
  const [code] = await Promise.race(ends);
  stop("SIGTERM");
  await Promise.all(ends);
  for (const service of services) service.close();
  if (isCopy) await rm(folder, { recursive: true });
  process.exit(code ?? 1);
}

/** npx and npm pass a SIGTERM on to the shell between them and us, which ends without telling us. */
function onParentGone(tell: () => void): void {
  const parent = process.ppid;
  const look = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(look);
    tell();
  }, 200);
  look.unref();
}

/** False: the proxy has ended instead. */
async function isReady(admin: number, ended: Promise<unknown>): Promise<boolean> {
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

async function copyWithFreePorts({ folder: from, config, standIns }: Example) {
  const folder = await mkdtemp(path.join(os.tmpdir(), "tsproxy-example-"));
  await cp(from, folder, { recursive: true });
  const ports = new Map<number, number>();
  for (const name of [config].flat()) {
    const file = path.join(folder, name);
    const text = await readFile(file, "utf8");
    for (const [, port] of text.matchAll(PORT))
      if (!ports.has(Number(port))) ports.set(Number(port), await freePort());
    const replace = (_: string, port: string) => `port_value: ${ports.get(Number(port))}`;
    const edited = standIns?.edit(text, folder) ?? text;
    const patient = edited.replaceAll(/connect_timeout: [\d.]+s/g, "connect_timeout: 30s");
    await writeFile(file, patient.replaceAll(PORT, replace));
  }
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
