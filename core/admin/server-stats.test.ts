import { afterEach, expect, it, vi } from "vitest";
import { memoryUsage, ServerStats } from "./server-stats.ts";
import { StatsReader } from "./stats.ts";

afterEach(() => vi.restoreAllMocks());

it("tells the memory of before while no file descriptor is left to read it with", () => {
  const before = memoryUsage();
  expect(before.rss).toBeGreaterThan(0);
  vi.spyOn(process, "memoryUsage").mockImplementation(() => {
    throw new Error("EMFILE: too many open files, uv_resident_set_memory");
  });
  expect(memoryUsage()).toEqual(before);
});

it("shows how long the start took once the first interval has ended", () => {
  const reader = new StatsReader();
  const server = new ServerStats(reader, 1);
  server.onLive();
  reader.flush();
  const { histograms } = reader.snapshot();
  expect(histograms.find(({ name }) => name === "server.initialization_time_ms")?.count).toBe(1);
});

it("counts stats that were set as used, if only to 0", () => {
  const reader = new StatsReader();
  const server = new ServerStats(reader, 1);
  server.update(0, { connections: 0, daysLeft: 0, lookups: 0, version: undefined });
  const { counters, gauges } = reader.snapshot();
  const used = [...counters, ...gauges].filter(([, , used]) => used).map(([name]) => name);
  expect(used).toEqual(
    expect.arrayContaining([
      "server.static_unknown_fields",
      "server.compilation_settings.fips_mode",
      "server.stats_recent_lookups",
      "listener_manager.total_listeners_warming",
    ]),
  );
  expect(used).not.toContain("runtime.admin_overrides_active");
});
