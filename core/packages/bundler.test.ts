import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { bundle } from "./bundle.ts";
import { IDLE_MS } from "./bundler.ts";

let root: string;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "bundler-")));
});
afterEach(() => {
  vi.useRealTimers();
  fs.rmSync(root, { recursive: true });
});

test("a build may take longer than the bundler's process stays without one, whatever ends meanwhile", async () => {
  const slow = path.join(root, "slow.ts");
  execFileSync("mkfifo", [slow]);
  const quick = path.join(root, "quick.ts");
  fs.writeFileSync(quick, "export default 1;");
  const slowly = bundle({ entry: slow, filename: "x", keepInputs: false });
  // The pipe opens once esbuild reads it, and esbuild reads until it is closed.
  const pipe = await fs.promises.open(slow, "w");
  await bundle({ entry: quick, filename: "x" });
  vi.advanceTimersByTime(2 * IDLE_MS);
  await pipe.writeFile("export default 42;");
  await pipe.close();
  expect((await slowly).code).toContain("42");
  vi.advanceTimersByTime(2 * IDLE_MS);
  expect((await bundle({ entry: quick, filename: "x" })).code).toContain("1");
});
