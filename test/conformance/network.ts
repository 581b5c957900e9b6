import { createSocket } from "node:dgram";
import { bootstrap, cluster, http, type Json, listener, route } from "../integration/config.ts";
import { Proxy } from "../integration/proxy.ts";
import { type Outcome, runCommand, runScript, suite } from "./outside.ts";

const ORIGIN = 19_080;
const RESOLVER = 19_053;
const FILTERS = "type.googleapis.com/envoy.extensions.filters.";

/** PROXY protocol, datagrams and slow clients. */
export const NETWORK_SUITES: Readonly<Record<string, () => Promise<Outcome>>> = {
  "proxy-protocol": () =>
    withProxy("conformance/proxy-protocol.mjs", forwarder(true), (file, proxy) =>
      runScript(file, [`127.0.0.1:${proxy.port("main")}`, String(ORIGIN)]),
    ),
  slow: () =>
    withProxy("conformance/slow.sh", forwarder(false), (file, proxy) =>
      runCommand("bash", [file], { PROXY_H1: `127.0.0.1:${proxy.port("main")}` }),
    ),
  "dns-udp": async () => {
    const port = await freeUdpPort();
    return withProxy("conformance/dns-udp.sh", resolver(port), (file) =>
      runCommand("bash", [file], { PROXY_UDP: `127.0.0.1:${port}` }),
    );
  },
};

async function withProxy(
  name: string,
  config: Json,
  run: (file: string, proxy: Proxy) => Promise<Outcome>,
): Promise<Outcome> {
  const file = suite(name);
  if (file === undefined) return "skipped";
  const proxy = await Proxy.start({ config });
  try {
    return await run(file, proxy);
  } finally {
    await proxy.stop();
  }
}

/** `announced`: clients' addresses come by the PROXY protocol. */
function forwarder(announced: boolean): Json {
  const manager = http([route("/", "origin", { timeout: "0s" })], {
    use_remote_address: true,
    request_headers_timeout: "5s",
    common_http_protocol_options: { idle_timeout: "10s" },
  });
  const filter = {
    name: "proxy_protocol",
    typed_config: { "@type": `${FILTERS}listener.proxy_protocol.v3.ProxyProtocol` },
  };
  const main = listener("main", manager);
  return bootstrap(
    [announced ? { ...main, listener_filters: [filter] } : main],
    [cluster("origin", [ORIGIN])],
  );
}

function resolver(port: number): Json {
  const TYPE = `${FILTERS}udp.udp_proxy.v3.`;
  const action = {
    name: "route",
    typed_config: { "@type": `${TYPE}Route`, cluster: "resolver" },
  };
  const proxy = {
    name: "envoy.filters.udp_listener.udp_proxy",
    typed_config: {
      "@type": `${TYPE}UdpProxyConfig`,
      stat_prefix: "dns",
      matcher: { on_no_match: { action } },
    },
  };
  const socket_address = { protocol: "UDP", address: "127.0.0.1", port_value: port };
  return bootstrap(
    [{ name: "dns", address: { socket_address }, listener_filters: [proxy] }],
    [cluster("resolver", [RESOLVER])],
  );
}

function freeUdpPort(): Promise<number> {
  const socket = createSocket("udp4");
  return new Promise((resolve) => {
    socket.bind(0, "127.0.0.1", () => {
      const { port } = socket.address();
      socket.close(() => resolve(port));
    });
  });
}
