import { describe, expect, it } from "vitest";
import { CidrRanges, formatIp, isLoopback, parseIp } from "./ip.ts";

const round = (text: string) => {
  const bytes = parseIp(text);
  return bytes === undefined ? undefined : formatIp(bytes);
};

describe("an IP address", () => {
  it.each([
    ["1.2.3.4", "1.2.3.4"],
    ["::", "::"],
    ["::1", "::1"],
    ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["fe80::1:2", "fe80::1:2"],
    ["::ffff:102:304", "::ffff:1.2.3.4"],
    ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"],
    ["1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"],
  ])("%s is read and written as %s", (text, written) => {
    expect(round(text)).toBe(written);
  });

  it.each([
    "",
    "junk",
    "1.2.3",
    "1.2.3.4.5",
    "256.1.1.1",
    "01.2.3.4",
    "1.1.1.1:80",
    ":",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7::8",
    "12345::",
    "[::1]",
    "::1%eth0",
    "1.2.3.4::",
    `${"1".repeat(50)}`,
  ])("%s is none", (text) => {
    expect(parseIp(text)).toBeUndefined();
  });

  it("may be in a network", () => {
    const config = [
      { address_prefix: "10.0.0.0", prefix_len: 8 },
      { address_prefix: "192.0.2.128", prefix_len: 25 },
      { address_prefix: "2001:db8::", prefix_len: 33 },
    ];
    const ranges = new CidrRanges(config, "x");
    const has = (text: string) => ranges.contains(parseIp(text)!);
    expect([has("10.255.0.1"), has("11.0.0.1")]).toEqual([true, false]);
    expect([has("192.0.2.200"), has("192.0.2.127")]).toEqual([true, false]);
    expect([has("2001:db8:7fff::"), has("2001:db8:8000::")]).toEqual([true, false]);
    expect(isLoopback(parseIp("127.9.9.9")!) && isLoopback(parseIp("::1")!)).toBe(true);
  });
});
