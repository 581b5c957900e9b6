import {
  defineHttpFilter,
  type HttpFilterFactory,
  headerName,
  hold,
  reply,
  Type,
} from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { oneHost, routeTo, TestProxy } from "../../network/http_connection_manager/test-proxy.ts";
import upstreamCodec from "../upstream_codec/filter.ts";
import router from "./filter.ts";

const NAME = headerName("x-f");
const CODEC = { name: "codec", package: "http/upstream_codec", config: {}, disabled: false };

/** A proxy whose router has these upstream filters. */
function proxy(filters: Readonly<Record<string, HttpFilterFactory>>, route: object = {}) {
  const p = new TestProxy({ codec, router });
  p.cx.define("http/upstream_codec", upstreamCodec);
  const refs = Object.entries(filters).map(([name, factory]) => {
    const setup = () => factory;
    p.cx.define(`http/${name}`, defineHttpFilter({ name, config: Type.Object({}), setup }));
    return { name, package: `http/${name}`, config: {}, disabled: false };
  });
  const config = {
    dynamic_stats: true,
    suppress_envoy_headers: false,
    strict_check_headers: [],
    upstream_http_filters: [...refs, CODEC],
  };
  return p.start({
    route_config: oneHost(routeTo("up", route)),
    http_filters: [{ name: "router", package: "http/router", config, disabled: false }],
  });
}

