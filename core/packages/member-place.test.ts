import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { formatProblem } from "../problem.ts";
import { bundle } from "./bundle.ts";
import { problemInFile, problemOfMember } from "./member-place.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "member-place-"));
afterAll(() => fs.rmSync(folder, { recursive: true }));
const entry = path.join(folder, "filter.ts");

/** Where that member is, by the bundle and by the file: `line:column`. */
async function placesOf(source: string, ...names: string[]): Promise<(string | undefined)[]> {
  fs.writeFileSync(entry, source);
  const made = await bundle({ entry, filename: "filter" });
  return [problemOfMember("no", names, made), problemInFile("no", names, entry)].map(
    (found) => found && `${found.line}:${found.column}`,
  );
}

test.each([
  [
    "inside the definition",
    "export default {\n  sandbox: { body: 'none', cpuShare: 7 },\n};",
    "2:28",
  ],
  ["in quotes", "export default {\n  sandbox: {\n    'cpuShare': 7,\n  },\n};", "3:5"],
  [
    "in a variable that the definition names",
    "const sandbox = {\n  cpuShare: 7,\n};\nexport default { sandbox };",
    "2:3",
  ],
  [
    "in a variable of another name, further up",
    "const limits = {\n  cpuShare: 7,\n};\nexport default { sandbox: limits };",
    "2:3",
  ],
  [
    "behind others of its name",
    "const x = (): object => ({ cpuShare: 1 });\nexport default { x, sandbox: { cpuShare: 7 } };",
    "2:32",
  ],
])("finds a member %s", async (_where, source, place) => {
  expect(await placesOf(source, "sandbox", "cpuShare")).toEqual([place, place]);
});

test("a member that is written nowhere is told at the one around it", async () => {
  const source = "const name = 'cpu';\nexport default { sandbox: { [name + 'Share']: 7 } };";
  expect(await placesOf(source, "sandbox", "cpuShare")).toEqual(["2:18", "2:18"]);
});

test("the line is shown, with the name marked", () => {
  fs.writeFileSync(entry, "export default {\n  sandbox: { cpuShare: 7 },\n};\n");
  expect(formatProblem(problemInFile("no", ["sandbox", "cpuShare"], entry))).toBe(
    `${entry}:2:14: no
  1 | export default {
> 2 |   sandbox: { cpuShare: 7 },
    |              ^^^^^^^^
  3 | };`,
  );
});
