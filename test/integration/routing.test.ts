import { readFile } from "node:fs/promises";
import type http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../../core/command/free-port.ts";
import { eventually, get, RawClient } from "./client.ts";
import {
  accessLog,
  address,
  bootstrap,
  cluster,
  direct,
  http as httpFilter,
  listener,
  route,
} from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

let a: Upstream<http.Server>;
let b: Upstream<http.Server>;
let proxy: Proxy;
let log: string;

const LOG_FORMAT =
  "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% " +
  '%RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %ROUTE_NAME% %UPSTREAM_CLUSTER% "%REQ(USER-AGENT)%" %UPSTREAM_HOST%\n';

beforeAll(async () => {
  const name =
    (own: string): http.RequestListener =>
    (request, response) => {
      request.resume();
      request.on("end", () => {
        response.setHeader("x-path", request.url!);
        response.setHeader("x-host", request.headers.host!);
        response.end(own);
      });
    };
  [a, b] = await Promise.all([httpUpstream(name("a")), httpUpstream(name("b"))]);
  const dead = await freePort();
  log = path.join(tmpdir(), `tsproxy-routing-${process.pid}.log`);
  const routes = [
    { ...direct("/direct", "said by the proxy\n", 203), name: "said" },
    direct("/teapot", "", 418),
    { match: { path: "/exact" }, route: { cluster: "a" } },
    { match: { prefix: "/moved" }, redirect: { path_redirect: "/a", response_code: "FOUND" } },
    { match: { prefix: "/secure" }, redirect: { https_redirect: true } },
    {
      match: { prefix: "/a", headers: [{ name: "x-to", string_match: { exact: "b" } }] },
      route: { cluster: "b" },
    },
    {
      match: { safe_regex: { regex: "/users/[0-9]+" } },
      route: { cluster: "b", prefix_rewrite: "/" },
    },
    route("/a", "a"),
    route("/strip/", "a", { prefix_rewrite: "/", host_rewrite_literal: "inside.test" }),
    route("/dead", "dead"),
    route("/named", "named"),
    route("/both", "both"),
  ];
  proxy = await Proxy.start({
    config: bootstrap(
      [
        listener(
          "main",
          httpFilter(routes, {
            access_log: [accessLog(log, LOG_FORMAT)],
          }),
        ),
      ],
      [
        cluster("a", [a.port]),
        cluster("b", [b.port]),
        cluster("both", [a.port, b.port]),
        cluster("dead", [dead]),
        {
          name: "named",
          type: "STRICT_DNS",
          dns_lookup_family: "V4_ONLY",
          connect_timeout: "5s",
          load_assignment: {
            cluster_name: "named",
            endpoints: [
              { lb_endpoints: [{ endpoint: { address: address(a.port, "localhost") } }] },
            ],
          },
        },
      ],
    ),
  });
});
afterAll(async () => {
  await proxy?.stop();
  await Promise.all([a?.close(), b?.close()]);
});

const ask = (where: string, headers: http.OutgoingHttpHeaders = {}) =>
  get(proxy.port("main"), where, { headers });

test("a route's direct response needs no upstream", async () => {
  expect(await ask("/direct")).toMatchObject({ status: 203, text: "said by the proxy\n" });
  expect(await ask("/teapot")).toMatchObject({ status: 418, text: "" });
});

test("redirects name the new place", async () => {
  const moved = await ask("/moved", { host: "front.test" });
  expect(moved).toMatchObject({ status: 302 });
  expect(moved.headers.location).toBe("http://front.test/a");
  const secure = await ask("/secure?x=1", { host: "front.test" });
  expect(secure).toMatchObject({ status: 301 });
  expect(secure.headers.location).toBe("https://front.test/secure?x=1");
});

test("the first route that matches by path, prefix, regex or header decides", async () => {
  expect((await ask("/exact")).text).toBe("a");
  expect((await ask("/exact/not")).status).toBe(404);
  expect((await ask("/a/b/c")).text).toBe("a");
  expect((await ask("/a/b/c", { "x-to": "b" })).text).toBe("b");
  expect((await ask("/users/42")).text).toBe("b");
  expect((await ask("/users/me")).status).toBe(404);
});

test("path and host are rewritten on the way", async () => {
  const { headers } = await ask("/strip/me?and=keep", { host: "outside.test" });
  expect(headers).toMatchObject({ "x-path": "/me?and=keep", "x-host": "inside.test" });
});

test("what no route wants is answered 404", async () => {
  const client = await RawClient.connect(proxy.port("main"));
  client.send("GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
  await client.untilClosed();
  expect(client.text).toMatch(/^HTTP\/1\.1 404 Not Found\r\n/);
});

test("a cluster's hosts are taken in turn", async () => {
  const answers: string[] = [];
  for (let n = 0; n < 6; n++) answers.push((await ask("/both")).text);
  expect(["ababab", "bababa"]).toContain(answers.join(""));
});

test("an upstream that refuses the connection makes a 503 that says so", async () => {
  const { status, text, headers } = await ask("/dead");
  expect(status).toBe(503);
  expect(text).toBe(
    "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
  );
  expect(headers["content-type"]).toBe("text/plain");
  expect(await proxy.stat("cluster.dead.upstream_cx_connect_fail")).toBeGreaterThan(0);
});

test("a strict_dns cluster sends to what its name resolves to", async () => {
  expect((await ask("/named")).text).toBe("a");
  expect(await proxy.admin("/clusters")).toContain(`named::127.0.0.1:${a.port}::`);
});

test("a client that goes on sending after its answer has the time to read it, however much it sends", async () => {
  const timeouts = () => proxy.stat("http.test.downstream_cx_delayed_close_timeout");
  const before = await timeouts();
  const client = net.connect(proxy.port("main"), "127.0.0.1");
  let text = "";
  client.on("data", (bytes) => {
    text += bytes.toString("latin1");
  });
  // The connection ends with a reset, as nobody reads the rest.
  client.on("error", () => {});
  client.write("POST /direct HTTP/1.1\r\nhost: a.test\r\ncontent-length: 99999999\r\n\r\n");
  client.write(Buffer.alloc(4 << 20));
  await new Promise((resolve) => client.on("close", resolve));
  expect(text).toMatch(/^HTTP\/1\.1 203 [\s\S]*said by the proxy\n$/);
  expect(await timeouts()).toBe(before + 1);
});

test("the access log has a line for each request, with what became of it", async () => {
  const headers = { "user-agent": "reader/1" };
  await get(proxy.port("main"), "/direct/for-the-log", { headers });
  await get(proxy.port("main"), "/a/for-the-log?x=1", { method: "POST", body: "12345", headers });
  await get(proxy.port("main"), "/dead/for-the-log", { headers });
  const text = await eventually(
    () => readFile(log, "utf8").catch(() => ""),
    (all) => all.includes("/dead/for-the-log"),
    "the last line of the access log",
  );
  const lines = text.split("\n").filter((line) => line.includes("for-the-log"));
  expect(lines[0]).toBe(
    'GET /direct/for-the-log HTTP/1.1 203 - direct_response 0 18 said - "reader/1" -',
  );
  expect(lines[1]).toBe(
    `POST /a/for-the-log?x=1 HTTP/1.1 200 - via_upstream 5 1 - a "reader/1" 127.0.0.1:${a.port}`,
  );
  expect(lines[2]).toMatch(
    /^GET \/dead\/for-the-log HTTP\/1\.1 503 UF upstream_reset_before_response_started\{\S+\} 0 \d+ - dead "reader\/1" 127\.0\.0\.1:\d+$/,
  );
});
