import { existsSync, readFileSync, renameSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { accessLog, bootstrap, direct, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

let folder: string;
let proxy: Proxy;
let requests: string;
let connections: string;
let refused: string;
let echoed: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "tsproxy-log-"));
  requests = path.join(folder, "requests.log");
  connections = path.join(folder, "connections.log");
  const filter = {
    status_code_filter: {
      comparison: { op: "GE", value: { default_value: 300, runtime_key: "x" } },
    },
  };
  const routes = [direct("/no", "", 404), direct("/", "yes")];
  const log = accessLog(requests, "%REQ(:PATH)% %RESPONSE_CODE%\n");
  const chain = http(routes, { access_log: [{ ...log, filter }] });
  const access_log = [
    accessLog(
      connections,
      "%LISTENER_NAME% %ACCESS_LOG_TYPE% %BYTES_SENT% %METADATA(LISTENER:ns:k)%\n",
    ),
  ];
  const metadata = { filter_metadata: { ns: { k: "v" } } };
  refused = path.join(folder, "refused.log");
  echoed = path.join(folder, "echoed.log");
  const guardedBy = (log: string) => ({
    access_log: [accessLog(log, "%BYTES_RECEIVED% %RESPONSE_FLAGS% %BYTES_SENT%\n")],
    listener_filters: [
      {
        name: "pp",
        typed_config: {
          "@type":
            "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        },
      },
    ],
  });
  proxy = await Proxy.start({
    config: bootstrap([
      listener("main", chain, { access_log, metadata }),
      listener("guarded", http(routes), guardedBy(refused)),
      listener("echo", { name: "network/echo", config: {} }, guardedBy(echoed)),
    ]),
  });
});
afterAll(async () => {
  await proxy?.stop();
  await rm(folder, { recursive: true, force: true });
});

const text = (file: string) => (existsSync(file) ? readFileSync(file, "utf8") : "");

test("a connection that a listener filter refuses has its line, and one that breaks the protocol its flag", async () => {
  for (const head of ["", "PROXY UNKNOWN\r\n"]) {
    const socket = net.connect(proxy.port("guarded"), "127.0.0.1");
    socket.on("error", () => {}).resume();
    socket.end(`${head}NO HTTP AT ALL\r\n\r\n`);
    await new Promise((resolve) => socket.once("close", resolve));
  }
  proxy.signal("SIGUSR1");
  await eventually(
    () => text(refused),
    (lines) => lines.split("\n").length === 3,
    "the lines are written",
  );
  expect(text(refused)).toMatch(/^0 - 0\n18 DPE \d+\n$/);
});

test("what listener filters have consumed is none of the connection's bytes", async () => {
  const socket = net.connect(proxy.port("echo"), "127.0.0.1").resume();
  socket.end("PROXY UNKNOWN\r\nhello");
  await new Promise((resolve) => socket.once("close", resolve));
  proxy.signal("SIGUSR1");
  await eventually(
    () => text(echoed),
    (lines) => lines === "5 - 5\n",
    "the line is written",
  );
});

test("log files move on at a signal, and a drain writes what is left", async () => {
  await get(proxy.port("main"), "/no/1");
  await get(proxy.port("main"), "/yes");
  const isThere = (there: boolean) => there;
  await eventually(() => existsSync(requests), isThere, "the file is made");
  renameSync(requests, `${requests}.1`);
  proxy.signal("SIGUSR1");
  const moved = () => existsSync(requests) && text(`${requests}.1`) !== "";
  await eventually(moved, isThere, "the old file is written and a new one made");
  expect(text(`${requests}.1`)).toBe("/no/1 404\n");

  await get(proxy.port("main"), "/no/2");
  await proxy.stop();
  expect(text(requests)).toBe("/no/2 404\n");
  const lines = text(connections).trimEnd().split("\n");
  expect(lines).toHaveLength(3);
  for (const line of lines) expect(line).toMatch(/^main NotSet [1-9]\d+ v$/);
});
