/**
 * What clients that take their time cost those that do not: milliseconds of a request on a connection of its own, alone and beside
 * thousands of others that send a byte now and then, of their head or of their body.
 *
 *   node test/bench/slow.ts [connections]      (10000; the file descriptor limit must allow as many, and twice that with bodies)
 *
 * Bar: the median and the 95th in a hundred at most double.
 */
import net from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { bootstrap, cluster, http, listener, route, unlimited } from "../integration/config.ts";
import { Proxy } from "../integration/proxy.ts";
import { httpUpstream } from "../integration/upstream.ts";

const PROBES = 500;
const AT_ONCE = 100;
/** Each says something once in this time. */
const SAYS_EVERY_S = 10;
const BAR = 2;
const [connections = 10_000] = process.argv.slice(2).map(Number);

const upstream = await httpUpstream((request, response) => {
  request.resume().on("end", () => response.end("quick\n"));
});
const proxy = await Proxy.start({
  config: bootstrap(
    [listener("main", http([route("/", "origin", { timeout: "0s" })]))],
    [cluster("origin", [upstream.port], unlimited)],
  ),
});
const port = proxy.port("main");
await measure();
const head = await beside("heads", connections, "GET / HTTP/1.1\r\nhost: x\r\n", "x-a: b\r\n");
const body = await beside(
  "bodies",
  Math.floor(connections / 2),
  "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n",
  "y",
);
await proxy.stop();
await upstream.close();
process.exit(head && body ? 0 : 1);

/** True: within the bar. */
async function beside(what: string, count: number, first: string, more: string): Promise<boolean> {
  const alone = await measure();
  const sockets: net.Socket[] = [];
  while (sockets.length < count)
    sockets.push(...(await Promise.all(Array.from({ length: AT_ONCE }, () => open(first)))));
  let next = 0;
  const feeding = setInterval(() => {
    for (let k = 0; k < count / SAYS_EVERY_S / 10; k++) sockets[next++ % count]!.write(more);
  }, 100);
  await delay(1_000);
  const among = await measure();
  clearInterval(feeding);
  for (const socket of sockets) socket.destroy();
  const shown = (ms: readonly number[]) => ms.map((value) => value.toFixed(2)).join(", ");
  console.log(
    `${count} slow ${what}: median, 95 % in ms: alone ${shown(alone)}; beside them ${shown(among)}`,
  );
  return among.every((ms, k) => ms <= alone[k]! * BAR);
}

function open(first: string): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1", () => {
      socket.write(first);
      resolve(socket);
    });
    socket.on("error", reject);
  });
}

/** The median and the 95th in a hundred. */
async function measure(): Promise<readonly [number, number]> {
  const took: number[] = [];
  for (let n = 0; n < PROBES; n++) took.push(await probe());
  took.sort((a, b) => a - b);
  return [took[PROBES >> 1]!, took[Math.floor(PROBES * 0.95)]!];
}

function probe(): Promise<number> {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.resume().on("error", reject);
    socket.on("close", () => resolve(performance.now() - started));
  });
}
