import net from "node:net";
import tls from "node:tls";
import { afterAll, afterEach, expect, test } from "vitest";
import { eventually } from "./client.ts";
import { bootstrap, cluster, http, listener, route, tcpProxy } from "./config.ts";
import type { Proxy } from "./proxy.ts";
import { a, disposeAuthorities, downstreamTls, ends, endTest, secure, start } from "./tls-proxy.ts";
import { tcpUpstream } from "./upstream.ts";

/** More than the kernel takes for a peer on the same machine that reads nothing. */
const MUCH = Buffer.alloc(16 << 20, "x");
const ANSWER = `HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: ${MUCH.length}\r\n\r\n`;
const ASK = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const POST = `POST / HTTP/1.1\r\nhost: x\r\ncontent-length: ${MUCH.length}\r\n\r\n`;

afterEach(endTest);
afterAll(disposeAuthorities);

/** A proxy with a listener of each kind, before an upstream that answers a GET with much, and reads nothing else until `read` is called. */
async function stuck(): Promise<{ proxy: Proxy; read: () => void }> {
  const upstream = await tcpUpstream((socket) => {
    socket.once("data", (asked) => {
      socket.pause();
      if (!asked.toString("latin1").startsWith("GET")) return;
      socket.write(ANSWER);
      socket.end(MUCH);
    });
  });
  ends.push(() => upstream.close());
  const filter = http([route("/", "origin")]);
  const proxy = await start({
    config: bootstrap(
      [
        listener("http", filter),
        listener("tls", filter, { filter_chains: [secure(filter, downstreamTls([a]))] }),
        listener("tcp", tcpProxy("origin")),
      ],
      [cluster("origin", [upstream.port])],
    ),
  });
  const read = () => {
    for (const socket of upstream.sockets) socket.resume();
  };
  return { proxy, read };
}

async function unsent(proxy: Proxy, name: string, waits: boolean): Promise<number> {
  const read = async () => (await proxy.stats())(`${name}_cx_tx_bytes_buffered`) ?? 0;
  return eventually(read, (bytes) => bytes > 0 === waits, waits ? "bytes wait" : "nothing waits");
}

function connect(proxy: Proxy, name: string): net.Socket {
  const port = proxy.port(name);
  const socket =
    name === "tls"
      ? tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false })
      : net.connect(port, "127.0.0.1");
  socket.on("error", () => {});
  ends.push(() => socket.destroy());
  return socket;
}

async function readAll(client: net.Socket): Promise<void> {
  let size = 0;
  for await (const bytes of client) {
    size += (bytes as Buffer).length;
    if (size > MUCH.length) return;
  }
}

test.each([
  ["http", "http.test.downstream"],
  ["tls", "http.test.downstream"],
  ["tcp", "tcp.tcp.downstream"],
])(
  "what waits for a client that reads nothing is told, over %s, until it reads or leaves",
  async (name, stat) => {
    const { proxy } = await stuck();
    for (const leaves of [false, true]) {
      const client = connect(proxy, name).pause();
      client.write(ASK);
      // Core's high watermark, and what one event more may bring.
      expect(await unsent(proxy, stat, true)).toBeLessThan(512 * 1024);
      if (leaves) client.destroy();
      else await readAll(client);
      expect(await unsent(proxy, stat, false)).toBe(0);
    }
  },
);

test("what waits for an upstream that reads nothing is told, until it reads", async () => {
  const { proxy, read } = await stuck();
  const client = connect(proxy, "http").resume();
  client.write(POST);
  client.write(MUCH);
  expect(await unsent(proxy, "cluster.origin.upstream", true)).toBeLessThan(512 * 1024);
  read();
  expect(await unsent(proxy, "cluster.origin.upstream", false)).toBe(0);
});
