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

test("all shipped packages and core's own modules have one", async () => {
  const packages = discoverShipped().map(({ entry, id }) => bundle({ entry, filename: id }));
  const all = [...(await buildPreludes()), ...(await Promise.all(packages))];
  const others = all.filter(({ code }) => moduleFunction(code) === undefined);
  expect(others.map(({ filename }) => filename)).toEqual([]);
});
