import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, get, RawClient } from "./client.ts";
import { address, bootstrap, direct, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

// Dropped-in packages of the kinds that are asked seldom: each in a sandbox of its own, without trust.

const LOG = `
import { defineAccessLogger, Type } from "@tsproxy/sdk";
export default defineAccessLogger({
  name: "short_log",
  config: Type.Object({ path: Type.String() }),
  setup(config, cx) {
    const file = cx.file(config.path);
    const elsewhere = cx.file("/tmp/nobody-has-named-this");
    return {
      log({ info, request, response }) {
        if (request?.path === "/throw") throw new Error("on purpose");
        file.append(\`\${request?.method} \${request?.path} \${info.responseCode} \${response?.get("content-length")}\\n\`);
        if (request?.path === "/elsewhere") elsewhere.append("no");
      },
    };
  },
});
`;

const GATE = `
import { defineListenerFilter, Type } from "@tsproxy/sdk";
export default defineListenerFilter({
  name: "gate",
  config: Type.Object({}),
  setup: (_config, cx) => (socket) => ({
    async onBytes(bytes) {
      const text = bytes.text();
      if (!text.includes("\\n")) return "more";
      const line = text.slice(0, text.indexOf("\\n") + 1);
      if (line === "no\\n") return "close";
      await new Promise((resolve) => setTimeout(resolve, 5));
      cx.stats.counter("gate.passed").inc();
      socket.serverName = line.trim();
      return line.length;
    },
  }),
});
`;

let folder: string;
let log: string;
let proxy: Proxy;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "tsproxy-kinds-"));
  log = path.join(folder, "short.log");
  const chain = (text: string) =>
    http([direct("/", text)], { access_log: [{ name: "short_log", config: { path: log } }] });
  proxy = await Proxy.start({
    config: bootstrap(
      [
        listener("plain", chain("plain")),
        {
          name: "gated",
          address: address(0),
          listener_filters: [{ name: "gate", config: {} }],
          filter_chains: [
            { filter_chain_match: { server_names: ["blue"] }, filters: [chain("blue!")] },
            { filters: [chain("other")] },
          ],
        },
      ],
      [],
    ),
    files: { "filters/short_log.ts": LOG, "filters/gate.ts": GATE },
    concurrency: 2,
  });
});
afterAll(async () => {
  await proxy?.stop();
  await rm(folder, { recursive: true, force: true });
});

const lines = (): string[] =>
  existsSync(log) ? readFileSync(log, "utf8").trimEnd().split("\n") : [];

test("an access log writes what its streams came to, to the file that its config names", async () => {
  await Promise.all(Array.from({ length: 100 }, (_, k) => get(proxy.port("plain"), `/${k}`)));
  await get(proxy.port("plain"), "/throw");
  await get(proxy.port("plain"), "/elsewhere");
  await eventually(lines, (found) => found.length >= 101, "all lines are there");
  const expected = [...Array.from({ length: 100 }, (_, k) => `/${k}`), "/elsewhere"];
  expect(lines().sort()).toEqual(expected.map((at) => `GET ${at} 200 5`).sort());
  await proxy.line(/fault: access_log\/short_log: .*log threw: on purpose/);
  await proxy.line(/nobody-has-named-this.* is not written/);
  expect(existsSync("/tmp/nobody-has-named-this")).toBe(false);
});

test("a listener filter takes first bytes, says what the chain is chosen by, and turns away", async () => {
  const ask = async (hello: string): Promise<string> => {
    const client = await RawClient.connect(proxy.port("gated"));
    client.send(hello.slice(0, 2));
    client.send(hello.slice(2));
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    await client.until(({ closed }) => closed);
    return client.text.split("\r\n\r\n")[1] ?? "";
  };
  expect(await Promise.all(["blue\n", "green\n", "no\n"].map(ask))).toEqual(["blue!", "other", ""]);
});

test("what has not been handed over when the proxy drains is not lost", async () => {
  await get(proxy.port("plain"), "/last");
  await proxy.stop();
  expect(lines()).toContain("GET /last 200 5");
});
