import { latin1Encode } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import { isReferer } from "./referer.ts";

const ABSOLUTE =
  /^[a-z][a-z-]*:\/\/(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?(?:[/?][!-"$-~]*)?$/i;
const RELATIVE = /^[\w.~!$&'()*+,;=@%?-]*(?:\/[\w.~!$&'()*+,;=:@%/?-]*)?$/;

function grammar(text: string): boolean {
  const absolute = ABSOLUTE.exec(text);
  return absolute === null ? RELATIVE.test(text) : Number(absolute[1] ?? 0) <= 65_535;
}

function isGood(text: string): boolean {
  const bytes = latin1Encode(` ${text} `);
  return isReferer(bytes, 1, bytes.length - 1);
}

describe("a referer", () => {
  it.each([
    ["http://a.test/p?q", true],
    ["HTTPS://[::1]:80/", true],
    ["http://a.test:65535", true],
    ["/rel?x", true],
    ["rel/a:b", true],
    ["", true],
    ["http://a.test:65536/", false],
    ["http://a.test:/", false],
    ["http://user@a.test/", false],
    ["http://a.test/#f", false],
    ["http://[::1/", false],
    ["http:///p", false],
    ["a:b", false],
    ["/a b", false],
  ])("%j: %s", (text, good) => {
    expect(isGood(text)).toBe(good);
  });

  it("is what the grammar says of 100,000 generated ones", () => {
    const parts = [
      ..."aZ09-._~:/?#[]@!$&'()*+,;=%\" \\{|\x7f\xe9".split(""),
      ...["http", "://", "[::1]", ":80", ":65536", "//", "host.test", "/p?q"],
    ];
    let seed = 7;
    const next = (n: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
      return (seed >>> 8) % n;
    };
    for (let k = 0; k < 100_000; k++) {
      let text = next(2) === 0 ? "http://" : "";
      for (let n = next(6); n > 0; n--) text += parts[next(parts.length)]!;
      if (isGood(text) !== grammar(text))
        expect([text, isGood(text)]).toEqual([text, grammar(text)]);
    }
  });
});
