import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import net from "node:net";
import { afterEach, expect, test } from "vitest";
import { Random } from "../fuzz/random.ts";
import { eventually, get, RawClient } from "./client.ts";
import {
  accessLog,
  bootstrap,
  cluster,
  direct,
  http,
  type Json,
  listener,
  tcpProxy,
  unlimited,
} from "./config.ts";
import { Proxy, type ProxyOptions } from "./proxy.ts";
import { ShippedCopy } from "./shipped-copy.ts";
import { SPINS } from "./spins.ts";
import { tcpUpstream, type Upstream } from "./upstream.ts";

const MB = 1 << 20;

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function upstreamOf(onConnection: (socket: net.Socket) => void): Promise<Upstream> {
  const upstream = await tcpUpstream(onConnection);
  ends.push(() => upstream.close());
  return upstream;
}
const echo = () => upstreamOf((socket) => socket.pipe(socket));

const config = (
  { port }: Upstream,
  listeners: readonly Json[] = [listener("main", tcpProxy("origin"))],
) => bootstrap(listeners, [cluster("origin", [port], unlimited)]);

async function start(upstream: Upstream, options: Partial<ProxyOptions> = {}): Promise<Proxy> {
  const proxy = await Proxy.start({ config: config(upstream), ...options });
  ends.push(() => proxy.stop());
  return proxy;
}

async function connect(proxy: Proxy): Promise<RawClient> {
  const client = await RawClient.connect(proxy.port("main"));
  ends.push(() => client.destroy());
  return client;
}

/** Sends a text that comes back behind what came before. */
async function says(client: RawClient, text: string): Promise<void> {
  const wanted = client.text + text;
  client.send(text);
  await client.until(() => client.text === wanted);
}

/** Nothing of the connections is left, neither here nor at the cluster. */
async function nothingLeft(proxy: Proxy): Promise<void> {
  for (const stat of [
    "tcp.tcp.downstream_cx_rx_bytes_buffered",
    "tcp.tcp.downstream_cx_tx_bytes_buffered",
    "tcp.tcp.upstream_flush_active",
    "cluster.origin.upstream_cx_active",
    "cluster.origin.upstream_cx_rx_bytes_buffered",
    "cluster.origin.upstream_cx_tx_bytes_buffered",
  ])
    await proxy.untilStat(stat, 0);
}

test.each([
  ["network/tcp_proxy", "filter.ts", "stats.cxTotal.inc()", "tcp.tcp.downstream_cx_total"],
  ["service/cluster_manager", "stats.ts", "this.cxTotal.inc()", "cluster.origin.upstream_cx_total"],
])(
  "relayed connections outlive new code of %s, and later ones get it",
  async (name, file, counts, stat) => {
    const shipped = new ShippedCopy();
    ends.push(() => shipped.remove());
    const proxy = await start(await echo(), { env: { TSPROXY_SHIPPED_FILTERS: shipped.root } });
    const early = await connect(proxy);
    await says(early, "before");
    const edited = shipped.file(name, file);
    const source = readFileSync(edited, "utf8");
    expect(source.split(counts).length).toBe(2);
    writeFileSync(edited, source.replace(counts, counts.replace("inc()", "add(100)")));
    await proxy.line(/^reloaded /);
    await says(early, ", after");
    const late = await connect(proxy);
    await says(late, "late");
    await says(early, ", still");
    early.end();
    late.end();
    await Promise.all([early.untilClosed(), late.untilClosed()]);
    await proxy.untilStat(stat, 101);
    await proxy.untilStat(
      "tcp.tcp.downstream_cx_rx_bytes_total",
      "before, after, stilllate".length,
    );
    await nothingLeft(proxy);
  },
);

test("a listener that is removed ends its relayed connections with the drain time, and no others", async () => {
  const upstream = await echo();
  const other = listener("other", tcpProxy("origin"));
  const main = listener("main", tcpProxy("origin"));
  const proxy = await start(upstream, {
    config: config(upstream, [main, other]),
    args: ["--drain-time-s", "1"],
  });
  const removed = await connect(proxy);
  const stays = await RawClient.connect(proxy.port("other"));
  ends.push(() => stays.destroy());
  await says(removed, "one");
  await says(stays, "other");
  proxy.reconfigure(config(upstream, [other]));
  await removed.untilClosed();
  expect(removed.text).toBe("one");
  await says(stays, ", still");
});

const FORMAT = "%RESPONSE_FLAGS% %DOWNSTREAM_DETECTED_CLOSE_TYPE% %UPSTREAM_DETECTED_CLOSE_TYPE%\n";

test.each([
  ["client", "- RemoteReset Normal"],
  ["upstream", "UR LocalReset RemoteReset"],
] as const)(
  "a reset while bytes wait in both directions is passed on, logged and counted, of the %s",
  async (side, line) => {
    const origin = await upstreamOf((socket) => void socket.pause().write(Buffer.alloc(16 * MB)));
    const filter = tcpProxy("origin") as { typed_config: Json };
    const access_log = [accessLog("/dev/stdout", FORMAT)];
    const logging = { ...filter, typed_config: { ...filter.typed_config, access_log } };
    const proxy = await start(origin, {
      config: config(origin, [listener("main", logging)]),
      args: ["--file-flush-interval-msec", "20"],
    });
    const { socket } = await connect(proxy);
    socket.pause().write(Buffer.alloc(16 * MB));
    for (const stat of ["tcp.tcp.downstream_cx", "cluster.origin.upstream_cx"])
      await eventually(
        async () => (await proxy.stats())(`${stat}_tx_bytes_buffered`),
        (bytes) => bytes > 0,
        `bytes wait: ${stat}`,
      );
    const [upstream] = origin.sockets;
    (side === "client" ? socket : upstream!).resetAndDestroy();
    await eventually(
      () => proxy.stdout,
      (text) => text === `${line}\n`,
      line,
    );
    upstream!.resume();
    await nothingLeft(proxy);
  },
);

