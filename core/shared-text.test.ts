import { expect, test } from "vitest";
import { readText, sharedText } from "./shared-text.ts";

test("text arrives as it was, a long one in shared memory", () => {
  const long = `${"ä€😀 x".repeat(20_000)}`;
  expect(sharedText(long)).toBeInstanceOf(SharedArrayBuffer);
  expect(readText(sharedText(long))).toBe(long);
  expect(sharedText("kurz: ä")).toBe("kurz: ä");
});
