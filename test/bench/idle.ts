/**
 * Memory of kept connections that do nothing: each has had one answer.
 *
 *   node test/bench/idle.ts [connections]      (5000; the file descriptor limit must allow twice that)
 *
 * Bar: 12 KiB a connection.
 */
import net from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { bootstrap, direct, http, listener } from "../integration/config.ts";
import { Proxy } from "../integration/proxy.ts";

const BAR_KIB = 12;
const AT_ONCE = 100;
/** A thread that has had nothing to do for 30 s gives back what start and burst have left in it: before, a figure is one of garbage. */
const REST_MS = 40_000;
const [connections = 5_000] = process.argv.slice(2).map(Number);

const proxy = await Proxy.start({
  config: bootstrap([listener("main", http([direct("/", "idle")]))]),
});
const port = proxy.port("main");
// Code and heaps of the first connections are not theirs.
for (const socket of await open(Math.min(500, connections))) socket.destroy();
await delay(REST_MS);
const before = serving();
const sockets = await open(connections);
await delay(REST_MS);
const each = (serving() - before) / connections / 1024;
console.log(`${connections} idle connections: ${each.toFixed(1)} KiB each`);
for (const socket of sockets) socket.destroy();
await proxy.stop();
process.exit(each <= BAR_KIB ? 0 : 1);

/** Memory of the process that has the connections: those that build, try and stand by come and go. */
function serving(): number {
  return proxy.rss(proxy.processes().slice(0, 1));
}

async function open(count: number): Promise<net.Socket[]> {
  const all: net.Socket[] = [];
  while (all.length < count)
    all.push(...(await Promise.all(Array.from({ length: AT_ONCE }, () => ask()))));
  return all;
}

function ask(): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.once("data", () => resolve(socket));
    socket.once("error", reject);
    socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  });
}
