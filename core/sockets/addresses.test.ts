import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
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

test("a path where no socket can be made, or something else is, is refused, and what is there stays", async () => {
  const folder = mkdtempSync(join(tmpdir(), "tsproxy-addresses-"));
  const file = join(folder, "notes.txt");
  writeFileSync(file, "mine");
  const refused = async (path: string) => {
    const address = { ip: "", port: 0, path };
    const listener = { name: "main", source: "a.yaml:4:7", address } as unknown as ListenerConfig;
    return (await checkAddresses([listener], [])).map(({ message }) => message);
  };
  const say = (path: string, why: string) => [`a.yaml:4:7: cannot listen on ${path}: ${why}`];
  const occupied = "what is there is no socket; remove it, or name another path";
  expect(await refused(file)).toEqual(say(file, occupied));
  expect(readFileSync(file, "utf8")).toBe("mine");
  expect(await refused(folder)).toEqual(say(folder, occupied));
  const lost = join(folder, "none", "a.sock");
  expect(await refused(lost)).toEqual(
    say(lost, "its folder does not exist; make that folder first"),
  );
  rmSync(folder, { recursive: true });
});
