import type http from "node:http";
import { afterAll, beforeAll, expect, it } from "vitest";
import { get } from "./client.ts";
import { bootstrap, cluster, http as httpFilter, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

const BOTH = `
import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "both", config: Type.Object({}), setup: () => () => ({
  onRequestHeaders(headers) { headers.set("x-in", "1"); },
  onResponseHeaders(headers) { headers.set("x-out", "1"); },
  onResponseBody(chunk) { chunk.replace(chunk.copy().map((byte) => byte ^ 32)); },
}) });
`;

let upstream: Upstream<http.Server>;
let proxy: Proxy;
beforeAll(async () => {
  upstream = await httpUpstream((_request, response) => response.end("hello"));
  const chain = httpFilter([route("/", "origin")], {}, [{ name: "both", config: {} }]);
  proxy = await Proxy.start({
    config: bootstrap([listener("main", chain)], [cluster("origin", [upstream.port])]),
    files: { "filters/both.ts": BOTH },
  });
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

it("a response whose head and body are both asked about comes whole", async () => {
  for (let k = 0; k < 30; k++) {
    const answer = await get(proxy.port("main"), "/");
    expect([answer.text, answer.headers["x-out"]]).toEqual(["HELLO", "1"]);
  }
});
