import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";

/**
 * How many threads can run at once: the CPUs of this process, or, as in Envoy, the whole CPUs that the limits of its cgroups come
 * to, at least one. `root`: where /proc and /sys are.
 */
export function cpus(root = "/", available = availableParallelism()): number {
  const limit = Math.min(
    ...lines(`${root}/proc/self/cgroup`).flatMap((line) => limits(root, line)),
  );
  return Math.max(1, Math.min(available, Math.floor(limit)));
}

/** The limits, in CPUs, of one hierarchy (`0::/path` of version 2, `4:cpu,cpuacct:/path` of version 1) and its ancestors. */
function limits(root: string, line: string): number[] {
  const [, controllers = "", name = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
  const isSecond = controllers === "";
  if (!isSecond && !controllers.split(",").includes("cpu")) return [];
  const read = (folder: string, file: string) =>
    lines(path.join(root, "sys/fs/cgroup", isSecond ? "" : "cpu", folder, file))[0] ?? "";
  const found: number[] = [];
  for (let folder = path.join("/", name); ; folder = path.dirname(folder)) {
    const [quota, period] = isSecond
      ? read(folder, "cpu.max").split(" ")
      : [read(folder, "cpu.cfs_quota_us"), read(folder, "cpu.cfs_period_us")];
    // Without a limit: "max" in version 2, -1 in version 1.
    const limit = Number(quota) / Number(period);
    if (limit > 0) found.push(limit);
    if (folder === "/") return found;
  }
}

/** None if the file cannot be read: not every system has cgroups. */
function lines(file: string): string[] {
  try {
    return readFileSync(file, "utf8").trim().split("\n");
  } catch {
    return [];
  }
}
