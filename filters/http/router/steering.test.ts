import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import {
  INTERNAL,
  oneHost,
  routeTo,
  TestProxy,
} from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

it("checks steering headers strictly if it is told to", () => {
  const p = new TestProxy({ codec, router });
  p.start(INTERNAL, { strict_check_headers: ["x-envoy-upstream-rq-timeout-ms"] });
  const c = p.connect().get("/", "x-envoy-upstream-rq-timeout-ms: soon");
  expect(c.take()).toMatch(
    /^HTTP\/1.1 400 [\s\S]*invalid header 'x-envoy-upstream-rq-timeout-ms' with value 'soon'$/,
  );
});

it("takes a list of retry conditions without a word for valid", () => {
  const p = new TestProxy({ codec, router });
  p.start(INTERNAL, { strict_check_headers: ["x-envoy-retry-on"] });
  p.connect().get("/", "x-envoy-retry-on: ");
  p.connect().get("/", "x-envoy-retry-on: 5xx, ,reset");
  expect(p.up.exchanges).toHaveLength(2);
  expect(p.connect().get("/", "x-envoy-retry-on: 5xx,oops").status()).toBe(400);
});

it("passes an internal client's x-envoy-expected-rq-timeout-ms on where the router writes none", () => {
  const p = new TestProxy({ codec, router });
  p.start(INTERNAL, { suppress_envoy_headers: true });
  p.connect().get("/", "x-envoy-expected-rq-timeout-ms: 300");
  expect(p.up.last.header("x-envoy-expected-rq-timeout-ms")).toBe("300");
});

it("overwrites the expected timeout of an internal client where it stands, and leaves it where there is no timeout", () => {
  const p = new TestProxy({ codec, router });
  const routes = [{ ...routeTo("up", { timeout: 0 }), match: { prefix: "/long" } }];
  p.start({ ...INTERNAL, route_config: oneHost(...routes, routeTo("up", { timeout: 3000 })) });
  const expected = "x-envoy-expected-rq-timeout-ms";
  p.connect().get("/", `${expected}: 7`, "x-behind: 1");
  expect(p.up.last.header(expected)).toBe("3000");
  const names = p.up.last.headers.map(([name]) => name);
  expect(names.indexOf(expected)).toBeLessThan(names.indexOf("x-behind"));
  p.connect().get("/long", `${expected}: 7`);
  expect(p.up.last.header(expected)).toBe("7");
});

it("does not pass on an external client's limit of the stream's duration, and does not obey it", () => {
  const p = new TestProxy({ codec, router }).start();
  p.connect().get("/", "x-envoy-upstream-stream-duration-ms: 5");
  expect(p.up.last.header("x-envoy-upstream-stream-duration-ms")).toBeUndefined();
  p.cx.clock.advance(10);
  expect(p.up.last.wasReset).toBe(false);
});
