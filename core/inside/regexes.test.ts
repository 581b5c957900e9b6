import { expect, it } from "vitest";
import { buildPreludes, PRELUDES } from "../packages/preludes.ts";
import { Host } from "./host.ts";
import { compileRegex } from "./regex.ts";
import { REGEX_MODULE, Regexes } from "./regexes.ts";

it("what compiles regexes is asked for with the first one, and once", () => {
  const asked: string[] = [];
  const regexes = new Regexes(
    new Host((name, text) => {
      asked.push(`${name} ${text}`);
      regexes.define({ compileRegex });
      return "";
    }),
  );
  expect(asked).toEqual([]);
  expect(regexes.compile("a+").matches("aa")).toBe(true);
  expect(regexes.compile("(a|b)+").matches("abc")).toBe(false);
  const demand = JSON.stringify({ name: REGEX_MODULE, isPrepared: false });
  expect(asked).toEqual([`module ${demand}`]);
});

it("a regex throws what prevented its module", () => {
  const regexes = new Regexes(new Host(() => "out of memory"));
  expect(() => regexes.compile("a")).toThrow("out of memory");
});

it("no other module that the builtin isolate loads holds the regex engine", {
  timeout: 60_000,
}, async () => {
  const bundles = await buildPreludes();
  const names = Object.keys(PRELUDES).filter((_, k) => bundles[k]!.code.includes("class RE2JS"));
  expect(names).toEqual(["tsproxy:sandbox", REGEX_MODULE]);
});
