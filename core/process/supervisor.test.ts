import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { Supervisor, type SupervisorOptions } from "./supervisor.ts";

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "supervisor-"));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

let count = 0;
/** A supervisor over a process that runs `code`, and what it logged. `runs` is a file that the code may append to. */
function supervise(
  code: string,
  options: Partial<Pick<SupervisorOptions, "execPath" | "backOffMs">> = {},
) {
  const main = path.join(folder, `main${count++}.mjs`);
  const runs = `${main}.runs`;
  fs.writeFileSync(
    main,
    `import fs from "node:fs";
     const RUNS = ${JSON.stringify(runs)};
     fs.appendFileSync(RUNS, "x");
     const run = fs.statSync(RUNS).size;
     const tell = (type, threads) => process.send({ type, threads });
     ${code}`,
  );
  const log: string[] = [];
  const backOffMs = { first: 1, most: 4 };
  const supervisor = new Supervisor({
    main,
    args: ({ quarantined, standby, marks = 0 }) => [
      quarantined.join(),
      standby ? "standby" : "",
      String(marks),
    ],
    execArgv: [],
    log: (message) => log.push(message),
    onDev: () => fs.writeFileSync(`${runs}.heard`, ""),
    backOffMs,
    drainTimeMs: 60_000,
    ...options,
  });
  return {
    supervisor,
    log,
    runs: () => fs.readFileSync(runs, "utf8").length,
    pid: () => Number(fs.readFileSync(`${runs}.pid`, "utf8")),
  };
}
const READY = 'tell("ready");';

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

test("tells of a proxy that is ended while it starts", async () => {
  const { supervisor, runs, log } = supervise('process.kill(process.pid, "SIGKILL");');
  expect(await supervisor.run()).toBe(1);
  expect(runs()).toBe(1);
  expect(log).toEqual(["the proxy was ended by SIGKILL before it served"]);
});

test("tells what may be lacking where a proxy aborts while it starts", async () => {
  const { supervisor, log } = supervise("process.abort();");
  expect(await supervisor.run()).toBe(1);
  expect(log).toEqual([
    "the proxy was ended by SIGABRT before it served; see that it may have enough threads and memory (ulimit -u and -v, pids.max and memory.max of its cgroup)",
  ]);
});

test("tells of a program that cannot be started", async () => {
  const { supervisor, log } = supervise("", { execPath: path.join(folder, "nothing") });
  expect(await supervisor.run()).toBe(1);
  expect(log).toEqual([expect.stringMatching(/^the proxy could not be started: .*ENOENT/)]);
});

test("tells how a proxy has ended, though a message to it has failed before", async () => {
  const { supervisor, log, pid } = supervise(
    `if (run === 2) process.disconnect();
     else { fs.writeFileSync(RUNS + ".pid", String(process.pid)); process.on("message", () => {}); ${READY} }`,
  );
  const ended = supervisor.run();
  await vi.waitFor(() => expect(supervisor.ready).toBe(true), 30_000);
  process.kill(pid(), "SIGKILL");
  // Its end is told in a later turn.
  while (
    !spawnSync("ps", ["-o", "stat=", "-p", String(pid())])
      .stdout.toString()
      .startsWith("Z")
  );
  supervisor.send({ type: "serve" });
  expect(await ended).toBe(0);
  expect(log[0]).toMatch(/was ended by SIGKILL; starting it again at once/);
});

test("starts another proxy after a crash", async () => {
  const { supervisor, runs, log } = supervise(
    `${READY} if (run === 1) process.kill(process.pid, "SIGABRT"); else process.disconnect();`,
  );
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(2);
  expect(log[0]).toMatch(/was ended by SIGABRT; starting it again at once/);
});

test("gives up after five crashes within a minute", async () => {
  const { supervisor, runs, log } = supervise(`${READY} setImmediate(() => process.exit(7));`);
  expect(await supervisor.run()).toBe(1);
  expect(runs()).toBe(5);
  expect(log.at(-1)).toMatch(/ended with code 7; five times within a minute/);
});

test("a proxy that has crashed is not started again once another one serves in its place", async () => {
  const hour = 3_600_000;
  const { supervisor, runs, log } = supervise(
    `${READY} setImmediate(() => process.kill(process.pid, "SIGABRT"));`,
    { backOffMs: { first: hour, most: hour } },
  );
  const ended = supervisor.run();
  await vi.waitFor(() => expect(log.at(-1)).toMatch(/starting it again in 3600 s/), 30_000);
  supervisor.retire(hour);
  expect(await ended).toBe(0);
  expect(runs()).toBe(2);
});

test("a proxy that starts after a crash ends once another one serves in its place", async () => {
  const { supervisor, runs } = supervise(
    `if (run === 1) { ${READY} setImmediate(() => process.kill(process.pid, "SIGABRT")); }
     else process.on("message", () => {});`,
  );
  const ended = supervisor.run();
  await vi.waitFor(() => expect(runs()).toBe(2), 30_000);
  supervisor.retire(3_600_000);
  expect(await ended).toBe(0);
  expect(runs()).toBe(2);
});

