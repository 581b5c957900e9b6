import { once } from "node:events";
import { existsSync } from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { freePort } from "../../core/command/free-port.ts";
import { eventually, get } from "./client.ts";
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
  let resetUnaccepted = 0;
  let over = false;
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const client = async (ask: { agent?: http.Agent }): Promise<void> => {
    while (!over) {
      // As fast as it goes would leave the machine no time for a start.
      await new Promise((resolve) => setTimeout(resolve, 2));
      try {
        seen[(await get(port, "/", ask)).text as keyof typeof seen]++;
      } catch (error) {
        // What comes in the microseconds between the last accept and the close of a socket is reset by the system.
        if ((error as NodeJS.ErrnoException).syscall === "connect") resetUnaccepted++;
        else failures.push(error);
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
  expect(resetUnaccepted).toBeLessThan(load.length);
  expect(seen.before).toBeGreaterThan(0);

  // The successor can be succeeded.
  const last = await started({ folder: before.dir, config: "envoy.json", args: ["--takeover"] });
  expect(await proxies[1]!.exited).toBe(0);
  expect((await get(port, "/")).text).toBe("after");
  expect(last.gone).toBe(false);
});

test("unix sockets are taken over: one with a file refuses nobody, an abstract one goes on after a moment", async () => {
  const file = path.join(os.tmpdir(), `tsproxy-takeover-${process.pid}.sock`);
  const abstract = `@tsproxy-takeover-${process.pid}`;
  const socketsOf = (text: string) => ({
    static_resources: {
      listeners: [
        {
          name: "main",
          address: { pipe: { path: file } },
          additional_addresses: [{ address: { pipe: { path: abstract } } }],
          filter_chains: [{ filters: [manager([direct("/", text)])] }],
        },
      ],
    },
  });
  const before = await started({ config: socketsOf("before") });
  const failures: unknown[] = [];
  let over = false;
  const client = async (): Promise<void> => {
    while (!over) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      await getThrough(file).catch((error) => failures.push(error));
    }
  };
  const load = [client(), client()];
  before.reconfigure(socketsOf("after"));
  const next = await started({ folder: before.dir, config: "envoy.json", args: ["--takeover"] });
  const told = next.lines.find(({ msg }) => msg.startsWith("listening on"));
  expect(told?.msg).toBe(
    `listening on ${file} (main), with 1 worker; on ${abstract} (main) as soon as the proxy before gives it up`,
  );
  expect(await before.exited).toBe(0);
  expect(await getThrough(file)).toBe("after");
  const abstractly = () => getThrough(`\0${abstract.slice(1)}`).catch(({ code }) => code);
  await eventually(abstractly, (text) => text === "after", "the successor at the abstract socket");
  over = true;
  await Promise.all(load);
  expect(failures).toEqual([]);
  await proxies[1]!.stop();
  expect(existsSync(file)).toBe(false);
});

/** The body of the answer through a unix socket. */
async function getThrough(socketPath: string): Promise<string> {
  const request = http.get({ socketPath, path: "/", agent: false });
  const [response] = (await once(request, "response")) as [http.IncomingMessage];
  return (await response.setEncoding("utf8").toArray()).join("");
}

test("without --takeover an address in use is refused", async () => {
  const port = await freePort();
  await started({ config: config(port, "here", 0) });
  await expect(Proxy.start({ config: config(port, "there", 0) })).rejects.toThrow(
    "the address is in use by another process",
  );
});

test("a proxy of another config file is taken over by the base id of both, and without one is not found", async () => {
  const port = await freePort();
  const id = ["--base-id", `${port}`];
  const before = await started({ config: config(port, "before", 0), args: id });
  const lost = Proxy.start({ config: config(port, "after", 0), args: ["--takeover"] });
  await expect(lost).rejects.toThrow(
    /none to take over; one that serves another file is found by --base-id.*the address is in use by another process/s,
  );
  expect((await get(port, "/")).text).toBe("before");
  await started({ config: config(port, "after", 0), args: [...id, "--takeover"] });
  expect(await before.exited).toBe(0);
  expect((await get(port, "/")).text).toBe("after");
});
