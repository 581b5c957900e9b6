import { expect, test } from "vitest";
import { base64Decode, copyBytes, latin1Encode, recentText, wordsOf } from "./bytes.ts";

test("copies ranges of every size at every alignment, and nothing beside them", () => {
  const memory = new Uint8Array(new SharedArrayBuffer(1 << 18));
  expect(wordsOf(memory)).toBeDefined();
  for (let k = 0; k < 256; k++) memory[1024 + k] = (k * 7 + 3) & 255;
  for (let size = 0; size < 40; size++) {
    for (let from = 1024; from < 1028; from++) {
      for (let to = 4096; to < 4100; to++) {
        memory.fill(0xee, 4080, 4160);
        copyBytes(memory, to, memory, from, size);
        const where = `${size} bytes from ${from} to ${to}`;
        expect([...memory.subarray(to, to + size)], where).toEqual([
          ...memory.subarray(from, from + size),
        ]);
        expect(memory[to - 1], where).toBe(0xee);
        expect(memory[to + size], where).toBe(0xee);
      }
    }
  }
});

test("copies to the last byte of a memory", () => {
  const memory = new Uint8Array(new SharedArrayBuffer(1 << 18));
  const end = memory.length;
  for (let k = 1; k < 10; k++) memory[end - k] = k;
  copyBytes(memory, 16, memory, end - 9, 9);
  expect([...memory.subarray(16, 25)]).toEqual([9, 8, 7, 6, 5, 4, 3, 2, 1]);
});

test("decodes values that came before as well as those that share their place", () => {
  // One end, middle and length: all of them fall into one place of the table.
  const values = ["a", "b", "c"].map((first) => `${first}------- some value -------z`);
  for (let round = 0; round < 40; round++)
    for (const value of [...values, "short", "", "x".repeat(300)]) {
      const bytes = latin1Encode(` ${value} `);
      expect(recentText(bytes, 1, bytes.length - 1)).toBe(value);
    }
});

test("reads base64 of both alphabets, padded or not, and nothing else", () => {
  const text = (base64: string) => base64Decode(base64) && Buffer.from(base64Decode(base64)!);
  for (const bytes of ["", "a", "ab", "abc", "abcd", "\xfb\xff\xfe"]) {
    const wanted = Buffer.from(bytes, "latin1");
    for (const form of [wanted.toString("base64"), wanted.toString("base64url")])
      expect(text(form), form).toEqual(wanted);
  }
  for (const other of ["a", "abcde", "ab=c", "ab c", "ä", "===="])
    expect(base64Decode(other), other).toBeUndefined();
});
