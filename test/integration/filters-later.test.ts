import { rmSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, direct, http, type Json, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { filterSource } from "./reloading.ts";

const configOf = (...filters: Json[]) =>
  bootstrap([listener("main", http([direct("/", "yes")], {}, filters))]);

test("a folder filters/ that is made after the start is seen, also once it was deleted and made again", async () => {
  const proxy = await Proxy.start({ config: configOf() });
  try {
    const marked = (mark: string) =>
      eventually(
        () => get(proxy.port("main"), "/"),
        ({ headers }) => headers["x-mark"] === mark,
        `an answer with the mark ${mark}`,
      );
    expect(proxy.output).toMatch(/watching envoy\.json, filters \(not there yet\)/);
    proxy.write("filters/mark.ts", filterSource(1));
    proxy.reconfigure(configOf({ name: "mark", config: { header: "x-mark" } }));
    await marked("1 0");
    rmSync(path.join(proxy.dir, "filters"), { recursive: true });
    await proxy.line(/the files of http\/mark are gone, and the config still uses it/);
    proxy.write("filters/mark.ts", filterSource(2));
    await marked("2 0");
  } finally {
    await proxy.stop();
  }
});
