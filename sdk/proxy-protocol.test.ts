import { expect, test } from "vitest";
import { headerV1, headerV2, joinedTlvs, passedTlvs } from "./proxy-protocol.ts";

const client = { ip: "10.1.2.3", port: 8080 };
const server = { ip: "192.0.2.1", port: 80 };
const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");

test("version 1 is one line", () => {
  expect(text(headerV1(client, server))).toBe("PROXY TCP4 10.1.2.3 192.0.2.1 8080 80\r\n");
  const six = { ip: "2001:db8::1", port: 1 };
  expect(text(headerV1(six, six))).toBe("PROXY TCP6 2001:db8::1 2001:db8::1 1 1\r\n");
  expect(text(headerV1({ ip: "", port: 0, path: "@a" }, server))).toBe("PROXY UNKNOWN\r\n");
});

test("version 2 names both ends, or says LOCAL", () => {
  expect(text(headerV2(client, server, false))).toBe(
    "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x01\x02\x03\xc0\x00\x02\x01\x1f\x90\x00\x50",
  );
  expect(text(headerV2(client, server, true))).toBe("\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
  expect(headerV2(client, { ip: "::1", port: 1 }, false)).toHaveLength(16);
});

test("what a client's header had beside addresses is sent on, as far as the config says", () => {
  const tlvs = [
    { type: 0xea, value: Uint8Array.of(1, 2, 3) },
    { type: 2, value: Uint8Array.of(4) },
  ];
  expect(passedTlvs(tlvs, undefined)).toEqual([]);
  expect(passedTlvs(tlvs, { match_type: "INCLUDE_ALL" })).toEqual(tlvs);
  const two = passedTlvs(tlvs, { match_type: "INCLUDE", tlv_type: [2] });
  const header = text(headerV2(client, server, false, two));
  expect(header.slice(12, 16)).toBe("\x21\x11\0\x10");
  expect(header.slice(28)).toBe("\x02\0\x01\x04");
});

test("added fields come first, in the place of the client's own of that type", () => {
  const field = (type: number, byte: number) => ({ type, value: Uint8Array.of(byte) });
  const own = [field(1, 1), field(2, 2)];
  expect(joinedTlvs([], own)).toBe(own);
  expect(joinedTlvs([field(2, 9), field(3, 9)], own)).toEqual([
    field(2, 9),
    field(3, 9),
    field(1, 1),
  ]);
});

test("fields that find no room behind the addresses are left out, however long they are", () => {
  const six = { ip: "::1", port: 1 };
  const room = 0xffff - 36 - 3;
  const fits = headerV2(six, six, false, [{ type: 1, value: new Uint8Array(room) }]);
  expect(fits).toHaveLength(16 + 0xffff);
  expect(text(fits.subarray(14, 16))).toBe("\xff\xff");
  const long = headerV2(six, six, false, [{ type: 1, value: new Uint8Array(room + 1) }]);
  expect(text(long.subarray(14))).toBe(text(headerV2(six, six, false).subarray(14)));
});