describe("upstream filters", () => {
  it("that still hold a part of the request when the response has ended leave no exchange behind", () => {
    const p = proxy({ slow: () => ({ onRequestBody: () => new Promise(() => {}) }) });
    const c = p.connect().post("/", "body");
    p.up.last.respond(200, {}, "enough");
    expect(c.status()).toBe(200);
    expect([p.up.last.body, p.up.last.ended, p.up.last.wasReset]).toEqual(["", false, true]);
    const q = proxy({ fast: () => ({}) });
    q.connect().post("/", "body");
    q.up.last.respond(200, {}, "");
    expect([q.up.last.body, q.up.last.wasReset]).toEqual(["body", false]);
  });

  it("see each attempt: its head on the way out, its response in reverse, and its end", () => {
    const seen: string[] = [];
    const filter =
      (name: string): HttpFilterFactory =>
      (stream) => ({
        onRequestHeaders: (headers) => headers.append("x-f", `${name}${stream.info.attempts}`),
        onResponseHeaders: (headers) => void seen.push(`${name} ${headers.status}`),
        onEnd: () => void seen.push(`${name} end`),
      });
    const p = proxy({ a: filter("a"), b: filter("b") }, { retry_policy: { retry_on: "5xx" } });
    const c = p.connect().get("/");
    p.up.last.respond(503, {}, "no");
    p.cx.clock.advance(250);
    p.up.last.respond(200, {}, "yes");
    expect(c.take()).toContain("\nyes\n");
    expect(p.up.last.headers.filter(([name]) => name === "x-f").map(([, value]) => value)).toEqual([
      "a1",
      "b1",
      "a2",
      "b2",
    ]);
    expect(seen).toEqual([
      ...["b 503", "a 503", "a end", "b end"],
      ...["b 200", "a 200", "a end", "b end"],
    ]);
  });

  it("may think about the request; its body waits, and its sender is paused", async () => {
    let decide = () => {};
    const p = proxy({
      slow: () => ({
        onRequestHeaders: () => new Promise<void>((resolve) => void (decide = resolve)),
      }),
    });
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    c.send("def");
    expect(p.up.last.sent).toBe(false);
    decide();
    await Promise.resolve();
    await Promise.resolve();
    expect([p.up.last.sent, p.up.last.body, p.up.last.ended]).toEqual([true, "abcdef", true]);
    p.up.last.respond(200, {}, "");
    expect(c.status()).toBe(200);
  });

  it("may think about the response, which may be complete by then", async () => {
    let decide = () => {};
    const p = proxy({
      slow: () => ({
        onResponseHeaders: () => new Promise<void>((resolve) => void (decide = resolve)),
      }),
    });
    const c = p.connect().get("/");
    p.up.last.respond(200, { a: "b" }, "body");
    expect(c.take()).toBe("");
    decide();
    await Promise.resolve();
    await Promise.resolve();
    expect(c.take()).toMatch(/\na: b\n[\s\S]*\nbody\n/);
    expect(p.up.last.wasReset).toBe(false);
  });

  it("may hold the head until the body is whole", () => {
    const p = proxy({ hold: () => ({ onRequestHeaders: () => hold({ max: 8 }) }) });
    const c = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc");
    expect(p.up.last.sent).toBe(false);
    c.send("def");
    expect([p.up.last.body, p.up.last.ended]).toEqual(["abcdef", true]);
    p.up.last.respond(200, {}, "");
    expect(c.status()).toBe(200);
    const large = p.connect().post("/", "more than eight");
    expect(large.status()).toBe(413);
    expect(p.up.last.wasReset).toBe(true);
  });

  it("see the head while it waits for its connection, once, and the body behind it", () => {
    const seen: string[] = [];
    const p = proxy({
      note: () => ({
        onRequestHeaders: (headers) => {
          seen.push(headers.path);
          headers.append("x-f", "noted");
        },
        onRequestBody: (chunk) => void seen.push(`${chunk.length}`),
      }),
    });
    p.up.answer = "pending";
    const c = p.connect().post("/", "abc");
    expect(seen).toEqual(["/"]);
    p.up.last.connect();
    expect(seen).toEqual(["/", "3"]);
    expect([p.up.last.body, p.up.last.ended]).toEqual(["abc", true]);
    expect(p.up.last.headers.filter(([name]) => name === "x-f")).toHaveLength(1);
    p.up.last.respond(200, {}, "");
    expect(c.status()).toBe(200);
  });

  it("may answer before there is a connection, which none need be then", () => {
    const p = proxy({ stop: () => ({ onRequestHeaders: () => reply(418, { body: "early" }) }) });
    p.up.answer = "pending";
    expect(p.connect().get("/").take()).toMatch(/^HTTP\/1.1 418 [\s\S]*early$/);
    expect([p.up.last.sent, p.up.last.cancelled]).toEqual([false, true]);
  });

  it("may answer in the place of the host, before it is asked and after", () => {
    const p = proxy({
      stop: () => ({
        onRequestHeaders: (headers) =>
          headers.get(NAME) === "early" ? reply(418, { body: "early" }) : undefined,
        onResponseHeaders: () => reply(419, { body: "late" }),
      }),
    });
    expect(p.connect().get("/", "x-f: early").take()).toMatch(/^HTTP\/1.1 418 [\s\S]*early$/);
    expect([p.up.last.sent, p.up.last.wasReset]).toEqual([false, true]);
    const c = p.connect().get("/");
    p.up.last.respond(200, {}, "never seen");
    expect(c.take()).toMatch(/^HTTP\/1.1 419 [\s\S]*late$/);
  });

  it("cost their own request alone when they throw", () => {
    const fail = () => {
      throw new Error("oops");
    };
    for (const filter of [{ onRequestHeaders: fail }, { onResponseHeaders: fail }]) {
      const p = proxy({ bad: () => filter });
      const c = p.connect().get("/");
      if (p.up.last.sent) p.up.last.respond(200, {}, "x");
      expect(c.status()).toBe(500);
    }
    expect(proxy({ bad: fail }).connect().get("/").status()).toBe(500);
  });

  it("hear of the end when the client leaves in the middle, and nothing more after it", async () => {
    let decide = () => {};
    const seen: string[] = [];
    const p = proxy({
      slow: () => ({
        onRequestHeaders: () => new Promise<void>((resolve) => void (decide = resolve)),
        onEnd: () => void seen.push("end"),
      }),
    });
    const c = p.connect().get("/");
    c.leave();
    decide();
    await Promise.resolve();
    await Promise.resolve();
    expect([seen, p.up.last.sent, p.up.last.wasReset]).toEqual([["end"], false, true]);
  });

  it("end with the codec, which nothing follows", () => {
    const last = { name: "a", package: "http/a", config: {}, disabled: false };
    const make = (upstream_http_filters: object[]) => () => {
      const p = new TestProxy({ codec, router });
      p.cx.define("http/upstream_codec", upstreamCodec);
      const config = { strict_check_headers: [], upstream_http_filters };
      p.start({ http_filters: [{ name: "router", package: "http/router", config }] });
    };
    expect(make([last])).toThrow('"a" is the last upstream filter');
    expect(make([CODEC, CODEC])).toThrow("has filters behind it");
  });
});
