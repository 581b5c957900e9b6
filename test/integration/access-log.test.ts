import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import type { ServerResponse } from "node:http";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SAME_SIGNAL_MS } from "../../core/options.ts";
import { deferred, eventually, get } from "./client.ts";
import { accessLog, bootstrap, cluster, direct, http, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream } from "./upstream.ts";

let proxy: Proxy;
const folder = mkdtempSync(path.join(os.tmpdir(), "tsproxy-access-log-"));
const file = path.join(folder, "access.log");
const linesOf = (name: string): string[] =>
  existsSync(name) ? readFileSync(name, "utf8").split("\n").slice(0, -1) : [];

beforeAll(async () => {
  const chain = http([direct("/", "said\n")], { access_log: [accessLog(file, "%REQ(:PATH)%\n")] });
  proxy = await Proxy.start({
    config: bootstrap([listener("main", chain)]),
    concurrency: 3,
    args: ["--file-flush-interval-msec", "200"],
  });
});
afterAll(async () => {
  await proxy.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Each request takes a connection of its own, and so whichever worker the kernel picks. */
async function ask(from: number, to: number): Promise<string[]> {
  const asked: string[] = [];
  for (let k = from; k < to; k++) {
    await get(proxy.port("main"), `/${k}`, { headers: { connection: "close" } });
    asked.push(`/${k}`);
  }
  return asked;
}

/** Waits for as many lines, and tells them sorted: a line is written behind its answer, so that of another worker may come first. */
async function sortedLines(name: string, count: number): Promise<string[]> {
  const enough = (lines: string[]) => lines.length >= count;
  return (await eventually(() => linesOf(name), enough, `${count} lines`)).sort();
}

test("each request of all workers has one line; after SIGUSR1 lines go to a new file", async () => {
  const first = await ask(0, 60);
  expect(await sortedLines(file, first.length)).toEqual(first.sort());

  // Until the signal, lines go where the file has been moved to.
  renameSync(file, `${file}.1`);
  const before = [...first, ...(await ask(60, 70))];
  expect(await sortedLines(`${file}.1`, before.length)).toEqual(before.sort());
  proxy.signal("SIGUSR1");
  await eventually(
    () => existsSync(file),
    (made) => made,
    "the new file",
  );
  const fresh = await ask(70, 80);
  expect(await sortedLines(file, fresh.length)).toEqual(fresh.sort());
  expect(linesOf(`${file}.1`)).toHaveLength(before.length);
});

test("lines are written as soon as as many have gathered as the flags say", async () => {
  const log = path.join(folder, "large.log");
  const chain = http([direct("/", "said\n")], { access_log: [accessLog(log, "%REQ(:PATH)%\n")] });
  const large = await Proxy.start({
    config: bootstrap([listener("main", chain)]),
    concurrency: 1,
    args: ["--file-flush-interval-msec", "3600000", "--file-flush-min-size-kb", "1"],
  });
  for (let k = 0; k < 8; k++) await get(large.port("main"), `/${"x".repeat(250)}`);
  await eventually(
    () => linesOf(log).length,
    (count) => count >= 5,
    "the lines of a KiB",
  );
  await large.stop();
  expect(linesOf(log)).toHaveLength(8);
});

test("a proxy that ends writes the lines that still wait, and that of a request which ended meanwhile", async () => {
  const lines = path.join(folder, "last.log");
  const held = deferred<ServerResponse>();
  const upstream = await httpUpstream((request, response) => {
    if (request.url === "/last") held.resolve(response);
    else response.end("answered");
  });
  const chain = http([route("/", "up")], { access_log: [accessLog(lines, "%REQ(:PATH)%\n")] });
  // Nothing but the end can have them written: the interval is ten minutes.
  const ending = await Proxy.start({
    config: bootstrap([listener("main", chain)], [cluster("up", [upstream.port])]),
    concurrency: 2,
    args: ["--file-flush-interval-msec", "600000"],
  });
  try {
    const paths = Array.from({ length: 40 }, (_, k) => `/${k}`);
    for (const each of paths)
      await get(ending.port("main"), each, { headers: { connection: "close" } });
    const last = get(ending.port("main"), "/last");
    const response = await held.promise;
    expect(linesOf(lines)).toEqual([]);
    ending.signal("SIGTERM");
    await ending.line(/^draining/);
    response.end("answered after all");
    expect(String((await last).body)).toBe("answered after all");
    expect(await ending.exited).toBe(0);
    expect(linesOf(lines).sort()).toEqual([...paths, "/last"].sort());
  } finally {
    await ending.stop();
    await upstream.close();
  }
});

test("a second signal cuts off a request that is never answered, and loses no line", async () => {
  const lines = path.join(folder, "cut.log");
  const asked = deferred<ServerResponse>();
  const upstream = await httpUpstream((_, response) => asked.resolve(response));
  const chain = http([direct("/said", "said\n"), route("/", "up")], {
    access_log: [accessLog(lines, "%REQ(:PATH)%\n")],
  });
  const ending = await Proxy.start({
    config: bootstrap([listener("main", chain)], [cluster("up", [upstream.port])]),
    args: ["--file-flush-interval-msec", "600000"],
  });
  try {
    await get(ending.port("main"), "/said");
    const cut = get(ending.port("main"), "/never").catch(() => "cut off");
    await asked.promise;
    ending.signal("SIGTERM");
    await ending.line(/^draining/);
    const since = performance.now();
    // A terminal and a parent process may both pass the same signal on: two that come within 300 ms are one.
    await eventually(
      () => performance.now() - since,
      (ms) => ms > SAME_SIGNAL_MS,
      "the next signal is another one",
    );
    ending.signal("SIGTERM");
    expect(await ending.exited).toBe(0);
    expect(await cut).toBe("cut off");
    expect(linesOf(lines)).toContain("/said");
  } finally {
    await ending.stop();
    await upstream.close();
  }
});
