import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { INTERNAL, TestProxy } from "../../network/http_connection_manager/test-proxy.ts";
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
