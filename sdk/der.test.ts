import { expect, test } from "vitest";
import { DER, Der, derTime } from "./der.ts";

const der = (hex: string) => new Der(Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex")));

test("reads values one after the other, and into those that hold others", () => {
  const list = der("30 08 02 02 00ff 06 02 2a03").next(DER.SEQUENCE)!;
  expect(list.next(DER.INTEGER)!.hex()).toBe("ff");
  expect(list.optional(DER.BOOLEAN)).toBeUndefined();
  expect(list.next(DER.OID)!.oid()).toBe("1.2.3");
  expect([list.tag, list.next()]).toEqual([-1, undefined]);
});

test("knows identifiers of several bytes and of every root", () => {
  expect(der("06 09 2b06010505073001 01").next()!.oid()).toBe("1.3.6.1.5.5.7.48.1.1");
  expect(der("06 03 883703").next()!.oid()).toBe("2.999.3");
});

test("long lengths, and those that are longer than what is there", () => {
  expect(der(`04 8180 ${"ab".repeat(128)}`).next()!.content.length).toBe(128);
  for (const broken of ["", "04", "04 02 00", "04 80 00", "04 85 0000000001 00", "04 84 ffffffff"])
    expect(der(broken).next(), broken).toBeUndefined();
});

test("times of both forms", () => {
  const time = (text: string) => derTime(new Der(new TextEncoder().encode(text)));
  expect(time("491231235959Z")).toBe(Date.UTC(2049, 11, 31, 23, 59, 59));
  expect(time("500101000000Z")).toBe(Date.UTC(1950, 0, 1));
  expect(time("20260203040506.5Z")).toBe(Date.UTC(2026, 1, 3, 4, 5, 6));
  expect(time("2026")).toBeUndefined();
  expect(derTime(undefined)).toBeUndefined();
});