/** Sends its own byte, gets it back in fits and starts, and may break off. Answers how many other bytes came. */
function exchange(port: number, code: number, random: Random): Promise<number> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    let [left, foreign] = [random.below(600_000), 0];
    const isCut = random.once(2);
    socket.on("error", () => {});
    socket.on("close", () => resolve(foreign));
    socket.on("data", (bytes) => {
      for (const byte of bytes) if (byte !== code) foreign++;
      left -= bytes.length;
      if (left <= 0 && isCut) socket.resetAndDestroy();
      else if (left <= 0) socket.end();
      else if (random.once(4)) {
        socket.pause();
        setImmediate(() => socket.resume());
      }
    });
    socket.write(Buffer.alloc(left + 1 + random.below(300_000), code));
  });
}

test.each(["", "8,8,2,2"])(
  "relays that either side breaks off at random leave nothing, and mix nothing up (ring %j)",
  // A second try may not meet what the first has met.
  { retry: 0 },
  async (ring) => {
    const random = new Random(7);
    const origin = await upstreamOf((socket) => {
      socket.pipe(socket);
      const lasts = random.once(3) ? random.below(400_000) : Number.POSITIVE_INFINITY;
      let got = 0;
      socket.on("data", ({ length }) => {
        got += length;
        if (got > lasts) socket.resetAndDestroy();
      });
    });
    const proxy = await start(origin, { env: { TSPROXY_RING: ring } });
    const port = proxy.port("main");
    for (let round = 0; round < 8; round++) {
      const codes = Array.from({ length: 30 }, (_, code) => code);
      const foreign = await Promise.all(codes.map((code) => exchange(port, code, random)));
      expect(foreign).toEqual(codes.map(() => 0));
    }
    await nothingLeft(proxy);
    await proxy.untilStat("cluster.origin.upstream_cx_total", 240);
  },
);

test("200 relays of 5 MB each to clients that do not read take little memory, and all bytes arrive", async () => {
  const body = Buffer.alloc(5 * MB, "x");
  const proxy = await start(await upstreamOf((socket) => void socket.end(body)));
  const before = proxy.rss();
  const sockets = await Promise.all(
    Array.from({ length: 200 }, async () => {
      const socket = net.connect(proxy.port("main"), "127.0.0.1").pause();
      ends.push(() => socket.destroy());
      await once(socket, "connect");
      return socket;
    }),
  );
  await proxy.untilStat("cluster.origin.upstream_flow_control_paused_reading_total", 200);
  // A connection that is blocked keeps its high watermark and one read more.
  expect(proxy.rss() - before).toBeLessThan(200 * 256 * 1024 + 64 * MB);
  const sizes = sockets.map(async (socket) => {
    let size = 0;
    for await (const bytes of socket) size += (bytes as Buffer).length;
    return size;
  });
  expect(new Set(await Promise.all(sizes))).toEqual(new Set([body.length]));
  expect(proxy.rss() - before).toBeLessThan(200 * 256 * 1024 + 64 * MB);
  await nothingLeft(proxy);
});

/** Sends its letter without an end, and counts what comes back. */
class Flood {
  received = 0;
  foreign = 0;
  readonly closed: Promise<unknown>;

  constructor(port: number, letter: string) {
    const socket = net.connect({ port, host: "127.0.0.1" });
    ends.push(() => socket.destroy());
    this.closed = new Promise((resolve) => socket.on("close", resolve));
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      this.received += bytes.length;
      for (const byte of bytes) if (byte !== letter.charCodeAt(0)) this.foreign++;
    });
    const piece = Buffer.alloc(10_007, letter);
    const send = () => {
      while (socket.writable && socket.write(piece));
    };
    socket.on("connect", send);
    socket.on("drain", send);
  }
}

test("relays end with the isolate that began them, and later ones get none of their bytes", async () => {
  let open = 0;
  const upstream = await upstreamOf((socket) => {
    open++;
    socket.on("close", () => open--);
    socket.pipe(socket);
  });
  const chain = http([direct("/", "yes")], {}, [{ name: "spins", config: {} }]);
  const proxy = await start(upstream, {
    config: config(upstream, [listener("main", tcpProxy("origin")), listener("web", chain)]),
    files: { "filters/spins.ts": SPINS },
    args: ["--trust", "spins"],
    concurrency: 1,
  });
  const port = proxy.port("main");
  const flow = (letters: string) =>
    Promise.all([...letters].map((letter) => flowing(port, letter)));
  const before = await flow("ABCDEFGH");
  await get(proxy.port("web"), "/spin").catch(() => undefined);
  await Promise.all(before.map(({ closed }) => closed));
  await eventually(
    () => open,
    (n) => n === 0,
    "the end of the upstream's connections",
  );

  const after = await flow("abcdefgh");
  expect([...before, ...after].map(({ foreign }) => foreign)).toEqual(Array(16).fill(0));
  expect(open).toBe(8);
  // All but the upstream and the proxy.
  for (const end of ends.splice(2)) await end();
  await nothingLeft(proxy);
});

/** A flood of which some has come back; tried again while there is no isolate. */
function flowing(port: number, letter: string): Promise<Flood> {
  const flows = (flood: Flood) => flood.received > 100_000;
  return eventually(
    async () => {
      const flood = new Flood(port, letter);
      const arrives = eventually(() => flood, flows, "the first bytes of a flood");
      await Promise.race([flood.closed, arrives]);
      return flood;
    },
    flows,
    "a flood that comes back",
  );
}
