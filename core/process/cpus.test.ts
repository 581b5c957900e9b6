import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, expect, it } from "vitest";
import { cpus } from "./cpus.ts";

let root = "";
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** A machine of eight CPUs with these files. */
function counted(files: Readonly<Record<string, string>>): number {
  root = mkdtempSync(path.join(os.tmpdir(), "tsproxy-cpus-"));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    writeFileSync(path.join(root, name), `${text}\n`);
  }
  return cpus(root, 8);
}

it("counts all CPUs where nothing limits them", () => {
  expect(counted({})).toBe(8);
  expect(counted({ "proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000" })).toBe(8);
});

it.each([
  ["50000 100000", 1],
  ["150000 100000", 1],
  ["300000 100000", 3],
  ["1600000 100000", 8],
  ["broken", 8],
])("takes the whole CPUs of a limit, as Envoy: %s gives %d", (limit, count) => {
  expect(counted({ "proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": limit })).toBe(count);
});

it("takes the least of a cgroup and of those that it is in", () => {
  const files = {
    "proc/self/cgroup": "0::/system.slice/tsproxy.service",
    "sys/fs/cgroup/system.slice/cpu.max": "200000 100000",
    "sys/fs/cgroup/system.slice/tsproxy.service/cpu.max": "400000 100000",
  };
  expect(counted(files)).toBe(2);
});

it("reads version 1, in a container that sees its own cgroup as the topmost", () => {
  const files = {
    "proc/self/cgroup": "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "250000",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
  };
  expect(counted(files)).toBe(2);
  rmSync(root, { recursive: true });
  expect(counted({ ...files, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1" })).toBe(8);
});
