import { expect, test } from "vitest";
import { textHash } from "./text-hash.ts";

test("texts that differ in a little have different hashes", () => {
  const seen = new Set<string>();
  const texts = Array.from({ length: 100_000 }, (_, k) => `{"port":${k}}`);
  const long = "x".repeat(10_000);
  for (let k = 0; k < long.length; k += 10) {
    texts.push(`${long.slice(0, k)}y${long.slice(k + 1)}`, long.slice(k));
    texts.push(`${long.slice(0, k)}yx${long.slice(k + 2)}`.replace("yx", "xz"));
  }
  for (const text of texts) seen.add(textHash(text));
  expect(seen.size).toBe(new Set(texts).size);
});

test("is the same for the same text, and 16 hex digits", () => {
  expect(textHash("ä\n")).toBe(textHash("ä\n"));
  expect(textHash("")).toMatch(/^[0-9a-f]{16}$/);
});
