import net from "node:net";
import { afterEach, expect, test } from "vitest";
import type { AddressConfig } from "../protocol.ts";
import type { Acceptor } from "./acceptor.ts";
import { type ListenOptions, listenTcp } from "./tcp-listen.ts";

const acceptors: Acceptor[] = [];
afterEach(() => Promise.all(acceptors.splice(0).map((acceptor) => acceptor.close())));

async function listen(address: AddressConfig, options: ListenOptions, sockets = 1) {
  const { acceptor, bound } = await listenTcp(address, options, sockets);
  acceptors.push(acceptor);
  return { acceptor, bound };
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
  await first.acceptor.close();
  const { bound } = first;
  const { port } = bound;
  await listen(bound, { backlog: 0, ipv6Only: bound.ipv4Compat !== true });
  expect([await reaches("127.0.0.1", port), await reaches("::1", port)]).toEqual([true, true]);
});

test("clients that come at once are not accepted one by one, with a turn of the event loop for each", async () => {
  const CLIENTS = 64;
  const { acceptor, bound } = await listen(
    { ip: "127.0.0.1", port: 0 },
    { backlog: 0, ipv6Only: false },
    8,
  );
  let accepted = 0;
  acceptor.give((handle) => {
    accepted++;
    handle.close();
  });
  const clients = Array.from({ length: CLIENTS }, () => net.connect(bound.port, "127.0.0.1"));
  for (const client of clients) client.on("error", () => {});
  let turns = 0;
  for (; accepted < CLIENTS; turns++) await new Promise(setImmediate);
  for (const client of clients) client.destroy();
  expect(turns).toBeLessThan(CLIENTS / 2);
});
