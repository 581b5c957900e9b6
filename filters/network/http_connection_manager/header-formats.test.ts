import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { routeTo, TestProxy } from "./test-proxy.ts";

const VIRTUAL_CLUSTER = {
  name: "vc",
  headers: [{ name: ":path", string_match: { prefix: "/" } }],
};
const adding = (value: string) => [{ header: { key: "x-said", value } }];

/** A proxy whose one virtual host adds headers of those formats to requests and responses. */
function start(request: string, response: string): TestProxy {
  const all = {
    name: "all",
    domains: ["*"],
    virtual_clusters: [VIRTUAL_CLUSTER],
    request_headers_to_add: adding(request),
    response_headers_to_add: adding(response),
    routes: [routeTo("up")],
  };
  const p = new TestProxy({ codec, router });
  Object.assign(p.up, { metadata: { filter_metadata: { c: { k: "of up" } } } });
  return p.start({ route_config: { name: "table", virtual_hosts: [all] } });
}

it("headers of requests know the cluster and the virtual cluster that the route has chosen", () => {
  const p = start("%VIRTUAL_CLUSTER_NAME% %METADATA(CLUSTER:c:k)%", "");
  p.connect().get("/");
  expect(p.up.last.header("x-said")).toBe("vc of up");
});

it("headers of responses know the client's connection", () => {
  const p = start("", "%VIRTUAL_CLUSTER_NAME% %FILTER_CHAIN_NAME% %LISTENER_NAME%");
  const c = p.connect((connection) =>
    Object.assign(connection, { filterChainName: "chain", listener: { name: "main" } }),
  );
  c.get("/");
  p.up.last.respond(200, { "content-length": "0" }, "");
  expect(c.take()).toContain("x-said: vc chain main");
});
