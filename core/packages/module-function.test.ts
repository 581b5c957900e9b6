import { runInThisContext } from "node:vm";
import { expect, test } from "vitest";
import { bundle } from "./bundle.ts";
import { moduleFunction } from "./module-function.ts";
import { discoverShipped } from "./packages.ts";
import { buildPreludes } from "./preludes.ts";

const MODULE = `// a.ts
import {
  hold,
  reply as reply2
} from "@tsproxy/sdk";

// b.ts
import { hold as hold2 } from "@tsproxy/sdk";
var text = "import";
export {
  text as default,
  hold2
};
/*! a licence */
`;

test("a module's function answers its exports, each line where it was, one lower", () => {
  const made = moduleFunction(MODULE)!;
  expect(made.exports).toEqual(["default", "hold2"]);
  const lines = made.code.split("\n");
  const isKept = (line: string) => line.startsWith("//") || line.startsWith("var");
  for (const [k, line] of MODULE.split("\n").entries())
    if (isKept(line)) expect(lines[k + 1]).toBe(line);
  expect(runInThisContext(made.code)({ hold: 1, reply: 2 })).toEqual({
    default: "import",
    hold2: 1,
  });
});

test.each([
  'import * as sdk from "@tsproxy/sdk";\n',
  'import "@tsproxy/sdk";\n',
  'import { a } from "elsewhere";\n',
  'export { a } from "@tsproxy/sdk";\n',
  "export default 1;\n",
])("there is none for %j", (code) => {
  expect(moduleFunction(code)).toBeUndefined();
});

test("without white space too, each column stays where it was", () => {
  const code =
    'import{a as b}from"@tsproxy/sdk";var c=b;import{d}from"@tsproxy/sdk";var e=[c,d];export{e as default};\n';
  const made = moduleFunction(code)!;
  expect(made.code.split("\n")[1]!.indexOf("var e=")).toBe(code.indexOf("var e="));
  expect(runInThisContext(made.code)({ a: 1, d: 2 })).toEqual({ default: [1, 2] });
});

test("a statement of many names takes time by its length, not by its square", () => {
  const names = Array.from({ length: 10_000 }, (_, k) => `exported${k}`);
  const begun = process.cpuUsage();
  const made = moduleFunction(`var a=1;export{${names.map((name) => `a as ${name}`)}};\n`)!;
  const { user, system } = process.cpuUsage(begun);
  expect(made.exports).toEqual(names);
  // It takes 0.02 s; by the square it would be 20.
  expect((user + system) / 1e6).toBeLessThan(5);
});

test.each([false, true])(
  "all shipped packages and core's own modules have one (isCompact: %s)",
  async (isCompact) => {
    const packages = discoverShipped().map(({ entry, id }) =>
      bundle({ entry, filename: id, isCompact }),
    );
    const all = [...(await buildPreludes({ isCompact })), ...(await Promise.all(packages))];
    const others = all.filter(({ code }) => moduleFunction(code) === undefined);
    expect(others.map(({ filename }) => filename)).toEqual([]);
  },
);
