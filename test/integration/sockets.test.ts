import dgram from "node:dgram";
import { readFileSync, statSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import os, { networkInterfaces } from "node:os";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { freePort } from "../../core/command/free-port.ts";
import { eventually, get } from "./client.ts";
import {
  address,
  bootstrap,
  cluster,
  direct,
  http as httpFilter,
  type Json,
  listener,
  route,
  tcpProxy,
} from "./config.ts";
import { Proxy, type ProxyOptions } from "./proxy.ts";
import { httpUpstream, tcpUpstream } from "./upstream.ts";

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});
async function start(options: ProxyOptions): Promise<Proxy> {
  const proxy = await Proxy.start(options);
  ends.push(() => proxy.stop());
  return proxy;
}

const TYPE = "type.googleapis.com/envoy.extensions.";
const hello = httpFilter([direct("/", "hello\n")]);

function overUnix(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath, path: "/", agent: false }, (response) => {
      response.setEncoding("utf8").on("data", resolve);
    });
    request.on("error", reject);
  });
}

test("unix sockets, abstract ones and additional addresses lead to one listener", async () => {
  const file = path.join(os.tmpdir(), `tsproxy-${process.pid}.sock`);
  const abstract = `@tsproxy-${process.pid}`;
  const port = await freePort();
  const additional = [{ address: { pipe: { path: abstract } } }, { address: address(port) }];
  const proxy = await start({
    config: bootstrap([
      {
        ...listener("main", hello),
        address: { pipe: { path: file, mode: 0o600 } },
        additional_addresses: additional,
      },
    ]),
    concurrency: 2,
  });
  expect(await overUnix(file)).toBe("hello\n");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(await overUnix(`\0${abstract.slice(1)}`)).toBe("hello\n");
  expect((await get(port, "/")).text).toBe("hello\n");
  expect(await proxy.admin("/listeners")).toContain(file);
});

test("an additional address that a listener gives up is closed, and may be taken again", async () => {
  const port = await freePort();
  const config = (more: Json[]) =>
    bootstrap([{ ...listener("main", hello), additional_addresses: more }]);
  const additional = [{ address: address(port) }];
  const proxy = await start({ config: config(additional) });
  const answer = () =>
    get(port, "/").then(
      ({ text }) => text,
      (error: NodeJS.ErrnoException) => error.code,
    );
  for (const [more, expected] of [
    [additional, "hello\n"],
    [[], "ECONNREFUSED"],
    [additional, "hello\n"],
  ] as const) {
    proxy.reconfigure(config([...more]));
    await eventually(
      answer,
      (found) => found === expected,
      `${expected} at the additional address`,
    );
  }
  await proxy.admin("/drain_listeners", "POST");
  await eventually(answer, (found) => found === "ECONNREFUSED", "drained");
});

test("a cluster reaches its hosts over unix sockets, and from the address it is told to", async () => {
  const file = path.join(os.tmpdir(), `tsproxy-up-${process.pid}.sock`);
  const server = http.createServer((_, response) => response.end("unix\n"));
  await new Promise<void>((resolve) => server.listen(file, resolve));
  ends.push(() => server.close());
  const origin = await httpUpstream((request, response) =>
    response.end(String(request.socket.remoteAddress)),
  );
  ends.push(() => origin.close());
  const unix: Json = {
    name: "unix",
    type: "STATIC",
    load_assignment: {
      cluster_name: "unix",
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: file } } } }] }],
    },
  };
  const bound = cluster("bound", [origin.port], {
    upstream_bind_config: { source_address: { address: "127.0.0.9", port_value: 0 } },
  });
  const routes = [route("/unix", "unix"), route("/free", "free"), route("/", "bound")];
  const proxy = await start({
    config: {
      ...bootstrap(
        [listener("main", httpFilter(routes))],
        [unix, bound, cluster("free", [origin.port])],
      ),
      cluster_manager: {
        upstream_bind_config: { source_address: { address: "127.0.0.8", port_value: 0 } },
      },
    },
  });
  expect((await get(proxy.port("main"), "/unix")).text).toBe("unix\n");
  expect((await get(proxy.port("main"), "/")).text).toBe("127.0.0.9");
  expect((await get(proxy.port("main"), "/free")).text).toBe("127.0.0.8");
});