test("kills a proxy whose thread has stopped turning, and starts another", async () => {
  const { supervisor, log } = supervise(`${READY}
    if (run > 1) process.disconnect();
    else setInterval(() => process.send({ type: "beat", threads: [{ name: "worker 0", turns: 5, boxMs: 0 }] }), 5);`);
  expect(await supervisor.run()).toBe(0);
  expect(log[0]).toMatch(/hung \(worker 0 was silent\) and was killed/);
});

/**
 * `serve` says how often its thread has turned, `times` times: 5 make it suspect, 20 kill its process. A standby has a `process.argv`
 * of its own, and ends once the first process has.
 */
const PROCESSES = `
  const serve = (times) => {
    fs.writeFileSync(RUNS + ".first", String(process.pid));
    ${READY}
    for (let n = 0; n < times; n++) beat(1);
    setInterval(() => {}, 1000);
  };
  const beat = (turns) => tell("beat", [{ name: "worker 0", turns, boxMs: 1000, inside: "http/bad" }]);
  const isGone = (name) => {
    try { process.kill(Number(fs.readFileSync(RUNS + name)), 0); } catch (error) { return error.code === "ESRCH"; }
  };
  const until = async (holds) => {
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  const standBy = (without = "http/bad") => {
    if (process.argv[2] !== without || process.argv[3] !== "standby") process.exit(9);
    process.on("message", async ({ type }) => {
      if (type !== "serve") process.exit(8);
      ${READY}
      await until(() => isGone(".first"));
      process.disconnect();
    });
  };`;

