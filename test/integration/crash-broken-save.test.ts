import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, expect, it } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, direct, http, type Json, listener } from "./config.ts";
import { Proxy, ROOT } from "./proxy.ts";

let proxy: Proxy | undefined;
afterEach(() => proxy?.stop());

const filterOf = (
  mark: string,
  setup = "",
) => `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "mark", config: Type.Object({}), setup() { ${setup}
  return () => ({ onResponseHeaders(h) { h.set("x-mark", "${mark}"); } }); } });`;

const configOf = (path: string): Json =>
  bootstrap([
    listener(
      "main",
      http(
        [
          direct(path, "yes"),
          { ...direct("/", ""), direct_response: { status: 200, body: { filename: "body.txt" } } },
        ],
        {},
        [{ name: "mark", config: {} }],
      ),
    ),
  ]);

interface Save {
  readonly breaks: (running: Proxy) => void;
  /** What the log says of it, in each process. */
  readonly says: RegExp;
  /** Admin's /filters shows it, too. */
  readonly isShown: boolean;
}

const remove = (running: Proxy, name: string) => rmSync(path.join(running.dir, name));
const SAVES: Readonly<Record<string, Save>> = {
  "a filter with a syntax error": {
    breaks: (running) => running.write("filters/mark.ts", "export default ;"),
    says: /mark\.ts:1:16.*\n[^]*stays at generation/,
    isShown: true,
  },
  "a filter whose setup throws": {
    breaks: (running) => running.write("filters/mark.ts", filterOf("2", 'throw new Error("no");')),
    says: /mark\.ts:2:.*no\n[^]*stays at generation/,
    isShown: true,
  },
  "a filter's end": {
    breaks: (running) => remove(running, "filters/mark.ts"),
    says: /the files of http\/mark are gone, and the config still uses it/,
    isShown: true,
  },
  "a config with a mistake": {
    breaks: (running) => running.reconfigure({ static_resources: { listenrs: [] } }),
    says: /listenrs[^]*the config of before goes on/,
    isShown: false,
  },
  "a config's end": {
    breaks: (running) => remove(running, "envoy.json"),
    says: /cannot be read[^]*the config of before goes on/,
    isShown: false,
  },
  "the end of a file that the config names": {
    breaks: (running) => remove(running, "body.txt"),
    says: /body\.txt[^]*the config of before goes on/,
    isShown: false,
  },
};

/** Ends the process that serves, and waits for the next one. */
async function crash(running: Proxy): Promise<void> {
  const from = running.lines.length;
  process.kill(running.processes()[0]!, "SIGKILL");
  await running.line(/^watching /, from);
}

const serves = (running: Proxy, path: string, mark: string, text = "yes") =>
  eventually(
    () => get(running.port("main"), path).catch(() => undefined),
    (answer) => answer?.headers["x-mark"] === mark && answer.text === text,
    `${path} with the mark ${mark} and the text ${text}`,
  );

it.each(Object.entries(SAVES))(
  "%s on disk keeps no process from serving what served before, after any crash",
  async (_what, { breaks, says, isShown }) => {
    const files = { "filters/mark.ts": filterOf("1"), "body.txt": "from a file" };
    proxy = await Proxy.start({ config: configOf("/path"), files, concurrency: 2 });
    // Nobody waits until the first process has seen the save.
    breaks(proxy);
    // The second crash finds a process that waits.
    for (let crashes = 1; crashes <= 2; crashes++) {
      const from = proxy.lines.length;
      await crash(proxy);
      await serves(proxy, "/path", "1");
      await serves(proxy, "/", "1", "from a file");
      await proxy.line(says, from);
      expect(/^http\/mark .* failed /m.test(await proxy.admin("/filters"))).toBe(isShown);
    }
    // All is well again, and new.
    proxy.write("body.txt", "another one");
    proxy.write("filters/mark.ts", filterOf("3"));
    proxy.reconfigure(configOf("/other"));
    await serves(proxy, "/other", "3");
    await serves(proxy, "/path", "3", "another one");
    await crash(proxy);
    await serves(proxy, "/path", "3", "another one");
  },
  300_000,
);

it("a shipped filter that is broken on disk serves as it did before, after a crash", async () => {
  const shipped = mkdtempSync(path.join(os.tmpdir(), "tsproxy-shipped-"));
  const filter = (source: string) => !source.endsWith("node_modules");
  cpSync(path.join(ROOT, "filters"), shipped, { recursive: true, filter });
  try {
    const files = { "filters/mark.ts": filterOf("1"), "body.txt": "from a file" };
    const env = { TSPROXY_SHIPPED_FILTERS: shipped };
    proxy = await Proxy.start({ config: configOf("/path"), files, env });
    const file = path.join(shipped, "http/router/filter.ts");
    const source = readFileSync(file, "utf8");
    writeFileSync(file, `${source}\nexport const x = ;\n`);
    await proxy.line(/http\/router stays at generation/);
    await crash(proxy);
    await serves(proxy, "/path", "1");
    const from = proxy.lines.length;
    await crash(proxy);
    await proxy.line(/http\/router stays at generation/, from);
    await serves(proxy, "/path", "1");
    writeFileSync(file, source);
    await proxy.line(/http\/router is again what serves/);
  } finally {
    rmSync(shipped, { recursive: true, force: true });
  }
}, 300_000);
