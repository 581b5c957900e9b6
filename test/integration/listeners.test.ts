import type http from "node:http";
import net from "node:net";
import { afterEach, expect, test } from "vitest";
import { deferred, eventually, get, RawClient } from "./client.ts";
import {
  address,
  bootstrap,
  cluster,
  direct,
  http as httpFilter,
  listener,
  route,
} from "./config.ts";
import { CLI, Proxy, type ProxyOptions, StartFailure } from "./proxy.ts";
import { httpUpstream, tcpUpstream } from "./upstream.ts";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function start(options: ProxyOptions): Promise<Proxy> {
  const proxy = await Proxy.start(options);
  ends.push(() => proxy.stop());
  return proxy;
}
async function origin(answer: http.RequestListener) {
  const upstream = await httpUpstream(answer);
  ends.push(() => upstream.close());
  return upstream;
}
const hello = httpFilter([direct("/", "hello\n")]);
const main = listener("main", hello, { stat_prefix: "main" });

test("a port that is taken is an error at its place in the file", async () => {
  const other = await tcpUpstream(() => {});
  ends.push(() => other.close());
  const failure = await Proxy.start({
    config: `static_resources:
  listeners:
  - name: main
    address:
      socket_address: { address: 127.0.0.1, port_value: ${other.port} }
    filter_chains:
    - filters:
      - name: envoy.filters.network.echo
        typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo }
`,
  }).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(StartFailure);
  const { code, output } = failure as StartFailure;
  expect(code).toBe(1);
  expect(output).toMatch(/envoy\.yaml:[345]:\d+: /);
  expect(output).toContain(`127.0.0.1:${other.port}`);
});

test("port 0 is one free port for all four workers, and each of them serves", async () => {
  const proxy = await start({
    config: bootstrap([
      listener("main", httpFilter([direct("/", "hello\n")], {}, [{ name: "who", config: {} }])),
    ]),
    files: {
      "filters/who.ts": `import { defineHttpFilter, Type } from "@tsproxy/sdk";
        export default defineHttpFilter({
          name: "who",
          config: Type.Object({}),
          setup: (_, { worker }) => () => ({
            onResponseHeaders: (headers) => headers.set("x-worker", String(worker)),
          }),
        });`,
    },
    concurrency: 4,
  });
  expect(await proxy.admin("/listeners")).toContain(`main::127.0.0.1:${proxy.port("main")}\n`);
  expect(proxy.port("main")).toBeGreaterThan(0);
  const seen = new Set<string | undefined>();
  const batch = async () => {
    const answers = await Promise.all(
      Array.from({ length: 16 }, () => get(proxy.port("main"), "/")),
    );
    for (const { headers } of answers) seen.add(headers["x-worker"] as string | undefined);
    return seen.size;
  };
  await eventually(batch, (size) => size === 4, "an answer of each worker");
  expect([...seen].sort()).toEqual(["0", "1", "2", "3"]);
  expect(await proxy.stat("server.concurrency")).toBe(4);
});

test("gauges of the workers follow connections as they come and go", async () => {
  const proxy = await start({ config: bootstrap([main]), concurrency: 2 });
  const name = "listener.main.downstream_cx_active";
  const clients = await Promise.all(
    Array.from({ length: 12 }, () => RawClient.connect(proxy.port("main"))),
  );
  await proxy.untilStat(name, 12);
  for (const client of clients.splice(0, 5)) client.end();
  await proxy.untilStat(name, 7);
  for (const client of clients) client.destroy();
  await proxy.untilStat(name, 0);
});

test("a start in which nothing is edited does not say that core has changed", async () => {
  const proxy = await start({ config: bootstrap([main]) });
  await get(proxy.port("main"), "/");
  proxy.signal("SIGTERM");
  await proxy.exited;
  expect(proxy.output).toContain("watching");
  expect(proxy.output).not.toContain("has changed");
});

test("SIGTERM lets a request in flight finish, takes no new connection, and ends with 0", async () => {
  const asked = deferred<http.ServerResponse>();
  const upstream = await origin((_, response) => asked.resolve(response));
  const proxy = await start({
    config: bootstrap(
      [listener("main", httpFilter([route("/", "origin")]))],
      [cluster("origin", [upstream.port])],
    ),
  });
  const inFlight = get(proxy.port("main"), "/slow");
  const response = await asked.promise;
  proxy.signal("SIGTERM");
  await eventually(
    () => refuses(proxy.port("main")),
    (refused) => refused,
    "new connections are refused",
  );
  response.end("at last");
  expect(await inFlight).toMatchObject({ status: 200, text: "at last" });
  expect(await proxy.exited).toBe(0);
});

test("ends with npx, which passes SIGTERM on to a shell alone", async () => {
  const proxy = await start({
    config: bootstrap([main]),
    program: ["sh", "-c", '"$0" "$@"; exit $?', process.execPath, CLI],
    env: { npm_lifecycle_event: "npx", npm_lifecycle_script: "'tsproxy'" },
  });
  proxy.signal("SIGTERM");
  // Settles once nobody holds its output any more.
  await proxy.exited;
  expect(await refuses(proxy.port("main"))).toBe(true);
});

test("a listener on IPv6 and one on every address serve beside each other", async () => {
  if (!(await hasIpv6())) return;
  const proxy = await start({
    config: bootstrap([
      { ...listener("six", hello), address: address(0, "::1") },
      { ...listener("all", hello), address: address(0, "0.0.0.0") },
    ]),
  });
  const socket = net.connect(proxy.port("six"), "::1");
  const answered = deferred<string>();
  socket.setEncoding("latin1").on("data", (text: string) => answered.resolve(text));
  socket.on("error", answered.reject);
  socket.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
  expect(await answered.promise).toMatch(/^HTTP\/1\.1 200 OK/);
  expect((await get(proxy.port("all"), "/")).text).toBe("hello\n");
});

function refuses(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.on("error", () => resolve(true));
    socket.on("connect", () => {
      socket.destroy();
      resolve(false);
    });
  });
}

function hasIpv6(): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.on("error", () => resolve(false));
    server.listen(0, "::1", () => server.close(() => resolve(true)));
  });
}

test("a client that says nothing to listener filters is closed in time, or served all the same if the config says so", async () => {
  const inspector = {
    name: "envoy.filters.listener.tls_inspector",
    typed_config: {
      "@type":
        "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    },
  };
  const sign = {
    name: "envoy.filters.network.direct_response",
    typed_config: {
      "@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config",
      response: { inline_string: "served" },
    },
  };
  const waits = { listener_filters: [inspector], listener_filters_timeout: "0.2s" };
  const proxy = await start({
    config: bootstrap([
      listener("closes", sign, waits),
      listener("serves", sign, { ...waits, continue_on_listener_filters_timeout: true }),
    ]),
  });
  const closed = await RawClient.connect(proxy.port("closes"));
  await closed.untilClosed();
  expect(closed.text).toBe("");
  const served = await RawClient.connect(proxy.port("serves"));
  await served.untilText("served");
  served.destroy();
  await proxy.untilStat("listener.127.0.0.1_0.downstream_pre_cx_timeout", 2);
});
