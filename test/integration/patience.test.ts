import { expect, test } from "vitest";
import { PATIENCE_MS, patienceMs } from "./patience.ts";
import { Proxy } from "./proxy.ts";

test("a start that hangs says what it waits for, and what its processes do, before the test's time is over", async () => {
  const program = [process.execPath, "-e", "setInterval(() => {}, 1000)", "--"] as const;
  await expect(Proxy.start({ config: {}, program })).rejects.toThrow(
    /^never came within \d s: "watching …", the last line of a start\nit has said nothing\nits processes:\n\d+ .*-e setInterval.*: [A-Z], [\d.]+ s of CPU$/,
  );
}, 12_000);

test("what a test waits for is waited for as long as it has", () => {
  expect(patienceMs()).toBeGreaterThan(20_000);
  expect(patienceMs()).toBeLessThanOrEqual(25_000);
}, 30_000);

test("and no longer than is of use", () => {
  expect(patienceMs()).toBe(PATIENCE_MS);
}, 1_000_000);
