import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { ISOLATE_FLAGS } from "./isolate-flags.ts";

const { FLAGS } = (await import(new URL("./bin/flags.js", import.meta.url).href)) as {
  readonly FLAGS: readonly string[];
};

async function node(...args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, args);
  return stdout;
}

/** The values of all V8 flags, as flags. */
async function values(...flags: readonly string[]): Promise<string[]> {
  const printed = await node(...flags, "--print-flag-values", "-e", "0");
  return printed.split("\n").filter((line) => line.startsWith("--"));
}

test("V8 would conclude nothing more from the flags for isolates on a command line", async () => {
  const usual = new Set(await values());
  const changed = (await values(...ISOLATE_FLAGS)).filter((flag) => !usual.has(flag));
  // Without any replacement in loops it makes no difference that Maglev would do none.
  const moot = "--no-maglev-osr";
  expect(changed.sort()).toEqual([...ISOLATE_FLAGS, moot].sort());
});

test("the proxy's process takes Node's own modules in the compiled form that comes with Node", async () => {
  const usage = `
    const { internalBinding } = require("internal/test/binding");
    require("node:worker_threads");
    console.log([...internalBinding("builtins").getCacheUsage().compiledWithoutCache].join());`;
  expect(await node(...FLAGS, "--no-warnings", "--expose-internals", "-e", usage)).toBe("\n");
});

test.runIf(process.platform === "linux")(
  "no thread has a copy of V8's built-in functions, whenever it starts",
  async () => {
    const isolates = new URL("./isolate.ts", import.meta.url).href;
    // Copies are mapped from the same file.
    const count = `
      const { readFileSync } = require("node:fs");
      const isCode = (line) => line.includes(" r-xp ") && line.endsWith(process.execPath);
      const codes = () => readFileSync("/proc/self/maps", "utf8").split("\\n").filter(isCode).length;
      const { Worker } = require("node:worker_threads");
      const started = () => new Promise((resolve) => new Worker("0", { eval: true }).on("online", resolve));
      const counts = [codes()];
      started().then(async () => {
        counts.push(codes());
        const { Watchdog } = await import(${JSON.stringify(isolates)});
        await started();
        counts.push(codes());
        new Watchdog();
        await started();
        counts.push(codes());
        console.log(counts.join());
        process.exit();
      });`;
    const [alone, ...others] = (await node(...FLAGS, "-e", count)).trim().split(",");
    expect(others).toEqual([alone, alone, alone]);
  },
);

test("isolates can be made beside Node's own, which come from another snapshot", () => {
  // Isolates of a process share V8's read-only memory, so all snapshots must have the same: none may have added to it.
  expect(process.config.variables).toMatchObject({ v8_enable_extensible_ro_snapshot: 0 });
});
