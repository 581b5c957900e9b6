import { afterEach, expect, it } from "vitest";
import { get } from "./client.ts";
import { bootstrap, direct, http, type Json, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

let proxy: Proxy | undefined;
afterEach(() => proxy?.stop());

/** Each stays below its time box; together, in one crossing, they take longer than a shipped filter may. No name begins another one, as a route would. */
const NAMES = Array.from({ length: 16 }, (_, k) => `slow${10 + k}`);
/** It counts the milliseconds that it sees pass, which are those in which it has a CPU. */
const source = (name: string) => `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "${name}", config: Type.Object({}), setup: () => () => ({
  onRequestHeaders() {
    for (let seen = 0, last = 0; seen < 100; ) { const now = Date.now(); if (now !== last) seen++; last = now; }
  } }) });`;

/** The route of one filter; the others are switched off. */
function routeOf(own: string): Json {
  const off = { "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", disabled: true };
  const others = NAMES.filter((name) => name !== own).map((name) => [name, off]);
  return { ...direct(`/${own}`, "yes"), typed_per_filter_config: Object.fromEntries(others) };
}

it("the time that dropped-in filters take one after the other is no hang of the shipped ones", async () => {
  const filters = NAMES.map((name) => ({ name, config: {} }));
  proxy = await Proxy.start({
    config: bootstrap([listener("main", http(NAMES.map(routeOf), {}, filters))]),
    files: Object.fromEntries(NAMES.map((name) => [`filters/${name}.ts`, source(name)])),
    concurrency: 1,
  });
  const port = proxy.port("main");
  // While the first is at work the others arrive, and are served in the next crossing.
  const answers = await Promise.all(NAMES.map((name) => get(port, `/${name}`)));
  // One that has no CPU for too long is stopped by its own time box, and says so; none may fail for anything else.
  const failed = NAMES.filter(
    (name, k) => answers[k]!.text !== "yes" && !proxy!.output.includes(`fault: http/${name}: `),
  );
  expect(failed, proxy.output).toEqual([]);
  expect(proxy.output).not.toMatch(/was lost/);
});
