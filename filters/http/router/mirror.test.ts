import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { proxies } from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const proxy = proxies({ codec, router });

describe("a mirror", () => {
  it("gets a copy of the whole request, and its answer is nobody's", () => {
    const p = proxy({}, { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] });
    const copy = p.cluster("copy");
    const c = p
      .connect()
      .send("POST /x HTTP/1.1\r\nhost: h.test:81\r\ncontent-length: 6\r\n\r\nabc");
    expect(copy.exchanges.length).toBe(0);
    c.send("def");
    expect([copy.last.path, copy.last.body, copy.last.ended]).toEqual(["/x", "abcdef", true]);
    expect(copy.last.header("host")).toBe("h.test-shadow:81");
    expect(copy.last.header("x-envoy-internal")).toBe("true");
    expect(p.up.last.header("host")).toBe("h.test:81");
    copy.last.respond(500, {}, "no");
    p.up.last.respond(200, {}, "yes");
    expect(c.take()).toMatch(/yes\n0\n\n$/);
    expect(p.cx.stats.value("cluster.copy.internal.upstream_rq_500")).toBe(1);
    expect(copy.host.told).toEqual([500]);
  });

  it("has a host of its own, and a head that is edited", () => {
    const own = {
      host_rewrite_literal: "copy.test",
      request_headers_mutations: [
        { append: { header: { key: "x-by", value: "%REQ(x-who)% %REQ(:path)%" } } },
        { remove: "x-who" },
      ],
    };
    const p = proxy(
      {},
      { request_mirror_policies: [{ cluster: "copy", cluster_header: "", ...own }] },
    );
    const copy = p.cluster("copy");
    p.connect().get("/x", "x-who: me");
    expect(["host", "x-by", "x-who"].map((name) => copy.last.header(name))).toEqual([
      "copy.test",
      "me /x",
      undefined,
    ]);
    expect(["host", "x-by", "x-who"].map((name) => p.up.last.header(name))).toEqual([
      "h.test",
      undefined,
      "me",
    ]);
  });

  it("is counted once where its answer breaks off in the middle", () => {
    const p = proxy({}, { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] });
    const copy = p.cluster("copy");
    p.connect().get("/");
    copy.last.respond(200);
    copy.last.garbage();
    expect(copy.host.told).toEqual([200]);
    expect(p.cx.stats.value("cluster.copy.internal.upstream_rq_completed")).toBe(1);
  });

  it("is whole where the upstream has begun to answer before the request ends", () => {
    const p = proxy({}, { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] });
    const copy = p.cluster("copy");
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h.test\r\ncontent-length: 6\r\n\r\nabc");
    p.up.last.informational(103);
    c.send("def");
    expect([copy.last.body, copy.last.ended]).toEqual(["abcdef", true]);
  });

  it("is sent after the request that it is a copy of, with or without a body", () => {
    const p = proxy({}, { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] });
    const copy = p.cluster("copy");
    const order: string[] = [];
    for (const cluster of [p.up, copy]) {
      const begin = cluster.newStream.bind(cluster);
      cluster.newStream = (...args) => {
        order.push(cluster.name);
        return begin(...args);
      };
    }
    p.connect().get("/");
    p.connect().post("/", "abc");
    expect(order).toEqual(["up", "copy", "up", "copy"]);
  });

  it("is left out by its fraction, for want of a cluster, and after its timeout", () => {
    const none = { default_value: { numerator: 0, denominator: "HUNDRED" }, runtime_key: "" };
    const policies = [
      { cluster: "copy", cluster_header: "", runtime_fraction: none },
      { cluster: "", cluster_header: "x-copy" },
    ];
    const p = proxy({}, { request_mirror_policies: policies, timeout: 100 });
    const copy = p.cluster("copy");
    p.connect().get("/");
    expect(copy.exchanges.length).toBe(0);
    p.connect().get("/", "x-copy: copy");
    expect(copy.exchanges.length).toBe(1);
    p.cx.clock.advance(100);
    expect(copy.last.wasReset).toBe(true);
    expect(copy.host.told).toEqual(["timeout"]);
  });
});
