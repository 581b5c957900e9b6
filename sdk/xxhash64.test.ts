import { expect, it } from "vitest";
import { xxHash64 } from "./xxhash64.ts";

// Digests of the reference implementation.
it.each([
  ["", 0n, 0xef46db3751d8e999n],
  ["a", 0n, 0xd24ec4f1a98c6e5bn],
  ["abc", 0n, 0x44bc2cf5ad770999n],
  ["abcdefghijklmnopqrstuvwxyz012345", 0n, 0xbf2cd639b4143b80n],
  ["Call me Ishmael. Some years ago--never mind how long precisely-", 0n, 0x02a2e85470d6fd96n],
])("hashes %j as the reference does", (text, seed, digest) => {
  expect(xxHash64(text, seed)).toBe(digest);
});

it("takes bytes wherever they lie, and a seed", () => {
  const bytes = new Uint8Array([1, 97, 98, 99]).subarray(1);
  expect(xxHash64(bytes)).toBe(xxHash64("abc"));
  expect(xxHash64("abc", 1n)).not.toBe(xxHash64("abc"));
});
