import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { bundle } from "./bundle.ts";
import { unknownHooks } from "./unknown-hooks.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hooks-"));
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** The warnings of a package of this kind, as `line:column message`. */
async function warnings(kind: string, source: string): Promise<string[]> {
  const entry = path.join(folder, "filter.ts");
  fs.writeFileSync(entry, source);
  const found = unknownHooks(kind, await bundle({ entry, filename: "filter" }));
  return found.map(({ line, column, message }) => `${line}:${column} ${message}`);
}

test("a hook's name that is misspelt is found, with its line and the name that was meant", async () => {
  const source = `export default () => ({
  onRequestHeader(headers: { get(name: string): string }) {
    headers.get("a");
  },
  async onRespons() {},
  onBody: (chunk: unknown) => chunk,
});`;
  expect(await warnings("http", source)).toEqual([
    '2:3 the proxy calls no "onRequestHeader" of http filters; did you mean "onRequestHeaders"?',
    '5:9 the proxy calls no "onRespons" of http filters; did you mean "onResponseHeaders"?',
    '6:3 the proxy calls no "onBody" of http filters; did you mean "onRequestBody"?',
  ]);
  const network = "export default class { onDate = (chunk: unknown) => chunk; onClose() {} }";
  expect(await warnings("network", network)).toEqual([
    '1:24 the proxy calls no "onDate" of network filters; did you mean "onData"?',
  ]);
});

test("what others call, and what is no hook, is left alone", async () => {
  const source = `export default class {
  onRequestHeaders() {
    this.onRequestHead();
    onResponse();
    return { onFailure: "open", onlyOnce: true };
  }
  onRequestHead() {}
  onEnd() {}
}
function onResponse() {}`;
  expect(await warnings("http", source)).toEqual([]);
  expect(await warnings("service", "export default { onData() {} }")).toEqual([]);
});
