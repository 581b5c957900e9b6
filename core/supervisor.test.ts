import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { HangWatch, Supervisor } from "./supervisor.ts";

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "supervisor-"));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

let count = 0;
/** A supervisor over a process that runs `code`, and what it logged. `runs` is a file that the code may append to. */
function supervise(code: string) {
  const main = path.join(folder, `main${count++}.mjs`);
  const runs = `${main}.runs`;
  fs.writeFileSync(
    main,
    `import fs from "node:fs";\nfs.appendFileSync(${JSON.stringify(runs)}, "x");\nconst run = fs.statSync(${JSON.stringify(runs)}).size;\n${code}`,
  );
  const log: string[] = [];
  const backOffMs = { first: 1, most: 4 };
  const supervisor = new Supervisor({
    main,
    args: (quarantined) => [...quarantined],
    execArgv: [],
    log: (message) => log.push(message),
    backOffMs,
  });
  return { supervisor, log, runs: () => fs.readFileSync(runs, "utf8").length };
}
const READY = 'process.send({ type: "ready" });';

test("ends with the proxy when that ends well", async () => {
  const { supervisor, runs } = supervise(`${READY} process.disconnect();`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(1);
});

test("does not try a start again that was refused", async () => {
  const { supervisor, runs } = supervise("process.exit(1);");
  expect(await supervisor.run()).toBe(1);
  expect(runs()).toBe(1);
});

test("starts another proxy after a crash", async () => {
  const { supervisor, runs, log } = supervise(
    `${READY} if (run === 1) process.kill(process.pid, "SIGABRT"); else process.disconnect();`,
  );
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(2);
  expect(log[0]).toMatch(/was ended by SIGABRT; starting it again in 0\.001 s/);
});

test("gives up after five crashes within a minute", async () => {
  const { supervisor, runs, log } = supervise(`${READY} setImmediate(() => process.exit(7));`);
  expect(await supervisor.run()).toBe(1);
  expect(runs()).toBe(5);
  expect(log.at(-1)).toMatch(/ended with code 7; five times within a minute/);
});

test("kills a proxy whose thread has stopped turning, and starts another", async () => {
  const { supervisor, log } = supervise(`${READY}
    if (run > 1) process.disconnect();
    else setInterval(() => process.send({ type: "beat", threads: [{ name: "worker 0", turns: 5, boxMs: 0 }] }), 5);`);
  expect(await supervisor.run()).toBe(0);
  expect(log[0]).toMatch(/hung \(worker 0 was silent\) and was killed/);
});

test("names the filter that a thread is silent in, and starts at once without it", async () => {
  const { supervisor, log } = supervise(`${READY}
    if (run > 1) { if (process.argv[2] === "http/bad") process.disconnect(); else process.exit(9); }
    else setInterval(() => process.send({ type: "beat", threads: [{ name: "worker 0", turns: 5, boxMs: 0, inside: "http/bad" }] }), 5);`);
  expect(await supervisor.run()).toBe(0);
  expect(log).toHaveLength(1);
  expect(log[0]).toMatch(/hung .* inside the filter http\/bad; starting it again at once/);
});

test("passes a signal on and ends with what the proxy answers", async () => {
  const { supervisor } = supervise(
    `process.on("SIGTERM", () => process.exit(0)); ${READY} setInterval(() => {}, 1000); process.send({ type: "beat", threads: [] });`,
  );
  const ended = supervisor.run();
  await vi.waitFor(() => expect(supervisor.ready).toBe(true), 120_000);
  supervisor.signal("SIGTERM");
  expect(await ended).toBe(0);
});

test("a thread that turns is never silent, one that waits for its box is not yet", () => {
  const hangs: string[] = [];
  const watch = new HangWatch((who) => hangs.push(who));
  for (let n = 0; n < 100; n++) watch.onBeat([{ name: "worker 0", turns: n, boxMs: 0 }]);
  expect(hangs).toEqual([]);
  // 15 beats of 100 ms: a box of 1 s and 500 ms beyond it.
  for (let n = 0; n < 15; n++) watch.onBeat([{ name: "worker 1", turns: 1, boxMs: 1_000 }]);
  expect(hangs).toEqual([]);
  for (let n = 0; n < 2; n++) watch.onBeat([{ name: "worker 1", turns: 1, boxMs: 1_000 }]);
  expect(hangs).toEqual(["worker 1"]);
});

test("a thread that gets no CPU waits, and does not hang", () => {
  const hangs: string[] = [];
  const watch = new HangWatch((who) => hangs.push(who));
  const beat = (cpuMs: number) =>
    watch.onBeat([{ name: "worker 0", turns: 1, cpuMs, boxMs: 1_000 }]);
  for (let n = 0; n < 100; n++) beat(50 + n);
  expect(hangs).toEqual([]);
  for (let n = 0; n < 15; n++) beat(150 + n * 100);
  expect(hangs).toEqual(["worker 0"]);
});
