import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openLog } from "./log.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), "log-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

it("flush writes the lines that wait, before a process ends itself by a signal", async () => {
  const file = path.join(folder, "proxy.log");
  const { log, flush } = await openLog({
    level: "info",
    components: {},
    path: file,
    escaped: false,
  });
  for (const line of ["first", "second", "last"]) log.error(line);
  // Nothing that was begun can go on before the next line: this is all that a process which is killed here would have written.
  flush();
  expect(readFileSync(file, "utf8")).toContain('"last"');
});
