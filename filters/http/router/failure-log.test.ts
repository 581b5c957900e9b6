import { expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { proxies } from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const proxy = proxies({ codec, router });

it("says why an upstream failed, once in a while", () => {
  const p = proxy({});
  const transportFailure = "delayed_connect_error: Connection refused";
  p.up.answer = { reason: "connection_failed", host: p.up.host, transportFailure };
  for (let k = 0; k < 3; k++) p.connect().get("/");
  p.cx.clock.advance(10_000);
  p.connect().get("/");
  const said = p.cx.logged.filter(({ message }) => message === "an upstream failed");
  expect(said.map(({ fields }) => fields.times)).toEqual([1, 3]);
  expect(said[0]!.fields).toMatchObject({
    cluster: "up",
    host: "198.51.100.1:8080",
    phase: "connecting",
    transport: transportFailure,
  });
});