test("a host of several addresses is reached by the first that answers, each from the address of its family", async () => {
  const origin = await httpUpstream((request, response) =>
    response.end(String(request.socket.remoteAddress)),
  );
  ends.push(() => origin.close());
  const refused = await freePort();
  const several = (...rest: object[]): Json => ({
    name: `several${rest.length}`,
    type: "STATIC",
    load_assignment: {
      cluster_name: "several",
      endpoints: [
        {
          lb_endpoints: [
            { endpoint: { address: address(refused, "::1"), additional_addresses: rest } },
          ],
        },
      ],
    },
    upstream_bind_config: {
      source_address: { address: "::1", port_value: 0 },
      extra_source_addresses: [{ address: { address: "127.0.0.9", port_value: 0 } }],
    },
  });
  const proxy = await start({
    config: bootstrap(
      [listener("main", httpFilter([route("/dead", "several1"), route("/", "several2")]))],
      [
        several({ address: address(refused) }),
        several({ address: address(refused) }, { address: address(origin.port) }),
      ],
    ),
  });
  expect((await get(proxy.port("main"), "/")).text).toBe("127.0.0.9");
  expect((await get(proxy.port("main"), "/dead")).text).toContain("remote connection failure");
  const stats = await proxy.admin("/stats?filter=cluster.several");
  expect(stats).toContain("cluster.several2.upstream_cx_total: 3\n");
  expect(stats).toContain("cluster.several2.upstream_cx_connect_fail: 0\n");
  expect(stats).toContain("cluster.several1.upstream_cx_connect_fail: 1\n");
});

test("a listener without a port of its own gets connections by their destination", async () => {
  const port = await freePort();
  const hidden = { ...listener("hidden", hello), address: address(port, "192.0.2.7") };
  const value = "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_ADDRESS%";
  const places = { response_headers_to_add: [{ header: { key: "x-at", value } }] };
  const inspector = {
    name: "envoy.filters.listener.proxy_protocol",
    typed_config: { "@type": `${TYPE}filters.listener.proxy_protocol.v3.ProxyProtocol` },
  };
  const proxy = await start({
    config: bootstrap([
      {
        ...listener("main", httpFilter([{ ...direct("/", "main\n"), ...places }])),
        use_original_dst: true,
        listener_filters: [inspector],
      },
      { ...hidden, bind_to_port: false },
    ]),
  });
  const ask = (destination: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = net.connect(proxy.port("main"), "127.0.0.1");
      let text = "";
      socket.setEncoding("latin1").on("data", (piece: string) => (text += piece));
      socket.on("end", () => resolve(text)).on("error", reject);
      const request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
      socket.write(`PROXY TCP4 10.0.0.1 ${destination} 1000 ${port}\r\n${request}`);
    });
  expect(await ask("192.0.2.7")).toContain("hello\n");
  const other = await ask("192.0.2.8");
  expect(other).toContain("main\n");
  expect(other).toContain(`x-at: 192.0.2.8:${port} 127.0.0.1:${proxy.port("main")}\r\n`);
});

