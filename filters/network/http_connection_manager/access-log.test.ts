import { compileFormat, defineAccessLogger, Type } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, routeTo, TestProxy } from "./test-proxy.ts";

/** A proxy whose access log gathers lines of that format. */
function logging(format: string, config: object = {}) {
  const p = new TestProxy({ codec, router });
  const lines: string[] = [];
  const compiled = compileFormat(format);
  const logger = { log: (entry: never) => void lines.push(compiled.format(entry)) };
  p.cx.define(
    "access_log/test",
    defineAccessLogger({ name: "test", config: Type.Object({}), setup: () => logger }),
  );
  const log = { name: "test", package: "access_log/test", config: {} };
  p.start({ access_log: [log], ...config });
  return { p, lines };
}

it("tells of the exchange with the upstream, moment by moment", () => {
  const { p, lines } = logging(
    "%UPSTREAM_CLUSTER% %UPSTREAM_CONNECTION_ID% " +
      "%COMMON_DURATION(DS_RX_BEG:US_TX_END:ms)% %COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)% " +
      "%COMMON_DURATION(US_RX_BEG:US_RX_END:ms)% %REQUEST_TX_DURATION% %DURATION%",
  );
  const c = p.connect().get("/");
  p.cx.clock.advance(20);
  p.up.last.respond(200, { "content-length": "2" });
  p.cx.clock.advance(5);
  p.up.last.send("ok", true);
  expect(c.status()).toBe(200);
  expect(lines).toEqual([expect.stringMatching(/^up \d+ 0 20 5 0 25$/)]);
});

it("tells of the last byte to the client only if the response was complete", () => {
  const { p, lines } = logging(
    "%RESPONSE_CODE% %DURATION% %RESPONSE_TX_DURATION% %COMMON_DURATION(DS_TX_BEG:DS_TX_END:ms)%",
  );
  for (const cut of [false, true]) {
    p.connect().get("/");
    p.up.last.respond(200, { "content-length": "4" });
    p.cx.clock.advance(5);
    if (cut) p.up.last.break("connection_closed");
    else p.up.last.send("done", true);
  }
  expect(lines).toEqual(["200 5 5 5", "200 5 - -"]);
});

it("knows the virtual host of a request that none of its routes matches", () => {
  const match = { prefix: "/only" };
  const metadata = { filter_metadata: { v: { h: "vhm" } } };
  const { p, lines } = logging(
    "%RESPONSE_FLAGS% %METADATA(VIRTUAL_HOST:v:h)% %CEL(xds.virtual_host_name)%",
    {
      route_config: {
        virtual_hosts: [
          { name: "all", domains: ["*"], metadata, routes: [{ ...routeTo("up"), match }] },
        ],
      },
    },
  );
  p.connect().get("/other");
  expect(lines).toEqual(["NR vhm all"]);
});

it("names no cluster that is not there, in an internal redirect that leads to one either", () => {
  const redirecting = routeTo("up", {
    internal_redirect_policy: { redirect_response_codes: [302] },
  });
  const gone = { ...routeTo("gone"), match: { prefix: "/gone" } };
  const { p, lines } = logging("%RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER%", {
    route_config: { ...oneHost(gone, redirecting), validate_clusters: false },
  });
  p.connect().get("/");
  p.up.last.respond(302, { location: "http://h.test/gone", "content-length": "0" }, "");
  expect(lines).toEqual(["internal_redirect -", "cluster_not_found -"]);
});

it("tells how long a request waited for its connection", () => {
  const { p, lines } = logging("%UPSTREAM_CONNECTION_POOL_READY_DURATION%");
  p.connect().get("/");
  p.up.last.respond(200, { "content-length": "0" }, "");
  expect(lines[0]).toBe("0");
});

it("has no method and no path of a head that never became whole", () => {
  const { p, lines } = logging("%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_FLAGS%");
  p.connect().send("GET /half HTTP/1.1\r\nhost: h\r\nx-").leave();
  expect(lines).toEqual(["- - DC"]);
});

it("logs the beginning of a request, with its route, and its end", () => {
  const { p, lines } = logging("%ACCESS_LOG_TYPE% %ROUTE_NAME% %RESPONSE_CODE% %DURATION%", {
    access_log_options: { flush_access_log_on_new_request: true },
    route_config: oneHost({ ...routeTo("up"), name: "named" }),
  });
  p.connect().get("/");
  expect(lines.splice(0)).toEqual(["DownstreamStart named 0 0"]);
  p.up.last.respond(200, { "content-length": "0" }, "");
  expect(lines).toEqual(["DownstreamEnd named 200 0"]);
});

it("logs a long stream again and again, until it ends", () => {
  const { p, lines } = logging("%ACCESS_LOG_TYPE% %DURATION% %BYTES_SENT%", {
    access_log_options: { access_log_flush_interval: 1000 },
  });
  p.connect().get("/");
  p.up.last.respond(200, { "content-length": "4" });
  p.cx.clock.advance(1000);
  p.up.last.send("ab", false);
  p.cx.clock.advance(1000);
  expect(lines.splice(0)).toEqual(["DownstreamPeriodic 1000 0", "DownstreamPeriodic 2000 2"]);
  p.up.last.send("cd", true);
  p.cx.clock.advance(5000);
  expect(lines).toEqual(["DownstreamEnd 2000 4"]);
});

