import { reply } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { oneHost, TestProxy } from "./test-proxy.ts";

const NOT_FOUND = 'error=destination_not_found; details="route_not_found; NR"';

describe("proxy_status_config", () => {
  const start = (proxy_status_config: object, more: object = {}) =>
    new TestProxy({ codec, router }).start({
      route_config: oneHost({ match: { path: "/x" }, direct_response: { status: 200 } }),
      proxy_status_config,
      ...more,
    });
  const header = (answer: string) => /^proxy-status: (.*)$/m.exec(answer)?.[1];
  const failed = (config: object, more: object = {}) =>
    start(config, more).connect().get("/").take();

  it("says after all other headers why a request has failed, and nothing about others", () => {
    const p = start({}, { via: "v" });
    expect(p.connect().get("/").take()).toBe(
      `HTTP/1.1 404 Not Found\nserver: envoy\nvia: v\nproxy-status: envoy; ${NOT_FOUND}\ncontent-length: 0\n\n`,
    );
    expect(header(p.connect().get("/x").take())).toBeUndefined();
  });

  it("calls the proxy by its server name, the node's id or a name of its own", () => {
    expect(header(failed({}, { server_name: "srv" }))).toBe(`srv; ${NOT_FOUND}`);
    expect(header(failed({ use_node_id: true }))).toBe(`test-node; ${NOT_FOUND}`);
    expect(header(failed({ use_node_id: false }))).toBe(`test-node; ${NOT_FOUND}`);
    expect(header(failed({ literal_proxy_name: "edge" }))).toBe(`edge; ${NOT_FOUND}`);
    expect(() => start({ use_node_id: true, literal_proxy_name: "edge" })).toThrow(
      /give one of use_node_id and literal_proxy_name/,
    );
  });

  it("leaves out what the config says", () => {
    const plain = "envoy; error=destination_not_found";
    expect(header(failed({ remove_details: true }))).toBe(plain);
    expect(header(failed({ remove_response_flags: true }))).toBe(
      `${plain}; details="route_not_found"`,
    );
  });

  it("gives the recommended code where the config asks for it; logs and stats have that one too", () => {
    const p = start({ set_recommended_response_code: true });
    expect(p.connect().get("/").take()).toMatch(/^HTTP\/1.1 500 /);
    expect(p.cx.stats.value("http.test.downstream_rq_5xx")).toBe(1);
  });

  it("takes the first flag of Envoy's order, joins what is there and quotes what filters call a reason", () => {
    const p = new TestProxy({ codec, router });
    const details = 'a "b" \\ é';
    const headers = [["proxy-status", "up; error=x"]] as const;
    p.filter("bad", () => ({
      onRequestHeaders: () => reply(503, { flags: ["URX", "UF"], details, headers }),
    }));
    p.start({ proxy_status_config: { remove_response_flags: true } });
    expect(header(p.connect().get("/").take())).toBe(
      'up; error=x, envoy; error=connection_refused; details="a \\"b\\" \\\\ ?"',
    );
  });

  it("is silent about flags that Envoy sets only after the reply", () => {
    const p = new TestProxy({ codec, router });
    p.filter("limit", () => ({
      onRequestHeaders: () => reply(429, { flags: ["RL"], flagsLate: true }),
    }));
    p.start({ proxy_status_config: {} });
    expect(header(p.connect().get("/").take())).toBeUndefined();
    expect(header(p.connect().send("BAD\r\n\r\n").take())).toBeUndefined();
  });
});