test("an upstream learns by the PROXY protocol who asks, and no two clients share a connection", async () => {
  const heads: string[] = [];
  const upstream = await tcpUpstream((socket) => {
    let text = "";
    socket.setEncoding("latin1").on("data", (piece: string) => {
      if (text === "") heads.push(piece.slice(0, piece.indexOf("\r\n")));
      text += piece;
      const asked = text.split("\r\n\r\n").length - 1;
      text = text.slice(text.lastIndexOf("\r\n\r\n") + 4) || " ";
      for (let k = 0; k < asked; k++)
        socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
  });
  ends.push(upstream.close);
  const transport_socket = {
    name: "envoy.transport_sockets.upstream_proxy_protocol",
    typed_config: {
      "@type": `${TYPE}transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport`,
      config: { version: "V1" },
      transport_socket: {
        name: "envoy.transport_sockets.raw_buffer",
        typed_config: { "@type": `${TYPE}transport_sockets.raw_buffer.v3.RawBuffer` },
      },
    },
  };
  const proxy = await start({
    config: bootstrap(
      [listener("main", httpFilter([route("/", "up")]))],
      [cluster("up", [upstream.port], { transport_socket })],
    ),
  });
  const port = proxy.port("main");
  const expected: string[] = [];
  for (let client = 0; client < 2; client++) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    ends.push(() => agent.destroy());
    for (let k = 0; k < 3; k++) {
      const own = await new Promise<number>((resolve, reject) => {
        const request = http.get({ port, agent }, (answer) => {
          const { localPort = 0 } = answer.socket;
          answer.resume().on("end", () => resolve(localPort));
        });
        request.on("error", reject);
      });
      if (k === 0) expected.push(`PROXY TCP4 127.0.0.1 127.0.0.1 ${own} ${port}`);
    }
  }
  expect(heads).toEqual(expected);
});

test("kept connections are probed as tcp_keepalive says, at both ends", async () => {
  const upstream = await tcpUpstream((socket) => socket.resume());
  ends.push(() => upstream.close());
  const keepalive = { keepalive_time: 1_000, keepalive_interval: 5, keepalive_probes: 3 };
  const config = (main: Json) =>
    bootstrap(
      [{ ...listener("main", tcpProxy("up")), ...main }],
      [
        cluster("up", [upstream.port], {
          upstream_connection_options: { tcp_keepalive: { ...keepalive, keepalive_time: 500 } },
        }),
      ],
    );
  const proxy = await start({ config: config({ tcp_keepalive: keepalive }) });
  const port = proxy.port("main");
  const client = net.connect(port, "127.0.0.1");
  ends.push(() => client.destroy());
  const timers = async () => ({
    downstream: keepAliveTimer({ local: port }),
    upstream: keepAliveTimer({ remote: upstream.port }),
  });
  const bothRun = ({ downstream, upstream }: Awaited<ReturnType<typeof timers>>) =>
    downstream !== undefined && upstream !== undefined;
  const { downstream, upstream: other } = await eventually(timers, bothRun, "both are probed");
  // Seconds until the first probe; Linux's own are 7200.
  expect(downstream).toBeLessThanOrEqual(1_000);
  expect(downstream).toBeGreaterThan(500);
  expect(other).toBeLessThanOrEqual(500);

  // The socket stays open through a reload, and takes the new figure.
  client.destroy();
  proxy.reconfigure(config({ tcp_keepalive: { ...keepalive, keepalive_time: 5_000 } }));
  await proxy.line(/reloaded/);
  const next = net.connect(port, "127.0.0.1");
  ends.push(() => next.destroy());
  const timer = async () => keepAliveTimer({ local: port }) ?? 0;
  expect(await eventually(timer, (s) => s > 1_000, "it is probed later")).toBeLessThanOrEqual(
    5_000,
  );
});

/** Seconds that the kernel waits before it probes an established connection with that port; undefined: it does not. */
function keepAliveTimer({
  local,
  remote,
}: {
  local?: number;
  remote?: number;
}): number | undefined {
  const hex = (port: number) => port.toString(16).toUpperCase().padStart(4, "0");
  const rows = readFileSync("/proc/net/tcp", "utf8").split("\n").slice(1);
  for (const row of rows) {
    const [, from = "", to = "", state, , timer = ""] = row.trim().split(/\s+/);
    if (local !== undefined && !from.endsWith(`:${hex(local)}`)) continue;
    if (remote !== undefined && !to.endsWith(`:${hex(remote)}`)) continue;
    // 01: established; 02: the timer is that of probes, in hundredths of a second.
    if (state === "01" && timer.startsWith("02:")) return Number.parseInt(timer.slice(3), 16) / 100;
  }
  return undefined;
}

const ofListener = { "envoy.resource_limits.listener.main.connection_limit": 3 };
const ofAll = {
  runtime: {
    layered_runtime: {
      layers: [
        {
          name: "static",
          // One more than below, since here the listener that ignores it counts.
          static_layer: { ...ofListener, "overload.global_downstream_max_connections": 5 },
        },
      ],
    },
  },
  "overload manager": {
    layered_runtime: { layers: [{ name: "static", static_layer: ofListener }] },
    overload_manager: {
      refresh_interval: "0.5s",
      resource_monitors: [
        {
          name: "envoy.resource_monitors.global_downstream_max_connections",
          typed_config: {
            "@type": `${TYPE}resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig`,
            max_active_downstream_connections: 4,
          },
        },
      ],
    },
  },
};
test.each(Object.entries(ofAll))(
  "connections beyond a listener's limit, or that of all (%s), are closed at once",
  async (_, limits) => {
    const echo = {
      name: "envoy.filters.network.echo",
      typed_config: { "@type": `${TYPE}filters.network.echo.v3.Echo` },
    };
    const proxy = await start({
      config: {
        ...bootstrap([
          listener("main", echo, { stat_prefix: "main" }),
          listener("other", echo),
          listener("free", echo, { ignore_global_conn_limit: true }),
        ]),
        ...limits,
      },
      concurrency: 2,
    });
    const open = (name: string) =>
      new Promise<net.Socket | undefined>((resolve) => {
        const socket = net.connect(proxy.port(name), "127.0.0.1", () => socket.write("x"));
        socket.on("data", () => resolve(socket)).on("error", () => resolve(undefined));
        socket.on("close", () => resolve(undefined));
      });
    const free = await open("free");
    expect(free).toBeDefined();
    const first = await Promise.all([open("main"), open("main"), open("main")]);
    expect(first.every((socket) => socket !== undefined)).toBe(true);
    expect(await open("main")).toBeUndefined();
    const fourth = await open("other");
    expect(fourth).toBeDefined();
    expect(await open("other")).toBeUndefined();
    const stats = await proxy.stats();
    expect(stats("listener.main.downstream_cx_overflow")).toBe(1);
    const monitor = "overload.envoy.resource_monitors.global_downstream_max_connections";
    const ofMonitor = `${monitor}.failed_updates: 1\n${monitor}.pressure: 0\n`;
    expect(await proxy.admin("/stats?filter=^overload")).toBe(
      `${"overload_manager" in limits ? ofMonitor : ""}overload.refresh_interval_delay: No recorded values\n`,
    );
    expect(proxy.output).not.toContain("not implemented");
    first[0]!.destroy();
    await eventually(
      () => open("main"),
      (socket) => socket !== undefined,
      "room for one more",
    );
    for (const socket of [...first, fourth, free]) socket?.destroy();
  },
);

test("connections that connection_limit refuses are counted by the filter behind it, open and closed", async () => {
  const limit = {
    name: "envoy.filters.network.connection_limit",
    typed_config: {
      "@type": `${TYPE}filters.network.connection_limit.v3.ConnectionLimit`,
      stat_prefix: "few",
      max_connections: 1,
    },
  };
  const behind = listener("main", hello, { stat_prefix: "main" });
  const proxy = await start({
    config: bootstrap([{ ...behind, filter_chains: [{ filters: [limit, hello] }] }]),
  });
  const agent = new http.Agent({ keepAlive: true });
  ends.push(() => agent.destroy());
  expect((await get(proxy.port("main"), "/", { agent })).text).toBe("hello\n");
  await expect(get(proxy.port("main"), "/")).rejects.toThrow();
  const closed = await eventually(
    () => proxy.stats(),
    (stats) => stats("listener.main.downstream_cx_destroy") === 1,
    "the refused connection is closed",
  );
  expect(closed("http.test.downstream_cx_total")).toBe(2);
  expect(closed("http.test.downstream_cx_active")).toBe(1);
});

test("connections that connection_limit closes after a delay end without a reset, whatever they have sent", async () => {
  const limit = {
    name: "envoy.filters.network.connection_limit",
    typed_config: {
      "@type": `${TYPE}filters.network.connection_limit.v3.ConnectionLimit`,
      stat_prefix: "few",
      max_connections: 1,
      delay: "0.5s",
    },
  };
  const echo = {
    name: "envoy.filters.network.echo",
    typed_config: { "@type": `${TYPE}filters.network.echo.v3.Echo` },
  };
  const main = { ...listener("main", echo), filter_chains: [{ filters: [limit, echo] }] };
  const proxy = await start({ config: bootstrap([main]) });
  const open = () => {
    const socket = net.connect(proxy.port("main"), "127.0.0.1", () =>
      socket.write("x".repeat(999)),
    );
    ends.push(() => socket.destroy());
    return socket;
  };
  const first = open();
  await new Promise((resolve) => first.once("data", resolve));
  const end = await new Promise((resolve) => {
    open()
      .on("data", () => resolve("answered"))
      .on("error", (error) => resolve(error.message))
      .on("end", () => resolve("ended"));
  });
  expect(end).toBe("ended");
});

test("a small buffer limit pauses the source while the client does not read", async () => {
  const origin = await tcpUpstream((socket) => {
    const piece = Buffer.alloc(64 * 1024, 120);
    const more = () => {
      while (!socket.destroyed && socket.write(piece));
    };
    socket.on("drain", more);
    more();
  });
  ends.push(() => origin.close());
  const proxy = await start({
    config: bootstrap(
      [listener("main", tcpProxy("origin"), { per_connection_buffer_limit_bytes: 4096 })],
      [cluster("origin", [origin.port])],
    ),
  });
  const socket = net.connect(proxy.port("main"), "127.0.0.1");
  ends.push(() => socket.destroy());
  socket.pause();
  await eventually(
    () => proxy.stat("cluster.origin.upstream_flow_control_paused_reading_total"),
    (paused) => paused > 0,
    "the upstream is paused",
  );
});

test.each([["127.0.0.1"], ["::"]])(
  "datagrams find their way to %s and back, for many clients at once",
  async (at) => {
    if (
      at === "::" &&
      !Object.values(networkInterfaces())
        .flat()
        .some((i) => i?.family === "IPv6")
    )
      return;
    const origin = dgram.createSocket("udp4");
    origin.on("message", (bytes, from) => origin.send(`got ${bytes}`, from.port, from.address));
    await new Promise<void>((resolve) => origin.bind(0, "127.0.0.1", resolve));
    ends.push(() => origin.close());
    const udpProxy = {
      name: "udp",
      typed_config: {
        "@type": `${TYPE}filters.udp.udp_proxy.v3.UdpProxyConfig`,
        stat_prefix: "u",
        cluster: "origin",
      },
    };
    const port = await freePort();
    const proxy = await start({
      config: bootstrap(
        [
          {
            name: "udp",
            address: {
              socket_address: {
                protocol: "UDP",
                address: at,
                port_value: port,
                ...(at === "::" && { ipv4_compat: true }),
              },
            },
            listener_filters: [udpProxy],
          },
        ],
        [cluster("origin", [origin.address().port])],
      ),
      concurrency: 2,
      env: { TSPROXY_RING: "8,8,2,2" },
    });
    const client = (name: string) =>
      new Promise<void>((resolve, reject) => {
        const socket = dgram.createSocket("udp4");
        let next = 0;
        socket.on("message", (bytes) => {
          if (String(bytes) !== `got ${name} ${next}`) reject(new Error(`${name} got ${bytes}`));
          if (++next === 20) {
            socket.close();
            resolve();
          } else socket.send(`${name} ${next}`, port, "127.0.0.1");
        });
        socket.send(`${name} 0`, port, "127.0.0.1");
      });
    await Promise.all(Array.from({ length: 20 }, (_, k) => client(`client${k}`)));
    const stats = await proxy.stats();
    expect(stats("udp.u.downstream_sess_total")).toBe(20);
    expect(stats("udp.u.downstream_sess_tx_datagrams")).toBe(400);
  },
);
