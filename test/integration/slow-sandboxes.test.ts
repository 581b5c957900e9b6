import { afterEach, expect, it } from "vitest";
import { get } from "./client.ts";
import { bootstrap, direct, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

let proxy: Proxy | undefined;
afterEach(() => proxy?.stop());

/** Each stays below its time box; together, in one crossing, they take longer than a shipped filter may. */
const NAMES = Array.from({ length: 10 }, (_, k) => `slow${k}`);
const source = (name: string) => `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "${name}", config: Type.Object({}), setup: () => () => ({
  onRequestHeaders() { const until = Date.now() + 150; while (Date.now() < until); } }) });`;

it("the time that dropped-in filters take one after the other is no hang of the shipped ones", async () => {
  proxy = await Proxy.start({
    config: bootstrap([
      listener(
        "main",
        http(
          [direct("/", "yes")],
          {},
          NAMES.map((name) => ({ name, config: {} })),
        ),
      ),
    ]),
    files: Object.fromEntries(NAMES.map((name) => [`filters/${name}.ts`, source(name)])),
    concurrency: 1,
  });
  expect((await get(proxy.port("main"), "/")).text).toBe("yes");
  expect(proxy.output).not.toMatch(/was lost/);
});
