import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { proxies } from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const proxy = proxies({ codec, router });

it("turns the share of a cluster in maintenance away", () => {
  const p = proxy({});
  p.cx.runtime.replace([["upstream.maintenance_mode.up", 100]]);
  const c = p.connect().get("/");
  expect(c.take()).toMatch(
    /^HTTP\/1.1 503 [\s\S]*x-envoy-overloaded: true\n[\s\S]*maintenance mode$/,
  );
  expect(p.lines).toEqual(["503 UO maintenance_mode 0"]);
  expect([p.stat("maintenance_mode"), p.stat("503")]).toEqual([1, 1]);
});
