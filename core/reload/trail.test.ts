import { expect, test } from "vitest";
import { BLAME_MS, Trail } from "./trail.ts";

test("what served a minute ago is known, however often it was replaced since", () => {
  const trail = new Trail<string>();
  expect(trail.proven(0)).toBeUndefined();
  trail.left("a", 1_000);
  trail.left("b", 30_000);
  trail.left("c", 50_000);
  expect(trail.proven(BLAME_MS + 999)).toBe("a");
  expect(trail.proven(BLAME_MS + 1_000)).toBe("b");
  expect(trail.proven(BLAME_MS + 30_000)).toBe("c");
  expect(trail.proven(BLAME_MS + 50_000)).toBeUndefined();
});

test("of what was replaced again and again the oldest stays to be gone back to, for a minute after its last successor came", () => {
  const trail = new Trail<number>();
  trail.left(0, 1_000);
  trail.left(1, 2_000);
  expect(trail.proven(BLAME_MS + 1_500)).toBe(0);
  expect(trail.proven(BLAME_MS + 2_000)).toBeUndefined();
});

test("nothing is left to go back to once that was done", () => {
  const trail = new Trail<string>();
  trail.left("a", 0);
  trail.clear();
  expect(trail.proven(1)).toBeUndefined();
});
