import net from "node:net";
import { afterEach, expect, test } from "vitest";
import { listenTcp } from "./tcp-listen.ts";

const servers: net.Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function listen(...args: Parameters<typeof listenTcp>) {
  const { server, bound } = await listenTcp(...args);
  servers.push(server);
  return { server, bound };
}

/** Whether a client of this address gets a connection. */
function reaches(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port }, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}

test("who binds at the address that another socket got takes IPv4 as well, if that one was to", async () => {
  const asked = { ip: "::", port: 0, ipv4Compat: true };
  const first = await listen(asked, { backlog: 0, ipv6Only: false });
  expect(first.bound).toEqual({ ...asked, port: expect.any(Number) });
  first.server.close();
  const { bound } = first;
  const { port } = bound;
  await listen(bound, { backlog: 0, ipv6Only: bound.ipv4Compat !== true });
  expect([await reaches("127.0.0.1", port), await reaches("::1", port)]).toEqual([true, true]);
});
