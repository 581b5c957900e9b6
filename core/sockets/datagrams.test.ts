import dgram from "node:dgram";
import { once } from "node:events";
import { expect, it } from "vitest";
import { createRing, WORD } from "../inside/ring.ts";
import { Crossing } from "./crossing.ts";
import { Sockets } from "./sockets.ts";

it("datagrams that come while no isolate is there to take them are dropped", async () => {
  const ring = createRing({ events: 8, commands: 8, segments: 2, slots: 2 });
  const words = new Int32Array(ring);
  const crossing = new Crossing(ring, (count) => {
    words[WORD.CONSUMED] = count;
    words[WORD.AGAIN] = 0;
    words[WORD.WAKE_IN] = -1;
    return 0;
  });
  const sockets = new Sockets(crossing, () => {});
  const name = "dns";
  const options = { ipv6Only: false };
  const { port } = await sockets.listening.listenUdp(name, { ip: "127.0.0.1", port: 0 }, options);
  crossing.flush();
  sockets.destroy();
  const server = sockets.listening.get(name)!.server as dgram.Socket;
  const client = dgram.createSocket("udp4");
  // More than all of the ring's memory takes.
  for (let sent = 0; sent < ring.byteLength + 64_000; sent += 60_000) {
    const got = once(server, "message");
    client.send(Buffer.alloc(60_000), port, "127.0.0.1");
    await got;
  }
  server.emit("error", new Error("lost"));
  expect(crossing.counts.events).toBe(1);
  client.close();
  await sockets.listening.unlisten(name);
});
