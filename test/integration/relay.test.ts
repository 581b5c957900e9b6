import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import { eventually, RawClient } from "./client.ts";
import { accessLog, bootstrap, cluster, type Json, listener, tcpProxy } from "./config.ts";
import { Proxy, type ProxyOptions } from "./proxy.ts";
import { tcpUpstream, type Upstream } from "./upstream.ts";

const folder = mkdtempSync(path.join(os.tmpdir(), "tsproxy-relay-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function echo(): Promise<Upstream> {
  const upstream = await tcpUpstream((socket) => socket.pipe(socket));
  ends.push(() => upstream.close());
  return upstream;
}

async function start(
  upstream: Upstream,
  more: Json = {},
  options: Partial<ProxyOptions> = {},
): Promise<Proxy> {
  const filter = tcpProxy("origin") as { typed_config: Json };
  const chain = { ...filter, typed_config: { ...filter.typed_config, ...more } };
  const proxy = await Proxy.start({
    config: bootstrap([listener("main", chain)], [cluster("origin", [upstream.port])]),
    ...options,
  });
  ends.push(() => proxy.stop());
  return proxy;
}

const FORMAT =
  "%ACCESS_LOG_TYPE% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_WIRE_BYTES_RECEIVED%\n";

test("bytes that core relays are in stats while the connection is open, and in its log entries", async () => {
  const log = path.join(folder, "access.log");
  const lines = () => (existsSync(log) ? readFileSync(log, "utf8").split("\n").slice(0, -1) : []);
  const proxy = await start(
    await echo(),
    {
      access_log: [accessLog(log, FORMAT)],
      access_log_options: { access_log_flush_interval: "0.05s" },
    },
    { args: ["--file-flush-interval-msec", "20"] },
  );
  const client = await RawClient.connect(proxy.port("main"));
  let sent = "";
  for (let k = 0; k < 20; k++) {
    sent += `turn ${k};`;
    client.send(`turn ${k};`);
    await client.until(({ text }) => text === sent);
  }
  const size = sent.length;
  const all = `${size} ${size} ${size} ${size}`;
  await eventually(lines, (got) => got.at(-1) === `TcpPeriodic ${all}`, "a periodic entry");
  await proxy.untilStat("tcp.tcp.downstream_cx_rx_bytes_total", size);
  await proxy.untilStat("tcp.tcp.downstream_cx_tx_bytes_total", size);
  await proxy.untilStat("cluster.origin.upstream_cx_rx_bytes_total", size);
  await proxy.untilStat("cluster.origin.upstream_cx_tx_bytes_total", size);
  const last = "turn 19;".length;
  await proxy.untilStat("tcp.tcp.downstream_cx_rx_bytes_buffered", last);
  await proxy.untilStat("cluster.origin.upstream_cx_rx_bytes_buffered", last);

  client.end();
  await client.untilClosed();
  await eventually(lines, (got) => got.at(-1) === `TcpConnectionEnd ${all}`, "the last entry");
  await proxy.untilStat("tcp.tcp.downstream_cx_rx_bytes_buffered", 0);
  await proxy.untilStat("cluster.origin.upstream_cx_rx_bytes_buffered", 0);
});

const TINY = { TSPROXY_RING: "8,8,2,2" };

/** Sends its own letter in pieces of all sizes, and may reset at a random moment. Answers how many bytes came back of other letters. */
function exchange(port: number, letter: string, resets: boolean): Promise<number> {
  return new Promise((resolve) => {
    const size = 400_000;
    const socket = net.connect({ port, host: "127.0.0.1" });
    const code = letter.charCodeAt(0);
    let got = 0;
    let foreign = 0;
    const stopAt = resets ? Math.random() * size : size;
    socket.on("error", () => {});
    socket.on("close", () => resolve(got >= stopAt ? foreign : -1));
    socket.on("data", (bytes) => {
      got += bytes.length;
      for (const byte of bytes) if (byte !== code) foreign++;
      if (got >= stopAt) socket.resetAndDestroy();
    });
    for (let left = size, piece = 1; left > 0; left -= piece, piece = (piece * 7) % 50_021)
      socket.write(Buffer.alloc(Math.min(left, piece), letter));
  });
}

test.each([[{}], [TINY]])("nobody sees bytes of others, with a ring of %o", async (env) => {
  const proxy = await start(await echo(), {}, { env, concurrency: 1 });
  const port = proxy.port("main");
  for (let round = 0; round < 3; round++) {
    const letters = [..."ABCDEFGHIJKLMNOPQRST"];
    const results = await Promise.all(letters.map((l, k) => exchange(port, l, k % 2 === 1)));
    expect(results).toEqual(letters.map(() => 0));
  }
  await proxy.untilStat("tcp.tcp.downstream_cx_rx_bytes_buffered", 0);
});

test("connections that core relays go on while the config is reloaded", async () => {
  const upstream = await echo();
  const proxy = await start(upstream, { idle_timeout: "60s" });
  const client = await RawClient.connect(proxy.port("main"));
  client.send("before");
  await client.untilText("before");
  const filter = tcpProxy("origin") as { typed_config: Json };
  const typed_config = { ...filter.typed_config, stat_prefix: "next" };
  proxy.reconfigure(
    bootstrap(
      [listener("main", { ...filter, typed_config })],
      [cluster("origin", [upstream.port], { connect_timeout: "7s" })],
    ),
  );
  const other = await eventually(
    async () => {
      const fresh = await RawClient.connect(proxy.port("main"));
      fresh.send("x");
      await fresh.untilText("x");
      fresh.destroy();
      return (await proxy.stats())("tcp.next.downstream_cx_total");
    },
    (total) => (total ?? 0) > 0,
    "a connection of the new config",
  );
  expect(other).toBeGreaterThan(0);
  client.send(", after");
  await client.untilText("before, after");
});