test("a standby without the filter that a thread is silent in takes the process's place", async () => {
  const { supervisor, log, runs } = supervise(`${PROCESSES}
    if (run === 1) serve(5);
    else { standBy(); tell("prepared"); }`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(2);
  expect(log).toHaveLength(1);
  expect(log[0]).toMatch(
    /hung \(worker 0 was silent\) .* inside the filter http\/bad; another one takes its place/,
  );
});

test("a standby that is late serves once it is prepared, although the process is gone", async () => {
  const { supervisor, log, runs } = supervise(`${PROCESSES}
    if (run === 1) serve(20);
    else { standBy(); await until(() => isGone(".first")); tell("prepared"); }`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(2);
  expect(log).toHaveLength(1);
});

test("a filter that hangs again, with other code, gets another standby", async () => {
  const { supervisor, log, runs } = supervise(`${PROCESSES}
    if (run === 1) serve(5);
    else if (run === 2) {
      process.on("message", async ({ type }) => {
        if (type !== "serve") return;
        ${READY}
        await until(() => isGone(".first"));
        serve(5);
      });
      tell("prepared");
    } else { standBy(); tell("prepared"); }`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(3);
  expect(log).toHaveLength(2);
  expect(log[1]).toMatch(/inside the filter http\/bad; another one takes its place/);
});

test("a standby ends when the thread turns again", async () => {
  const { supervisor, log, runs } = supervise(`${PROCESSES}
    if (run === 1) {
      serve(5);
      await until(() => fs.existsSync(RUNS + ".standby"));
      beat(2);
      await until(() => isGone(".standby"));
      process.exit(0);
    }
    fs.writeFileSync(RUNS + ".pid", String(process.pid));
    fs.renameSync(RUNS + ".pid", RUNS + ".standby"); // it is killed as soon as that is there
    process.on("message", () => process.exit(7));`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(2);
  expect(log).toEqual([]);
});

test("a process that recovers while its standby begins to serve finishes its connections", async () => {
  const { supervisor, log, runs } = supervise(`${PROCESSES}
    if (run === 1) {
      process.on("message", async ({ type }) => {
        if (type !== "retire") return;
        tell("stopping");
        await until(() => fs.existsSync(RUNS + ".crashed")); // a connection goes on all this time
        fs.writeFileSync(RUNS + ".drained", "");
        process.exit(0);
      });
      serve(5);
      await until(() => fs.existsSync(RUNS + ".told"));
      beat(2);
      tell("dev");
    } else if (run === 2) {
      process.on("message", async ({ type }) => {
        if (type !== "serve") return;
        fs.writeFileSync(RUNS + ".told", "");
        await until(() => fs.existsSync(RUNS + ".heard")); // the supervisor knows that the first process has recovered
        ${READY}
        fs.writeFileSync(RUNS + ".crashed", "");
        await until(() => fs.existsSync(RUNS + ".drained"));
        process.exit(5);
      });
      tell("prepared");
    } else {
      ${READY}
      process.disconnect();
    }`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(3);
  expect(log).toHaveLength(2);
  expect(log[0]).toMatch(/silent for too long inside the filter http\/bad; another one serves/);
  expect(log[1]).toMatch(/ended with code 5; starting it again/);
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

test("holds back SIGHUP and SIGUSR1 from a proxy that still starts", async () => {
  const { supervisor } = supervise(
    `await new Promise((resolve) => setTimeout(resolve, 300));
     const got = new Set();
     for (const signal of ["SIGHUP", "SIGUSR1"])
       process.on(signal, () => got.add(signal).size === 2 && process.exit(0));
     ${READY} setInterval(() => {}, 1000);`,
  );
  const ended = supervisor.run();
  supervisor.signal("SIGHUP");
  supervisor.signal("SIGUSR1");
  expect(await ended).toBe(0);
});

/** `inside` writes the mark of a package, in the slot of a worker, as Marks does. */
const MARKED = `
  const marks = Number(process.argv[4]);
  const inside = (worker, name) => fs.writeSync(marks, Buffer.from(name + "\\0"), 0, undefined, worker * 4096);
  const die = () => process.kill(process.pid, "SIGABRT");`;

test("the second crash tells which filter it was in, and the third process runs without it", async () => {
  const { supervisor, log, runs } = supervise(`${MARKED} ${READY}
    if (run === 2) inside(1, "http/bad");
    if (run < 3) die();
    else process.exit(process.argv[2] === "http/bad" && process.argv[3] === "" ? 0 : 9);`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(3);
  expect(log[0]).toMatch(/SIGABRT; starting it again at once/);
  expect(log[1]).toMatch(/SIGABRT inside the filter http\/bad; another one takes its place/);
});

test("of several filters that a process was inside, the one to blame is in common with the next crash", async () => {
  const { supervisor, log, runs } = supervise(`${MARKED} ${READY}
    if (run === 2) { inside(1, "http/good"); inside(2, "http/bad"); }
    if (run === 3) { inside(2, "http/bad"); inside(1, "http/other"); }
    if (run < 4) die();
    else process.exit(process.argv[2] === "http/bad" ? 0 : 9);`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(4);
  expect(log[2]).toMatch(/inside the filter http\/bad/);
});

test("a filter that a process was inside when somebody killed it is to blame if that happens twice", async () => {
  const { supervisor, log, runs } = supervise(`${MARKED} ${READY}
    const kill = () => process.kill(process.pid, "SIGKILL");
    if (run === 1) die();
    if (run === 2) { inside(1, "http/good"); kill(); }
    if (run === 3) { inside(2, "http/bad"); kill(); }
    if (run === 4) { inside(1, "http/bad"); kill(); }
    process.exit(process.argv[2] === "http/bad" ? 0 : 9);`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(5);
  expect(log.filter((line) => line.includes("inside the filter"))).toHaveLength(1);
  expect(log[3]).toMatch(/SIGKILL inside the filter http\/bad/);
});

test("a filter that was mended is let in again by the next process too", async () => {
  const { supervisor, runs } = supervise(`${MARKED} ${READY}
    if (run === 1) die();
    if (run === 2) { inside(1, "http/bad"); die(); }
    if (run === 3) {
      inside(1, "http/other");
      process.send({ type: "quarantined", packages: [] }, die);
    }
    if (run === 4) process.exit(process.argv[2] === "http/other" ? 0 : 9);`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(4);
});

test("a process that ends itself blames no filter that a thread was inside by chance", async () => {
  const { supervisor, log } = supervise(`${MARKED} ${READY}
    if (run > 1) inside(1, "http/good");
    setImmediate(() => process.exit(7));`);
  expect(await supervisor.run()).toBe(1);
  expect(log.join()).not.toMatch(/inside/);
});

test("a crash inside no filter blames nobody", async () => {
  const { supervisor, log } = supervise(`${MARKED} ${READY} die();`);
  expect(await supervisor.run()).toBe(1);
  expect(log).toHaveLength(5);
  expect(log.join()).not.toMatch(/inside/);
});

test("a filter that has taken a thread along is replaced with its process, which goes on until then", async () => {
  const { supervisor, log, runs } = supervise(`${PROCESSES}
    if (run === 1) {
      process.on("message", ({ type }) => {
        if (type === "retire") process.exit(0);
      });
      ${READY}
      process.send({ type: "lost", package: "http/bad" });
      fs.writeFileSync(RUNS + ".first", String(process.pid));
    } else { standBy(); tell("prepared"); }`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(2);
  expect(log).toHaveLength(1);
  expect(log[0]).toMatch(/ran out of memory inside the filter http\/bad; another one serves/);
});

test("a filter that has taken a thread along is blamed, although a standby was started for another one", async () => {
  const { supervisor, log, runs } = supervise(`${PROCESSES}
    if (run === 1) {
      process.on("message", ({ type }) => {
        if (type === "retire") process.exit(0);
      });
      serve(5);
      await until(() => fs.existsSync(RUNS + ".standby"));
      process.send({ type: "lost", package: "http/other" });
    } else if (run === 2) {
      fs.writeFileSync(RUNS + ".standby", "");
      process.on("message", () => process.exit(7));
    } else { standBy("http/other"); tell("prepared"); }`);
  expect(await supervisor.run()).toBe(0);
  expect(runs()).toBe(3);
  expect(log).toHaveLength(1);
  expect(log[0]).toMatch(/ran out of memory inside the filter http\/other; another one serves/);
});
