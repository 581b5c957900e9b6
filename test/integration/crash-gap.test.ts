import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { afterEach, expect, it } from "vitest";
import { freePort } from "../../core/command/free-port.ts";
import { eventually } from "./client.ts";
import { address, bootstrap, direct, http as hcm, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

let proxy: Proxy | undefined;
afterEach(() => proxy?.stop());

/** What a client gets that connects now. */
function ask(port: number): Promise<number | string> {
  return new Promise((resolve) => {
    const request = http.get({ host: "127.0.0.1", port, path: "/", agent: false }, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode ?? 0));
    });
    request.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

it.each([1, 2])(
  "with %d workers, a client that connects after a crash waits for the next process, at the same port",
  async (concurrency) => {
    // Port 0: the next process has the port that this one got.
    const main = listener("main", hcm([direct("/", "hello")]), { address: address(0) });
    proxy = await Proxy.start({ config: bootstrap([main], []), concurrency });
    const port = proxy.port("main");
    const [before] = proxy.processes();
    let from = proxy.lines.length;
    process.kill(before!, "SIGKILL");
    await eventually(
      () => proxy!.processes()[0] ?? before,
      (now) => now !== before,
      "another process is started",
    );
    const asked = Array.from({ length: 20 }, () => ask(port));
    // It waits: the process that will answer has only just been started.
    expect(proxy.lines.slice(from).join("\n")).not.toMatch(/^listening/m);
    expect(await Promise.all(asked)).toEqual(asked.map(() => 200));
    await proxy.line(/^watching /, from);
    expect(proxy.port("main")).toBe(port);

    const [serving, spare] = await untilSpare(proxy);
    await eventually(
      () => workersOf(spare!),
      (workers) => workers === concurrency,
      "its workers are started",
    );
    from = proxy.lines.length;
    process.kill(serving!, "SIGKILL");
    await proxy.line(/^watching /, from);
    expect(proxy.processes()[0]).toBe(spare);
    const all = Array.from({ length: 20 }, () => ask(port));
    expect(await Promise.all(all)).toEqual(all.map(() => 200));
    // The next crash finds one, too.
    expect(await untilSpare(proxy)).toEqual([spare, expect.any(Number)]);
  },
);

it("the process that waits after a crash keeps no address that the config gives up", async () => {
  const listeners = await Promise.all(
    ["kept", "given up"].map(async (name) =>
      listener(name, hcm([direct("/", "hello")]), { address: address(await freePort()) }),
    ),
  );
  proxy = await Proxy.start({ config: bootstrap(listeners, []) });
  const port = proxy.port("given up");
  let from = proxy.lines.length;
  process.kill(proxy.processes()[0]!, "SIGKILL");
  await proxy.line(/^watching /, from);
  await untilSpare(proxy);
  from = proxy.lines.length;
  proxy.reconfigure(bootstrap(listeners.slice(0, 1), []));
  await proxy.line(/^reloaded /, from);
  const isFree = () =>
    new Promise<boolean>((resolve) => {
      const server = net.createServer().on("error", () => resolve(false));
      server.listen({ host: "127.0.0.1", port }, () => server.close(() => resolve(true)));
    });
  await eventually(isFree, Boolean, "another program can have the address");
});

/** How many threads of workers a process has. */
const workersOf = (pid: number) =>
  readdirSync(`/proc/${pid}/task`).filter((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/comm`, "utf8").startsWith("worker "),
  ).length;

/** The process that serves, and the one that waits to take its place. */
const untilSpare = (running: Proxy) =>
  eventually(
    () => running.processes(),
    (all) => all.length === 2,
    "another process waits",
  );

it("after a crash, as many clients can wait in a listener's backlog as before", async () => {
  // More than Node's own backlog of 511.
  const clients = 600;
  const more = { address: address(0), tcp_backlog_size: 1000 };
  proxy = await Proxy.start({
    config: bootstrap([listener("main", hcm([direct("/", "hello")]), more)], []),
  });
  const from = proxy.lines.length;
  process.kill(proxy.processes()[0]!, "SIGKILL");
  await proxy.line(/^watching /, from);
  const [now] = proxy.processes();
  const port = proxy.port("main");
  process.kill(now!, "SIGSTOP");
  try {
    const all = Array.from({ length: clients }, () => net.connect({ host: "127.0.0.1", port }));
    for (const socket of all) socket.on("error", () => {});
    await Promise.all(all.map((socket) => once(socket, "connect")));
    for (const socket of all) socket.destroy();
  } finally {
    process.kill(now!, "SIGCONT");
  }
});
