import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PACKED_CODE } from "../../core/packages/packed.ts";
import { eventually, get } from "./client.ts";
import { direct, http, listener } from "./config.ts";
import { DevSession, portOf } from "./dev-session.ts";
import { CLI, Proxy, ROOT } from "./proxy.ts";

// The way of somebody new: `npm pack` here, `npm install` of the result in an empty folder, and the commands of the README there.

let folder: string;
/** Why npm could not install; undefined: it did. */
let unreachable: string | undefined;

beforeAll(async () => {
  folder = mkdtempSync(path.join(os.tmpdir(), "tsproxy-install-"));
  await npm(ROOT, "pack", "--pack-destination", folder);
  const { version } = JSON.parse(readFileSync(path.join(ROOT, "package.json"), "utf8"));
  writeFileSync(path.join(folder, "package.json"), '{ "private": true }');
  // Nothing of the package, nor of what it needs, may want a script to be installed.
  const options = ["--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"];
  try {
    await npm(folder, "install", `./tsproxy-${version}.tgz`, ...options);
  } catch (error) {
    const { stderr } = error as { stderr: string };
    if (!/ENOTCACHED|ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|network/.test(stderr)) throw error;
    unreachable = "npm reaches no registry and has not cached what tsproxy needs";
  }
});
afterAll(() => rmSync(folder, { recursive: true }));

function npm(cwd: string, ...args: string[]) {
  return promisify(execFile)("npm", args, { cwd, env: environment(), maxBuffer: 1 << 26 });
}

/** Without what an npm around us has set. */
function environment(): NodeJS.ProcessEnv {
  const ours = /^(npm_(?!config)|vitest|node_(env|options|path)$)/i;
  const entries = Object.entries(process.env).filter(([name]) => !ours.test(name));
  return { ...Object.fromEntries(entries), NO_COLOR: "1" };
}

function tsproxy(...args: string[]) {
  const options = { cwd: folder, env: environment() };
  return promisify(execFile)(path.join(folder, "node_modules/.bin/tsproxy"), args, options);
}

test("unpacks the code of all packages after the packages, so that a start need not read each of them", (context) => {
  if (unreachable !== undefined) return context.skip(unreachable);
  const filters = path.join(folder, "node_modules/tsproxy/dist/filters");
  const age = (file: string) => statSync(path.join(filters, file)).mtimeMs;
  const all = age(PACKED_CODE);
  const files = readdirSync(filters, { recursive: true, encoding: "utf8" });
  const own = files.filter((file) => path.basename(file) === "filter.js");
  expect(own.length).toBeGreaterThan(50);
  expect(own.filter((file) => age(file) > all)).toEqual([]);
});

test("installs into an empty folder, serves, and makes a filter that is tested, typed and reloaded", async (context) => {
  if (unreachable !== undefined) return context.skip(unreachable);
  await tsproxy("init");
  expect((await tsproxy("validate", "tsproxy.yaml")).stdout).toBe("tsproxy.yaml: OK\n");
  expect((await tsproxy("filter", "new", "ratelimit")).stdout).toContain("filters/ratelimit");
  const ran = await tsproxy("filter", "test");
  expect(ran.stdout).toMatch(/Tests +15 passed/);

  const tsc = path.join(ROOT, "node_modules/typescript/bin/tsc");
  const types = () => promisify(execFile)(process.execPath, [tsc, "--noEmit"], { cwd: folder });
  await types();

  const filters = [{ name: "ratelimit", config: { value: "installed" } }];
  const main = listener("main", http([direct("/", "hello")], {}, filters));
  const config = { static_resources: { listeners: [main] } };
  writeFileSync(path.join(folder, "front.json"), JSON.stringify(config));
  const proxy = await Proxy.start({
    program: [path.join(folder, "node_modules/.bin/tsproxy")],
    folder,
    config: "front.json",
  });
  try {
    const answer = await get(proxy.port("main"), "/");
    expect(answer.text).toBe("hello");
    expect(answer.headers["x-ratelimit"]).toBe("installed");

    // What V8 has made of core's own modules and of the packages in use, for the next start.
    const kept = path.join(folder, "node_modules/.cache/tsproxy/isolates");
    for (const name of ["tsproxy-inside", "network-http_connection_manager"])
      await eventually(() => existsSync(path.join(kept, name)), Boolean, `${name} is kept`);

    const file = path.join(folder, "filters/ratelimit/filter.ts");
    const source = readFileSync(file, "utf8");
    writeFileSync(file, source.replace("this.#config.value", '"saved"'));
    const mark = async () => (await get(proxy.port("main"), "/")).headers["x-ratelimit"];
    await eventually(mark, (value) => value === "saved", "the saved filter answers");
    writeFileSync(file, `${source}\nprocess.exit(1);\n`);
    await expect(types()).rejects.toMatchObject({
      stdout: expect.stringContaining("Cannot find name 'process'"),
    });
  } finally {
    await proxy.stop();
  }
});

