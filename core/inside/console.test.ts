import { expect, test } from "vitest";
import { makeConsole } from "./console.ts";

test("lines go to the log with their level, and to the debugger as they are", () => {
  const lines: string[] = [];
  const heard: unknown[][] = [];
  const console = makeConsole((level, message) => lines.push(`${level} ${message}`), {
    log: (...values) => heard.push(values),
  });
  const own = { a: 1 };
  console.log("seen", own, new Map([["k", 2n]]), undefined, null, Symbol("s"));
  console.warn(new Set([1]));
  console.error(Object.assign(new Error("no"), { stack: "Error: no\n  at x" }));
  console.debug(own);
  expect(lines).toEqual([
    'info seen {"a":1} {"k":"2"} undefined null Symbol(s)',
    "warn [1]",
    "error Error: no\n  at x",
    'debug {"a":1}',
  ]);
  expect(heard[0]![1]).toBe(own);
});

test("what no JSON can carry does not throw", () => {
  const lines: string[] = [];
  const round: Record<string, unknown> = {};
  round["round"] = round;
  makeConsole((_level, message) => lines.push(message), undefined).log(round);
  expect(lines).toEqual(["[object Object]"]);
});
