import { afterAll, beforeAll, expect, test } from "vitest";
import { get, RawClient } from "./client.ts";
import { bootstrap, direct, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

// Filters that live among the shipped ones: what they throw is told with the line of their source.

const REQUESTS = `import { defineHttpFilter, Type } from "@tsproxy/sdk";

export default defineHttpFilter({
  name: "requests",
  config: Type.Object({}),
  setup: () => () => ({
    onRequestHeaders() {
      throw new Error("thrown for a request");
    },
  }),
});
`;

const CONNECTIONS = `import { defineNetworkFilter, Type } from "@tsproxy/sdk";

export default defineNetworkFilter({
  name: "connections",
  terminal: true,
  config: Type.Object({}),
  setup: () => ({
    create: () => ({
      onConnect() {
        throw new Error("thrown for a connection");
      },
    }),
  }),
});
`;

let proxy: Proxy;
beforeAll(async () => {
  proxy = await Proxy.start({
    config: bootstrap([
      listener("requests", http([direct("/", "hello")], {}, [{ name: "requests", config: {} }])),
      listener("connections", { name: "connections", config: {} }),
    ]),
    files: { "filters/requests.ts": REQUESTS, "filters/connections.ts": CONNECTIONS },
    args: ["--trust", "requests", "--trust", "connections"],
  });
});
afterAll(() => proxy?.stop());

test("an HTTP filter's error names the line that threw", async () => {
  expect((await get(proxy.port("requests"), "/")).status).toBe(500);
  const line = await proxy.line(/thrown for a request/);
  expect(line.msg).toMatch(/^filters\/requests\.ts:8:\d+: an HTTP filter failed: /);
  expect(line.msg).toContain('> 8 |       throw new Error("thrown for a request");');
  expect(line.stack).toBeUndefined();
});

test("a network filter's error names the line that threw, not that of core's which called it", async () => {
  const client = await RawClient.connect(proxy.port("connections"));
  await client.untilClosed();
  const line = await proxy.line(/thrown for a connection/);
  expect(line.msg).toMatch(/^fault: filters\/connections\.ts:10:\d+: thrown for a connection/);
});
