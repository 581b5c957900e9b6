import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import type { BenchResult } from "../../core/command/bench-report.ts";
import { CLI, ROOT } from "./proxy.ts";

function bench(cwd: string, ...args: string[]) {
  const command = [CLI, "filter", "bench", ...args, "--seconds", "1", "--connections", "4"];
  return spawnSync(process.execPath, command, { cwd, encoding: "utf8" });
}

test("measures a filter in both placements against none, and what crosses", () => {
  const folder = path.join(ROOT, "examples/first-filter");
  const { status, stdout, stderr } = bench(folder, "greeting", "-c", "envoy.yaml", "--json");
  expect([status, stderr]).toEqual([0, ""]);
  const result = JSON.parse(stdout) as BenchResult;
  expect(result).toMatchObject({
    package: "http/greeting",
    config: { name: "greeting" },
    connections: 4,
    faults: 0,
    notes: [],
    phases: {
      builtin: { hooksUs: expect.any(Number), chainUs: expect.any(Number) },
      sandbox: { insideUs: expect.any(Number), crossingUs: expect.any(Number) },
    },
  });
  expect(result.variants.map(({ name }) => name)).toEqual(["none", "idle", "builtin", "sandbox"]);
  for (const { requests, statuses, lost, cpuUs } of result.variants) {
    expect(requests).toBeGreaterThan(0);
    expect([statuses, lost]).toEqual([{ "200": requests }, 0]);
    expect(cpuUs.median).toBeGreaterThan(0);
  }
  // It reads the request and writes to the response, and each request is its own.
  const { records, bytesIn, bytesOut, insideUs } = result.crossing!;
  expect(records).toBeGreaterThanOrEqual(1.9);
  for (const n of [bytesIn, bytesOut, insideUs]) expect(n).toBeGreaterThan(0);
});

test("shows a table, and the answers of a filter that does not pass requests on", () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "tsproxy-bench-test-"));
  try {
    mkdirSync(path.join(dir, "filters"));
    const setup = 'setup: () => () => ({ onRequestHeaders: () => reply(403, { body: "no" }) })';
    writeFileSync(
      path.join(dir, "filters/denying.ts"),
      `import { defineHttpFilter, reply, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "denying", config: Type.Object({}), ${setup} });\n`,
    );
    const { status, stdout, stderr } = bench(dir, "filters/denying.ts");
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^no filter +\d+\.\d +\d+ × 200$/m);
    expect(stdout).toMatch(/^in its own sandbox +\d+\.\d +[+-]\d+\.\d\d ±\d+\.\d\d +\d+ × 403$/m);
    expect(stdout).toMatch(/^a request crosses with \d+ bytes in and \d+ out/m);
    expect(stdout).toMatch(/^not all were answered by the upstream/m);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