it("logs a tunnel when it stands, and none that a 101 without a protocol did not open", () => {
  const { p, lines } = logging("%ACCESS_LOG_TYPE% %RESPONSE_CODE%", {
    upgrade_configs: [{ upgrade_type: "websocket" }],
    access_log_options: { flush_log_on_tunnel_successfully_established: true },
  });
  p.connect().get("/", "connection: Upgrade", "upgrade: websocket");
  p.up.last.respond(101, { upgrade: "websocket" });
  expect(lines.splice(0)).toEqual(["DownstreamTunnelSuccessfullyEstablished 101"]);
  const c = p.connect().get("/", "connection: Upgrade", "upgrade: websocket");
  p.up.last.respond(101, {}, "");
  expect(c.take()).toMatch(/^HTTP\/1.1 101 [^]*connection: close\n/);
  expect(lines).toEqual(["DownstreamEnd 101"]);
});

it("writes what the filter of a log lets through, and no more", () => {
  const comparison = { op: "GE", value: { default_value: 500, runtime_key: "" } };
  const filter = { status_code_filter: { comparison } };
  const log = { name: "test", package: "access_log/test", config: {}, filter };
  const { p, lines } = logging("%RESPONSE_CODE%", { access_log: [log] });
  for (const status of [200, 503]) {
    p.connect().get("/");
    p.up.last.respond(status, { "content-length": "0" }, "");
  }
  expect(lines).toEqual(["503"]);
});

it("begins its lines anew when an internal redirect sends the request through once more", () => {
  const format = "%ACCESS_LOG_TYPE% %RESPONSE_CODE% %DURATION% %RESPONSE_TX_DURATION%";
  const { p, lines } = logging(format, {
    access_log_options: { access_log_flush_interval: 1000, flush_access_log_on_new_request: true },
    route_config: oneHost(
      routeTo("up", { internal_redirect_policy: { redirect_response_codes: [302] } }),
    ),
  });
  p.connect().get("/");
  p.cx.clock.advance(500);
  p.up.last.respond(302, { location: "http://h.test/b", "content-length": "0" }, "");
  expect(lines.splice(0)).toEqual([
    "DownstreamStart 0 0 -",
    "DownstreamEnd 302 500 -",
    "DownstreamStart 0 0 -",
  ]);
  p.cx.clock.advance(1000);
  expect(lines.splice(0)).toEqual(["DownstreamPeriodic 0 1000 -"]);
  p.up.last.respond(200, { "content-length": "0" }, "");
  expect(lines).toEqual(["DownstreamEnd 200 1000 0"]);
  // The client has had one answer; each pass is a request.
  const answers = (kind: string) => p.cx.stats.value(`http.test.downstream_rq_${kind}`);
  expect([answers("3xx"), answers("2xx")]).toEqual([0, 1]);
  expect([answers("total"), answers("http1_total")]).toEqual([2, 2]);
});

it("names the virtual cluster of requests that are forwarded, and of no others", () => {
  const virtual_clusters = [
    { name: "vc", headers: [{ name: ":path", string_match: { prefix: "/" } }] },
  ];
  const direct = { match: { prefix: "/direct" }, direct_response: { status: 200 } };
  const routes = [direct, { ...routeTo("nowhere"), match: { path: "/none" } }, routeTo("up")];
  const { p, lines } = logging("%RESPONSE_CODE% %VIRTUAL_CLUSTER_NAME%", {
    route_config: {
      validate_clusters: false,
      virtual_hosts: [{ name: "all", domains: ["*"], virtual_clusters, routes }],
    },
  });
  p.connect().get("/direct");
  p.connect().get("/none");
  p.connect().get("/");
  p.up.last.respond(200, { "content-length": "0" }, "");
  expect(lines).toEqual(["200 -", "503 -", "200 vc"]);
});

it("knows a scheme of a refused request only where its target says one", () => {
  const { p, lines } = logging("%RESPONSE_CODE% %REQ(:SCHEME)%");
  p.connect().get("/a#b");
  p.connect().get("http://a.test/a#b");
  p.connect().send("GET / HTTP/1.1\r\nno colon\r\n\r\n");
  expect(lines).toEqual(["400 -", "400 http", "400 -"]);
});

it("names the cluster of a redirect's route, also where a predicate refuses it", () => {
  const { p, lines } = logging("%ROUTE_NAME% %UPSTREAM_CLUSTER%", {
    route_config: {
      validate_clusters: false,
      ...oneHost(
        { ...routeTo("other"), name: "target", match: { prefix: "/target" } },
        {
          ...routeTo("up", {
            internal_redirect_policy: {
              predicates: [
                {
                  name: "listed",
                  typed_config: {
                    "@type":
                      "type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
                    allowed_route_names: ["elsewhere"],
                  },
                },
              ],
            },
          }),
          name: "from",
        },
      ),
    },
  });
  p.cluster("other");
  p.connect().get("/");
  p.up.last.respond(302, { location: "http://a.test/target", "content-length": "0" }, "");
  expect(lines).toEqual(["target other"]);
});

it("knows the scheme of the upstream's connection, if match_upstream makes it the request's", () => {
  const { p, lines } = logging("%REQ(:SCHEME)%", {
    scheme_header_transformation: { match_upstream: true },
  });
  p.connect().get("/", "x-forwarded-proto: https");
  p.up.last.respond(200, { "content-length": "0" }, "");
  expect(lines).toEqual(["http"]);
});
