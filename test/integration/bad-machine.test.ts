import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, cluster, direct, http, listener, route } from "./config.ts";
import { CLI, Proxy } from "./proxy.ts";
import { httpUpstream } from "./upstream.ts";

const FILES = 160;

test("where no more files can be opened the log says so once, and new clients are served when there is room", async () => {
  const upstream = await httpUpstream((_, response) => void response.end("from upstream"));
  const proxy = await Proxy.start({
    config: {
      ...bootstrap(
        [listener("main", http([route("/up", "origin"), direct("/", "hello")]))],
        [cluster("origin", [upstream.port])],
      ),
      stats_flush_interval: "0.2s",
    },
    program: ["sh", "-c", `ulimit -n ${FILES} && exec "$0" "$@"`, process.execPath, CLI],
  });
  const said = (words: string) => proxy.lines.filter(({ msg }) => msg.includes(words)).length;
  const clients: net.Socket[] = [];
  try {
    await eventually(
      () => {
        for (let k = 0; k < FILES / 4; k++)
          clients.push(net.connect(proxy.port("main"), "127.0.0.1").on("error", () => {}));
        return said(`all ${FILES} files that may be open are in use`);
      },
      (times) => times > 0,
      "a word of it",
    );
    for (const client of clients) client.destroy();
    await eventually(
      () => said("files can be opened again"),
      (times) => times > 0,
      "the end of it",
    );
    expect((await get(proxy.port("main"), "/")).text).toBe("hello");
    expect((await get(proxy.port("main"), "/up")).text).toBe("from upstream");
    expect(said("files that may be open are in use")).toBe(1);
  } finally {
    for (const client of clients) client.destroy();
    await proxy.stop();
    await upstream.close();
  }
});

/** What a disk may take that others keep busy. */
const SLOW_MS = 3_000;
/** A pipe holds 64 KiB. */
const REQUESTS = 40;
const PATH = `/${"long".repeat(1_000)}`;

test("lines of an access log that wait for a slow disk as the proxy ends are written", async () => {
  const proxy = await Proxy.start({
    config: bootstrap([listener("main", http([direct("/", "hello")]))]),
  });
  const log = path.join(proxy.dir, "slow.log");
  execFileSync("mkfifo", [log]);
  try {
    const logged = { name: "access_log/file", config: { path: log } };
    proxy.reconfigure(
      bootstrap([listener("main", http([direct("/", "hello")], { access_log: [logged] }))]),
    );
    await proxy.line(/^reloaded/);
    for (let k = 0; k < REQUESTS; k++)
      expect((await get(proxy.port("main"), PATH)).status).toBe(200);
    proxy.signal("SIGTERM");
    await proxy.line(/^draining/);
    await delay(SLOW_MS);
    expect(readFileSync(log, "utf8").split(PATH).length - 1).toBe(REQUESTS);
    expect(await proxy.exited).toBe(0);
  } finally {
    await proxy.stop();
  }
});
