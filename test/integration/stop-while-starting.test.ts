import { existsSync, readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { eventually } from "./client.ts";
import { bootstrap, direct, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

const FILTER = `
import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "NAME", config: Type.Object({}), setup: () => () => ({}) });
`;
/** Nothing else can keep a start at one place for as long as a test needs. */
const ENDLESS = `${FILTER.replace("NAME", "endless")}\nwhile (true);`;

test.each(["SIGTERM", "SIGINT"] as const)(
  "%s during a start ends it without a word, and leaves no process behind",
  async (signal) => {
    const others = Array.from({ length: 20 }, (_, k) => `other${k}`);
    const proxy = Proxy.launch({
      config: bootstrap([listener("main", http([direct("/", "hello")]))], []),
      files: {
        "filters/endless.ts": ENDLESS,
        ...Object.fromEntries(
          others.map((name) => [`filters/${name}.ts`, FILTER.replace("NAME", name)]),
        ),
      },
    });
    try {
      await eventually(
        () => proxy.processes("trial"),
        (trials) => trials.length > 0,
        "the process for new code",
      );
      const all = proxy.tree();
      process.kill(proxy.pid, signal);
      expect(await proxy.exited).toBe(0);
      expect(proxy.output + proxy.stdout).toBe("");
      await eventually(
        () => all.filter(isThere),
        (left) => left.length === 0,
        "the end of all",
      );
      expect(readdirSync(proxy.dir).sort()).toEqual(["envoy.json", "filters"]);
    } finally {
      await proxy.stop();
    }
  },
);

function isThere(pid: number): boolean {
  return existsSync(`/proc/${pid}/cmdline`);
}
