import http from "node:http";
import net, { type AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { get } from "./client.ts";
import { address, direct, http as manager } from "./config.ts";
import { Proxy } from "./proxy.ts";

const proxies: Proxy[] = [];
afterEach(async () => {
  for (const proxy of proxies.splice(0).reverse()) await proxy.stop();
});

async function started(options: Parameters<typeof Proxy.start>[0]): Promise<Proxy> {
  const proxy = await Proxy.start(options);
  proxies.push(proxy);
  return proxy;
}

/** One that nobody has right now: both proxies need the same. */
async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const config = (port: number, text: string, admin: number) => ({
  admin: { address: address(admin) },
  static_resources: {
    listeners: [
      {
        name: "main",
        address: address(port),
        filter_chains: [{ filters: [manager([direct("/", text)])] }],
      },
    ],
  },
});

test("a new proxy takes over from the one that serves, and no request fails", async () => {
  const [port, admin] = [await freePort(), await freePort()];
  const before = await started({ config: config(port, "before", admin), concurrency: 2 });

  const seen = { before: 0, after: 0 };
  const failures: unknown[] = [];
  let over = false;
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const client = async (ask: { agent?: http.Agent }): Promise<void> => {
    while (!over) {
      // As fast as it goes would leave the machine no time for a start.
      await new Promise((resolve) => setTimeout(resolve, 2));
      try {
        seen[(await get(port, "/", ask)).text as keyof typeof seen]++;
      } catch (error) {
        failures.push(error);
      }
    }
  };
  const load = [client({ agent }), client({ agent }), client({}), client({}), client({})];

  // The same file in other words: the successor is the one that answers with them.
  before.reconfigure(config(port, "after", admin));
  await started({ folder: before.dir, config: "envoy.json", args: ["--takeover"], concurrency: 2 });
  expect(await before.exited).toBe(0);
  const then = seen.after;
  while (seen.after < then + 200) await get(port, "/");
  over = true;
  await Promise.all(load);
  agent.destroy();
  expect(failures).toEqual([]);
  expect(seen.before).toBeGreaterThan(0);

  // The successor can be succeeded.
  const last = await started({ folder: before.dir, config: "envoy.json", args: ["--takeover"] });
  expect(await proxies[1]!.exited).toBe(0);
  expect((await get(port, "/")).text).toBe("after");
  expect(last.gone).toBe(false);
}, 120_000);

test("without --takeover an address in use is refused", async () => {
  const port = await freePort();
  await started({ config: config(port, "here", 0) });
  await expect(Proxy.start({ config: config(port, "there", 0) })).rejects.toThrow(
    "the address is in use by another process",
  );
});
