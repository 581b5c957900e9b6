import { afterEach, expect, it, vi } from "vitest";
import { memoryUsage } from "./server-stats.ts";

afterEach(() => vi.restoreAllMocks());

it("tells the memory of before while no file descriptor is left to read it with", () => {
  const before = memoryUsage();
  expect(before.rss).toBeGreaterThan(0);
  vi.spyOn(process, "memoryUsage").mockImplementation(() => {
    throw new Error("EMFILE: too many open files, uv_resident_set_memory");
  });
  expect(memoryUsage()).toEqual(before);
});
