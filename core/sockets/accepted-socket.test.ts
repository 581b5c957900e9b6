import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { buffer, text } from "node:stream/consumers";
import { afterEach, expect, test } from "vitest";
import { type AcceptedHandle, AcceptedSocket } from "./accepted-socket.ts";
import { onAccepted, writeBuffer } from "./stream-handle.ts";

const LANDING = 1024;

const opened: { close?(): void; destroy?(): void }[] = [];
afterEach(() => {
  for (const one of opened.splice(0)) (one.close ?? one.destroy)?.call(one);
});

/** A client and the accepted end of its connection, which reads into `read` what arrives. */
async function connected(where: net.ListenOptions = { port: 0, host: "127.0.0.1" }) {
  const server = net.createServer();
  server.listen(where);
  await once(server, "listening");
  const accepted = new Promise<AcceptedSocket>((resolve) => {
    onAccepted(server, (handle) => resolve(new AcceptedSocket(handle as AcceptedHandle)));
  });
  const address = server.address();
  const to =
    typeof address === "string" ? { path: address } : { port: (address as net.AddressInfo).port };
  const client = net.connect({ ...to, allowHalfOpen: true });
  const [socket] = await Promise.all([accepted, once(client, "connect")]);
  opened.push(server, client, socket);
  const landing = Buffer.alloc(LANDING);
  const seen = { read: "", events: [] as string[] };
  for (const event of ["end", "error", "close"])
    socket.on(event, (error?: NodeJS.ErrnoException) => seen.events.push(error?.code ?? event));
  socket.read(landing, (n) => {
    seen.read += landing.toString("latin1", 0, n);
    socket.emit("bytes");
    return undefined;
  });
  return { client, socket, seen };
}

const write = (socket: AcceptedSocket, bytes: string | Buffer): unknown =>
  writeBuffer(socket._handle!, Buffer.from(bytes as string));

test("knows both ends, reads, and closes once both directions have ended", async () => {
  const { client, socket, seen } = await connected();
  expect(socket.remote).toMatchObject({ address: "127.0.0.1", port: client.localPort });
  expect(socket.local).toMatchObject({ address: "127.0.0.1", port: client.remotePort });
  client.end("question");
  await once(socket, "end");
  expect(seen.read).toBe("question");
  expect(socket.destroyed).toBe(false);
  write(socket, "answer");
  const answer = text(client);
  socket.end();
  await once(socket, "close");
  expect(await answer).toBe("answer");
  expect(seen.events).toEqual(["end", "close"]);
});

test("goes on after a read that fills the buffer with all there is", async () => {
  const { client, socket, seen } = await connected();
  for (let k = 1; k <= 3; k++) {
    const arrived = once(socket, "bytes");
    client.write("x".repeat(LANDING));
    await arrived;
  }
  client.end();
  await once(socket, "end");
  expect(seen).toEqual({ read: "x".repeat(3 * LANDING), events: ["end"] });
});

test("sends its end before it closes, where that is asked for, though bytes are unread", async () => {
  const { client, socket } = await connected();
  socket._handle!.readStop();
  await new Promise((resolve) => client.write("unread", resolve));
  write(socket, "answer");
  const answer = text(client);
  socket.end();
  socket.destroySoon();
  expect(await answer).toBe("answer");
});

test("ends its own direction first, and reads on", async () => {
  const { client, socket, seen } = await connected();
  write(socket, "greeting");
  socket.end();
  expect(await text(client)).toBe("greeting");
  client.end("thanks");
  await once(socket, "close");
  expect(seen).toEqual({ read: "thanks", events: ["end", "close"] });
});

test("closes behind what was written, whether or not the kernel has taken it", async () => {
  for (const size of [10, 20_000_000]) {
    const { client, socket } = await connected();
    write(socket, Buffer.alloc(size, "x"));
    expect(socket._handle!.writeQueueSize > 0).toBe(size > 10);
    socket.destroySoon();
    expect((await buffer(client)).length).toBe(size);
  }
});

test("a close behind what was written follows an end that is still under way", async () => {
  const { client, socket, seen } = await connected();
  write(socket, Buffer.alloc(20_000_000, "x"));
  socket.end();
  socket.destroySoon();
  expect((await buffer(client)).length).toBe(20_000_000);
  if (seen.events.length === 0) await once(socket, "close");
  expect(seen.events).toEqual(["close"]);
});

test("a reset reaches the other end, in both directions", async () => {
  const one = await connected();
  const failed = once(one.client, "error");
  const gone = once(one.socket, "close");
  one.socket.resetAndDestroy();
  expect(await failed).toMatchObject([{ code: "ECONNRESET" }]);
  await gone;
  const other = await connected();
  const closed = new Promise((resolve) => other.socket.on("close", resolve));
  other.client.resetAndDestroy();
  await closed;
  expect(other.seen.events).toEqual(["ECONNRESET", "close"]);
});

test("a timeout replaces the one before, and none comes after the close", async () => {
  const { socket, seen } = await connected();
  let calls = "";
  socket.setTimeout(1, () => {
    calls += "first";
  });
  await new Promise<void>((resolve) => {
    socket.setTimeout(2, () => {
      calls += "second";
      resolve();
    });
  });
  socket.setTimeout(1, () => {
    calls += "third";
  });
  socket.destroy();
  await once(socket, "close");
  // Timers of a later time are called later.
  await new Promise((resolve) => setTimeout(resolve, 2));
  expect(calls).toBe("second");
  expect(seen.events).toEqual(["close"]);
});

test("of unix sockets, a reset is a close, and the ends have no names", async () => {
  const { client, socket } = await connected({
    path: path.join(mkdtempSync(path.join(tmpdir(), "accepted-")), "socket"),
  });
  expect([socket.remote, socket.local]).toEqual([{}, {}]);
  client.resume();
  socket.resetAndDestroy();
  await Promise.all([once(socket, "close"), once(client, "end")]);
});
