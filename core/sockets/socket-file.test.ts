import { existsSync, mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { SocketFile } from "./socket-file.ts";

const dir = mkdtempSync(join(tmpdir(), "tsproxy-socket-"));
const place = join(dir, "main.sock");
const servers: net.Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
  rmSync(dir, { recursive: true, force: true });
});

async function listen(): Promise<{ readonly file: SocketFile; readonly server: net.Server }> {
  const file = new SocketFile(place);
  const server = net.createServer((socket) => socket.end());
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(file.fresh, resolve));
  file.place(0o600);
  return { file, server };
}

function connects(): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(place, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}

test("the file of a socket that another one has replaced stays when the first one closes", async () => {
  const before = await listen();
  const after = await listen();
  before.file.remove();
  before.server.close();
  expect(await connects()).toBe(true);
  after.file.remove();
  expect(existsSync(place)).toBe(false);
});
