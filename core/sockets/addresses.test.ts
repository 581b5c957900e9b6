import net from "node:net";
import { afterEach, expect, test } from "vitest";
import type { ListenerConfig } from "../protocol.ts";
import { checkAddresses } from "./addresses.ts";

const servers: net.Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

function listening(where: net.ListenOptions): Promise<net.Server> {
  return new Promise((resolve) => {
    const server = net.createServer().listen(where, () => resolve(server));
    servers.push(server);
  });
}

test("ports and abstract sockets that another process has are refused before anything is bound", async () => {
  const path = `@tsproxy-addresses-${process.pid}`;
  await listening({ path: `\0${path.slice(1)}` });
  const { port } = (await listening({ host: "127.0.0.1", port: 0 })).address() as net.AddressInfo;
  const listener = {
    name: "main",
    source: "front.yaml:4:7",
    address: { ip: "127.0.0.1", port },
    additionalAddresses: [{ ip: "", port: 0, path }],
  } as unknown as ListenerConfig;
  const inUse = (address: string) =>
    `front.yaml:4:7: cannot listen on ${address}: the address is in use by another process`;
  const found = (await checkAddresses([listener], [])).map(({ message }) => message);
  expect(found).toEqual([inUse(`127.0.0.1:${port}`), inUse(path)]);
});
