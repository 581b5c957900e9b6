import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../../core/command/free-port.ts";
import { get, RawClient } from "./client.ts";
import { bootstrap, cluster, http, listener, route, unlimited } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

let proxy: Proxy;
let upstreams: Upstream[];
let dead: number;

beforeAll(async () => {
  upstreams = await Promise.all(
    [1, 2, 3].map(() =>
      httpUpstream((request, response) => {
        request.resume();
        request.on("end", () => response.end(String(request.socket.localPort)));
      }),
    ),
  );
  dead = await freePort();
  const inline_string = `
    function envoy_on_request(h)
      local to = h:headers():get("x-to")
      if to then h:setUpstreamOverrideHost(to, h:headers():get("x-strict") ~= nil) end
    end
    function envoy_on_response(h)
      local path = h:requestHeaders():get(":path")
      if path == "/drain" then h:streamInfo():drainConnectionUponCompletion() end
      if path == "/reason" then h:headers():setHttp1ReasonPhrase("Fine Then") end
      if path == "/bad-reason" then h:headers():setHttp1ReasonPhrase("a\\r\\nx: y") end
    end`;
  const lua = {
    name: "envoy.filters.http.lua",
    typed_config: {
      "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
      default_source_code: { inline_string },
    },
  };
  const ports = upstreams.map(({ port }) => port);
  proxy = await Proxy.start({
    config: bootstrap(
      [listener("main", http([route("/", "origin")], {}, [lua]))],
      [cluster("origin", ports, unlimited)],
    ),
    concurrency: 1,
  });
});
afterAll(async () => {
  await proxy?.stop();
  await Promise.all((upstreams ?? []).map((upstream) => upstream.close()));
});

test("setUpstreamOverrideHost chooses the host; a strict one that is not there is 503", async () => {
  const port = proxy.port("main");
  const to = (address: string, strict = false) =>
    get(port, "/", { headers: { "x-to": address, ...(strict && { "x-strict": "1" }) } });
  for (const upstream of upstreams)
    for (let k = 0; k < 3; k++)
      expect((await to(`127.0.0.1:${upstream.port}`)).text).toBe(String(upstream.port));
  const { status, text } = await to(`127.0.0.1:${dead}`, true);
  expect([status, text]).toEqual([503, "no healthy upstream"]);
  expect((await to(`127.0.0.1:${dead}`)).status).toBe(200);
});

test("drainConnectionUponCompletion closes the client's connection behind the response", async () => {
  const client = await RawClient.connect(proxy.port("main"));
  client.send("GET /drain HTTP/1.1\r\nhost: a\r\n\r\n");
  await client.untilClosed();
  const { text } = client;
  expect(text).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*connection: close\r\n/);
});

test("setHttp1ReasonPhrase is what an HTTP/1 client reads, unless it would break the head", async () => {
  const client = await RawClient.connect(proxy.port("main"));
  client.send(
    "GET /reason HTTP/1.1\r\nhost: a\r\n\r\nGET /bad-reason HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
  );
  await client.untilClosed();
  const lines = client.text.match(/HTTP\/1\.1 .*/g);
  expect(lines).toEqual(["HTTP/1.1 200 Fine Then", "HTTP/1.1 200 OK"]);
});

test("a script chooses the cluster; one that loops costs its request 20 ms and goes to the default", async () => {
  const specifier = (script: string) => ({
    extension: {
      name: "envoy.router.cluster_specifier_plugin.lua",
      typed_config: {
        "@type": "type.googleapis.com/envoy.extensions.router.cluster_specifiers.lua.v3.LuaConfig",
        source_code: { inline_string: `function envoy_on_route(handle) ${script} end` },
        default_cluster: "second",
      },
    },
  });
  const chosen = (prefix: string, script: string) => ({
    match: { prefix },
    route: { inline_cluster_specifier_plugin: specifier(script) },
  });
  const [first, second] = upstreams.map(({ port }) => port);
  const choosing = await Proxy.start({
    config: bootstrap(
      [
        listener(
          "main",
          http([
            chosen("/loop", "while true do end"),
            chosen("/fails", "error('no')"),
            chosen("/", 'return handle:headers():get("x-cluster") or "first"'),
          ]),
        ),
      ],
      [cluster("first", [first!]), cluster("second", [second!])],
    ),
    concurrency: 1,
  });
  try {
    const to = async (path: string, named?: string) => {
      const headers = named === undefined ? {} : { "x-cluster": named };
      const { status, text } = await get(choosing.port("main"), path, { headers });
      return status === 200 ? Number(text) : status;
    };
    expect([await to("/"), await to("/", "second"), await to("/", "none")]).toEqual([
      first,
      second,
      503,
    ]);
    expect([await to("/loop"), await to("/fails")]).toEqual([second, second]);
    await choosing.line(/script ran for more than 20 ms, use default cluster/);
  } finally {
    await choosing.stop();
  }
});
