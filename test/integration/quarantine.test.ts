import { expect, test } from "vitest";
import { freePort } from "../../core/command/free-port.ts";
import { eventually, get } from "./client.ts";
import { address, bootstrap, direct, http, type Json, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

/** Nothing can stop the engine while it squares a large number. */
const ENDLESS = "let x = 3n; for (;;) x *= x;";

const configOf = (port: number, script: string, text = "hello"): Json => {
  const filters = [
    { name: "http/script", config: { onRequest: `if (req.path === "/bad") { ${script} }` } },
  ];
  return bootstrap([
    listener("main", http([direct("/", text)], {}, filters), { address: address(port) }),
  ]);
};

test("a script that ended the process is let in again once it is mended, and by later processes too", async () => {
  // Every process must have the same port.
  const port = await freePort();
  const proxy = await Proxy.start({ config: configOf(port, ENDLESS) });
  const status = (path: string) =>
    get(port, path).then(
      (answer) => answer.status,
      () => 0,
    );
  const untilAnswered = (path: string, wanted: number) =>
    eventually(
      () => status(path),
      (seen) => seen === wanted,
      `${path} is answered ${wanted}`,
    );
  try {
    void status("/bad");
    await proxy.line(/inside the filter http\/script/);
    await untilAnswered("/", 500);
    proxy.reconfigure(configOf(port, ENDLESS, "other text"));
    await proxy.line(/^reloaded .*\(generation 2\)/);
    expect(await status("/")).toBe(500);
    proxy.reconfigure(configOf(port, "return reply(418);", "other text"));
    await untilAnswered("/bad", 418);
    expect(await proxy.admin("/filters")).toMatch(/^http\/script .* active /m);

    const from = proxy.lines.length;
    process.kill(proxy.processes()[0]!, "SIGABRT");
    await proxy.line(/^watching /, from);
    await untilAnswered("/bad", 418);
    expect(await status("/")).toBe(200);
  } finally {
    await proxy.stop();
  }
}, 300_000);

test("admin shows why a filter stays out, and why its next save was refused", async () => {
  const port = await freePort();
  const file = (hook: string) => `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "bad", config: Type.Object({}),
  setup: () => () => ({ onRequestHeaders(h) { ${hook} } }) });`;
  const bad = [{ name: "bad", config: {} }];
  const main = listener("main", http([direct("/", "hello")], {}, bad), { address: address(port) });
  const files = { "filters/bad.ts": file(ENDLESS) };
  const proxy = await Proxy.start({ config: bootstrap([main]), files });
  try {
    const from = proxy.lines.length;
    get(port, "/").catch(() => {});
    await proxy.line(/inside the filter http\/bad/, from);
    await proxy.line(/^watching /, from);
    proxy.write("filters/bad.ts", file("let x = ;"));
    await proxy.line(/stays at generation/);
    const listed = await proxy.admin("/filters?filter=bad");
    expect(listed).toMatch(/failed [^]*ended inside it, so it is not entered[^]*bad\.ts:3:/);
  } finally {
    await proxy.stop();
  }
}, 300_000);
