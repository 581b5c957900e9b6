import http from "node:http";
import { afterAll, beforeAll, expect, it } from "vitest";
import { RawClient } from "./client.ts";
import { address, bootstrap, cluster, listener, http as manager, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

// A promise of a hook that never settles: in each hook there is a deadline, and the stream is told of its end.

const NEVER = `
import { defineHttpFilter, defineListenerFilter, defineNetworkFilter, Type } from "@tsproxy/sdk";
const NEVER = new Promise(() => {});
const sandbox = { pauseMs: 500 };
`;
const HTTP = `${NEVER}
export default defineHttpFilter({
  name: "never",
  config: Type.Object({}),
  sandbox,
  setup: (config, cx) => (stream) => {
    const pause = (hook) => (stream.request.get("x-hook") === hook ? NEVER : undefined);
    return {
      onRequestHeaders: (headers) => pause("onRequestHeaders"),
      onRequestBody: () => pause("onRequestBody"),
      onRequestTrailers: () => pause("onRequestTrailers"),
      onResponseHeaders: (headers) => pause("onResponseHeaders"),
      onResponseBody: () => pause("onResponseBody"),
      onResponseTrailers: () => pause("onResponseTrailers"),
      onEnd: () => cx.log.info("ended: " + stream.request.get("x-hook")),
    };
  },
});
`;
const NETWORK = `${NEVER}
export default defineNetworkFilter({
  name: "never",
  config: Type.Object({ hook: Type.String() }),
  sandbox,
  setup: ({ hook }, cx) => ({
    create: () => ({
      onConnect: () => (hook === "onConnect" ? NEVER : undefined),
      onData: () => (hook === "onData" ? NEVER : undefined),
      onWrite: () => (hook === "onWrite" ? NEVER : undefined),
      onClose: () => cx.log.info("ended: " + hook),
    }),
  }),
});
`;
const LISTENER = `${NEVER}
export default defineListenerFilter({
  name: "never",
  config: Type.Object({}),
  sandbox,
  setup: (config, cx) => () => ({ onBytes: () => NEVER, onAbandoned: () => cx.log.info("ended: onBytes") }),
});
`;
const CONNECTION_HOOKS = ["onConnect", "onData", "onWrite"];

let upstream: Upstream<http.Server>;
let proxy: Proxy;
beforeAll(async () => {
  upstream = await httpUpstream((request, response) => {
    request.resume().on("end", () => {
      response.writeHead(200, { trailer: "x-checksum" });
      response.write("hello");
      response.addTrailers({ "x-checksum": "1" });
      response.end();
    });
  });
  const trailers = { http_protocol_options: { enable_trailers: true } };
  const protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
  const origin = cluster("origin", [upstream.port], {
    typed_extension_protocol_options: {
      [protocol]: {
        "@type": `type.googleapis.com/${protocol}`,
        explicit_http_config: trailers,
      },
    },
  });
  const routes = [route("/", "origin")];
  const echo = { name: "network/echo", config: {} };
  const never = { name: "listener/never", config: {} };
  proxy = await Proxy.start({
    config: bootstrap(
      [
        listener("web", manager(routes, trailers, [{ name: "http/never", config: {} }])),
        ...CONNECTION_HOOKS.map((hook) => ({
          name: hook,
          address: address(0),
          filter_chains: [{ filters: [{ name: "network/never", config: { hook } }, echo] }],
        })),
        listener("onBytes", echo, { listener_filters: [never], listener_filters_timeout: "0s" }),
      ],
      [origin],
    ),
    files: {
      "filters/one/filter.ts": HTTP,
      "filters/two/filter.ts": NETWORK,
      "filters/three/filter.ts": LISTENER,
    },
  });
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

/** A request with a body and trailers; what came of it. */
function ask(hook: string): Promise<string> {
  return new Promise((resolve) => {
    const headers = { "x-hook": hook, trailer: "x-checksum", "transfer-encoding": "chunked" };
    const options = { port: proxy.port("web"), host: "127.0.0.1", method: "POST", agent: false };
    const request = http.request({ ...options, headers }, (response) => {
      let text = "";
      response.on("data", (data) => (text += data));
      response.on("close", () => resolve(`${response.statusCode} ${text} ${response.complete}`));
      response.on("error", () => {});
    });
    request.on("error", (error) => resolve(error.message));
    request.write("body");
    request.addTrailers({ "x-checksum": "1" });
    request.end();
  });
}

it.each([
  ["onRequestHeaders", "504  true"],
  ["onRequestBody", "504  true"],
  ["onRequestTrailers", "504  true"],
  ["onResponseHeaders", "504  true"],
  // The head has gone out, so nothing is left but to break off.
  ["onResponseBody", "200  false"],
  ["onResponseTrailers", "200 hello false"],
])("%s that never answers ends its stream", async (hook, outcome) => {
  expect(await ask(hook)).toBe(outcome);
  await proxy.line(new RegExp(`ended: ${hook}`));
});

it.each([...CONNECTION_HOOKS, "onBytes"])(
  "%s that never answers ends its connection",
  async (hook) => {
    const client = await RawClient.connect(proxy.port(hook));
    client.send("x");
    await client.untilClosed();
    await proxy.line(new RegExp(`ended: ${hook}`));
  },
);
