import type { TestExchange } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { proxies } from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const proxy = proxies({ codec, router });

const COPY = { request_mirror_policies: [{ cluster: "copy", cluster_header: "" }] };
const HEAD = "POST /x HTTP/1.1\r\nhost: h.test\r\n";

describe("a mirror", () => {
  it("gets a copy of the request as it comes, and its answer is nobody's", () => {
    const p = proxy({}, COPY);
    const copy = p.cluster("copy");
    const c = p
      .connect()
      .send("POST /x HTTP/1.1\r\nhost: h.test:81\r\ncontent-length: 6\r\n\r\nabc");
    expect([copy.last.path, copy.last.body, copy.last.ended]).toEqual(["/x", "abc", false]);
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
    const p = proxy({}, COPY);
    const copy = p.cluster("copy");
    p.connect().get("/");
    copy.last.respond(200);
    copy.last.garbage();
    expect(copy.host.told).toEqual([200]);
    expect(p.cx.stats.value("cluster.copy.internal.upstream_rq_completed")).toBe(1);
  });

  it("is whole where the upstream has begun to answer before the request ends", () => {
    const p = proxy({}, COPY);
    const copy = p.cluster("copy");
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h.test\r\ncontent-length: 6\r\n\r\nabc");
    p.up.last.informational(103);
    c.send("def");
    expect([copy.last.body, copy.last.ended]).toEqual(["abcdef", true]);
  });

  it("is sent after the request that it is a copy of, with or without a body", () => {
    const p = proxy({}, COPY);
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

  it("gets bodies that are too long to be kept, and trailers", () => {
    const p = proxy({}, COPY, { per_request_buffer_limit_bytes: 4 });
    const copy = p.cluster("copy");
    const body = "0123456789";
    p.connect().post("/", body);
    expect(copy.last.body).toBe(body);
    expect(p.cx.stats.value("cluster.up.retry_or_shadow_abandoned") ?? 0).toBe(0);
    p.connect().send(`${HEAD}transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-t: 1\r\n\r\n`);
    expect([copy.last.body, copy.last.ended]).toEqual(["a", true]);
  });

  it("gets all that it waited for once its connection is there, though the request is over", () => {
    const p = proxy({}, COPY, {}, { http_protocol_options: { enable_trailers: true } });
    const copy = p.cluster("copy");
    copy.answer = "pending";
    const c = p.connect().send(`${HEAD}transfer-encoding: chunked\r\n\r\n1\r\na\r\n`);
    c.send("0\r\nx-t: 1\r\n\r\n");
    p.up.last.respond(200, {}, "yes");
    c.get("/next");
    const [first] = copy.exchanges;
    first!.connect();
    expect([first!.body, first!.trailers]).toEqual(["a", [["x-t", "1"]]]);
  });

  it("that takes no more pauses the request until it takes more, answers or is gone", () => {
    const ends = [
      (m: TestExchange) => m.block(false),
      (m: TestExchange) => m.respond(200, {}, "early"),
      (m: TestExchange) => m.break("remote"),
    ];
    for (const end of ends) {
      const p = proxy({}, COPY);
      const copy = p.cluster("copy");
      const c = p.connect().send(`${HEAD}content-length: 6\r\n\r\nabc`);
      copy.last.block(true);
      expect(c.connection.pauses).toBe(1);
      end(copy.last);
      expect(c.connection.pauses).toBe(0);
      c.send("def");
      expect([p.up.last.body, p.up.last.ended]).toEqual(["abcdef", true]);
    }
  });

  it("keeps for its connection what the route's limit allows, then pauses the request", () => {
    const limit = { per_request_buffer_limit_bytes: 4 };
    const p = proxy({}, COPY, limit);
    const copy = p.cluster("copy");
    copy.answer = "pending";
    const c = p.connect().send(`${HEAD}content-length: 9\r\n\r\nabc`);
    expect(c.connection.pauses).toBe(0);
    c.send("def");
    expect(c.connection.pauses).toBe(1);
    copy.last.connect();
    expect([c.connection.pauses, copy.last.body]).toEqual([0, "abcdef"]);
  });

  it("is given up with a request that breaks off or is answered early, not with one that is complete", () => {
    const p = proxy({}, COPY);
    const copy = p.cluster("copy");
    p.connect().send(`${HEAD}content-length: 6\r\n\r\nabc`).leave();
    expect(copy.last.wasReset).toBe(true);
    p.connect().send(`${HEAD}content-length: 6\r\n\r\nabc`);
    p.up.last.respond(413, { connection: "close" }, "no");
    expect(copy.last.wasReset).toBe(true);
    p.connect().post("/", "abc").leave();
    expect(copy.last.wasReset).toBe(false);
  });

  it("is not sent for a request without a host or beyond the limits", () => {
    for (const reason of ["no_host", "overflow"] as const) {
      const p = proxy({}, COPY);
      const copy = p.cluster("copy");
      p.up.answer = { reason, host: undefined, transportFailure: "" };
      p.connect().get("/");
      p.connect().post("/", "abc");
      p.connect().send(`${HEAD}content-length: 6\r\n\r\nabc`);
      expect(copy.exchanges.length).toBe(0);
    }
  });

  it("that answers before the request ends is over, and the request goes on", () => {
    const p = proxy({}, COPY);
    const copy = p.cluster("copy");
    const c = p.connect().send(`${HEAD}content-length: 6\r\n\r\nabc`);
    copy.last.respond(200, {}, "early");
    expect(copy.last.wasReset).toBe(true);
    c.send("def");
    expect([copy.last.body, p.up.last.body]).toEqual(["abc", "abcdef"]);
    expect(p.cx.stats.value("cluster.copy.upstream_rq_200")).toBe(1);
  });

  it("has its timeout from the end of the request on", () => {
    const p = proxy({}, { ...COPY, timeout: 100 });
    const copy = p.cluster("copy");
    const c = p.connect().send(`${HEAD}content-length: 6\r\n\r\nabc`);
    p.cx.clock.advance(150);
    expect(copy.last.wasReset).toBe(false);
    c.send("def");
    p.cx.clock.advance(100);
    expect([copy.last.wasReset, copy.host.told]).toEqual([true, ["timeout"]]);
  });

  it("asks for the upgrade too, and gets what follows it", () => {
    const p = proxy({}, COPY, {}, { upgrade_configs: [{ upgrade_type: "websocket" }] });
    const copy = p.cluster("copy");
    const c = p.connect().get("/", "connection: Upgrade", "upgrade: websocket");
    expect([copy.last.upgrade, copy.last.header("connection")]).toEqual(["websocket", "Upgrade"]);
    p.up.last.respond(101, { connection: "upgrade", upgrade: "websocket" });
    copy.last.respond(101, { connection: "upgrade", upgrade: "websocket" });
    c.send("hello");
    expect(copy.last.body).toBe("hello");
    c.leave();
    expect(copy.last.wasReset).toBe(true);
    // As in Envoy, an answer that is neither 101 nor an error is not counted.
    p.connect().get("/", "connection: Upgrade", "upgrade: websocket");
    copy.last.respond(200, {}, "no");
    expect(copy.last.wasReset).toBe(true);
    expect(p.cx.stats.value("cluster.copy.upstream_rq_200") ?? 0).toBe(0);
  });

  it("is counted as Envoy counts: interim answers, canaries, answers cut off, clusters that turn it away", () => {
    const p = proxy({}, COPY);
    const copy = p.cluster("copy");
    const c = p.connect().get("/");
    copy.last.informational(103);
    copy.last.informational(103);
    copy.last.respond(200, { "x-envoy-upstream-canary": "true" });
    copy.last.break("connection_closed");
    p.up.last.respond(200, {}, "yes");
    copy.dropOverload = 1;
    c.get("/");
    const count = (name: string) => p.cx.stats.value(`cluster.copy.${name}`);
    expect([count("upstream_rq_103"), count("canary.upstream_rq_200")]).toEqual([1, 1]);
    expect(count("upstream_cx_protocol_error")).toBe(1);
    expect([count("upstream_rq_503"), copy.exchanges.length]).toEqual([1, 1]);
    copy.dropOverload = 0;
    p.connect().get("/");
    copy.last.informational(103);
    copy.last.break("remote");
    expect([count("upstream_rq_103"), count("upstream_rq_503")]).toEqual([2, 1]);
  });
});