const WAITING = "data:text/javascript,process.execve=undefined";
/** The installed command, and the launcher of a checkout where it cannot become the Node that it finds, and waits for it. */
const launchers: readonly (readonly [string, readonly string[]])[] = [
  ["installed", ["node_modules/.bin/tsproxy"]],
  ["in a checkout", [process.execPath, "--import", WAITING, CLI]],
];
test.runIf(process.platform === "linux").each(launchers)(
  "a SIGHUP that comes during the start does not end it: %s",
  async (name, command) => {
    if (unreachable !== undefined && name === "installed") return;
    const file = path.join(folder, "hangup.json");
    const main = listener("main", http([direct("/", "hello")]));
    writeFileSync(file, JSON.stringify({ static_resources: { listeners: [main] } }));
    const [program, ...args] = [...command, "run", "-c", file];
    const child = spawn(path.resolve(folder, program!), args, { cwd: folder, env: environment() });
    const ended = once(child, "exit");
    let said = "";
    child.stderr.on("data", (part) => (said += part));
    const isOver = () =>
      said.includes("watching") || child.exitCode !== null || child.signalCode !== null;
    // As soon as the launcher has a handler, long before there is a supervisor.
    await eventually(() => isObeyed(child.pid!, os.constants.signals.SIGHUP), Boolean, "a handler");
    if (name === "installed") child.kill("SIGHUP");
    else while (!isOver() && child.kill("SIGHUP")) await setTimeout(5);
    await eventually(isOver, Boolean, "it serves or has ended");
    expect(said).toContain("watching");
    // It was started before it was known how many workers it would have: the others join it.
    expect(said).not.toContain("died");
    child.kill("SIGTERM");
    expect(await ended).toEqual([0, null]);
  },
);

/** True if the process has a handler for the signal. */
function isObeyed(pid: number, signal: number): boolean {
  const [, mask = "0"] =
    /^SigCgt:\s*(\w+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
}

test("from nothing to a first request: a filter is made, tested, dropped in and asked, with no registry", async (context) => {
  if (unreachable !== undefined) return context.skip(unreachable);
  const program = path.join(folder, "node_modules/.bin/tsproxy");
  const own = mkdtempSync(path.join(folder, "own-"));
  const session = new DevSession([program], own);
  const began = performance.now();
  const at: [string, number][] = [];
  const mark = (what: string) => at.push([what, Math.round(performance.now() - began)]);
  expect(session.run("filter", "new", "speed").status).toBe(0);
  mark("made");
  const tested = session.run("filter", "test", "speed");
  expect(tested.stdout).toMatch(/Tests +15 passed/);
  mark("tested");
  try {
    const port = portOf(await session.start("--inspect", "0"), "http");
    mark("dropped in");
    expect((await get(port, "/")).headers["x-speed"]).toBe("hello");
    mark("answered");
    console.log(
      `filter new to first answer: ${at.map(([what, ms]) => `${what} ${ms} ms`).join(", ")}`,
    );

    const [started] = session.lines;
    const inspector = Number(String(started!.inspector).split(":")[1]);
    const targets = JSON.parse((await get(inspector, "/json/list")).text) as { title: string }[];
    expect(targets.map(({ title }) => title)).toContain("http/speed");
  } finally {
    await session.end();
  }
  expect(JSON.parse(session.run("filter", "info", "speed", "--json").stdout)).toMatchObject({
    package: "http/speed",
    version: "0.1.0",
  });
  expect(session.run("filter", "build", "speed").stdout).toMatch(/^speed-0\.1\.0\.js /);
  // TypeScript is the user's: with it types are checked, without it the command says how to get it, and what else is wrong.
  const env = { ...environment(), PATH: "/nowhere" };
  const launcher = path.join(folder, "node_modules/tsproxy/dist/bin/tsproxy.js");
  const without = promisify(execFile)(process.execPath, [launcher, "filter", "check", "nope"], {
    cwd: own,
    env,
  });
  await expect(without).rejects.toMatchObject({
    stderr: expect.stringMatching(/^no filter "nope"[^]*npm install --save-dev typescript/),
  });
  symlinkSync(
    path.join(ROOT, "node_modules/typescript"),
    path.join(folder, "node_modules/typescript"),
  );
  expect(session.run("filter", "check").stdout).toBe("1 filter: OK\n");
  const script = path.join(folder, "script.yaml");
  const chain = http([direct("/", "x")], {}, [
    { name: "http/script", config: { onRequest: "req.headers.set(3, stream)" } },
  ]);
  writeFileSync(
    script,
    JSON.stringify({ static_resources: { listeners: [listener("main", chain)] } }),
  );
  expect(session.run("filter", "check", "-c", script).stdout).toMatch(
    /script\.yaml:1:\d+: .*TS2345/,
  );

  const text = readFileSync(
    path.join(folder, "node_modules/tsproxy/dist/sdk/reference.md"),
    "utf8",
  );
  expect(text).toMatch(/^### HttpFilter\n\nOne filter's part in one stream\./m);
  expect(text).toMatch(/^### TestStream$/m);
});

test("brings examples that run from a copy", async (context) => {
  if (unreachable !== undefined) return context.skip(unreachable);
  const examples = path.join(folder, "examples");
  cpSync(path.join(folder, "node_modules/tsproxy/examples"), examples, { recursive: true });
  const run = ["examples/mesh/run.ts", "--free-ports"];
  const example = spawn(process.execPath, run, { cwd: folder, env: environment() });
  let told = "";
  example.stdout.setEncoding("utf8").on("data", (text: string) => (told += text));
  const port = await eventually(
    () => /^ +curl http:\/\/localhost:(\d+)\/service\/1$/m.exec(told)?.[1],
    (found) => found !== undefined,
    "the example to be ready",
  );
  const { body } = await get(Number(port), "/service/1");
  expect(body.toString()).toContain("(service 1)");
  example.kill("SIGTERM");
  await once(example, "exit");
});
