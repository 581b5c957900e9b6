import { RE2JS } from "re2js";
import { describe, expect, it } from "vitest";
import { toLinearSource } from "./re2-syntax.ts";
import { compileRegex } from "./regex.ts";

describe("a regular expression", () => {
  it.each([
    ["(?i)/Foo", "/fOO", true],
    ["/(?P<name>a+)/b", "/aaa/b", true],
    ["/a(?i:b)c", "/aBc", true],
    ["/a(?i:b)c", "/aBC", false],
    ["(?i)a(?-i)b", "AB", false],
    ["\\Aab\\z", "ab", true],
    ["\\pL+", "abc", true],
    ["[[:alpha:]]+", "abC", true],
    ["[[:^alpha:]]+", "123", true],
    ["[]a]+", "]a", true],
    ["[^]a]+", "bc", true],
    ["\\Qa.b\\E", "a.b", true],
    ["\\Qa.b\\E", "axb", false],
    ["(?s).*", "a\nb", true],
    [".*", "a\rb", true],
    ["\\s", "\v", false],
    ["[\\s]", "\v", false],
    ["a{,2}", "a{,2}", true],
    ["\\x{41}\\x42", "AB", true],
    ["[a-c-]+", "a-c", true],
    ["(?i)[a-c]+", "ABc", true],
    ["(?i)[Y-b]", "B", true],
    ["a|ab", "ab", true],
    ["^/x$", "/x", true],
    ["(a|b)*c|d", "d", true],
  ])("%s and %s", (pattern, text, matches) => {
    expect(compileRegex(pattern).matches(text)).toBe(matches);
    expect(RE2JS.compile(pattern).matches(text)).toBe(matches);
  });

  it("reads UTF-8 as characters, and what is none as bytes", () => {
    const bytes = (text: string) => Buffer.from(text, "utf8").toString("latin1");
    expect(compileRegex("..").matches(bytes("éé"))).toBe(true);
    expect(compileRegex("(?i)É.*").matches(bytes("éa"))).toBe(true);
    expect(compileRegex("[^a]").matches(bytes("é"))).toBe(true);
    expect(compileRegex("[^a]").matches("\xe9")).toBe(true);
    expect(compileRegex("(.)b").replaceAll(bytes("éb"), "<\\1>")).toBe(bytes("<é>"));
  });

  it.each(["(?=a)", "(?<!a)b", "\\1(a)", "a**", "(?>a)", "[b-a]", "a{1001}", "\\8", "(", "\\y"])(
    "is refused if RE2 has no such syntax: %s",
    (pattern) => {
      expect(() => compileRegex(pattern)).toThrow(/is not a regular expression of RE2/);
    },
  );

  it("replaces every match as RE2 does", () => {
    const replace = (pattern: string, text: string, substitution: string) =>
      compileRegex(pattern).replaceAll(text, substitution);
    expect(replace("a*", "baac", "-")).toBe("-b-c-");
    expect(replace("(a)(b)?", "aab", "[\\1\\2\\0]")).toBe("[aa][abab]");
    expect(replace("(a)", "a", "\\10$1$&\\\\")).toBe("a0$1$&\\");
    expect(replace("^/(\\w+)/(\\w+)$", "/x/y", "/\\2/\\1")).toBe("/y/x");
    expect(replace("\\pL", "a1", "<\\0>")).toBe("<a>1");
  });

  it("does not stall, whatever the pattern and the text", () => {
    // A backtracking engine would take exponential time here.
    const text = `${"a".repeat(30_000)}!`;
    for (const pattern of ["(a+)+$", "(a|a)*b", "(.*)*x", "(a?){50}a{50}", "(?i)(A+)+b"]) {
      expect(compileRegex(pattern).matches(text)).toBe(false);
      compileRegex(pattern).replaceAll(text, "");
    }
  });

  it("is read by V8 as re2js reads it", () => {
    let seed = 7;
    const pick = (below: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return seed % below;
    };
    const parts =
      "a b c A B - . * + ? | ( ) (?: (?i) (?i: [ab] [^a] [a-c] \\d \\w \\s \\b ^ $ {2} {1,2} \\. [[:digit:]] \\Q.\\E".split(
        " ",
      );
    const texts = ["", "a", "ab", "aab", "ABC", "a.b", "b-c", "1a", "aa bb", "a\nb"];
    let translated = 0;
    for (let n = 0; n < 4000; n++) {
      const pattern = Array.from({ length: 1 + pick(6) }, () => parts[pick(parts.length)]).join("");
      let exact: RE2JS;
      try {
        exact = RE2JS.compile(pattern);
      } catch {
        continue;
      }
      const source = toLinearSource(pattern);
      if (source === undefined) continue;
      let regex: RegExp;
      try {
        regex = new RegExp(`^(?:${source})$`, "l");
      } catch {
        continue;
      }
      translated++;
      for (const text of texts) {
        const say = `${pattern} on ${JSON.stringify(text)}`;
        expect([say, regex.test(text)]).toEqual([say, exact.matches(text)]);
      }
    }
    expect(translated).toBeGreaterThan(500);
  });
});
