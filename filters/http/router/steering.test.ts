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
