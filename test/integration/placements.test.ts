import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import type http from "node:http";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually, get } from "./client.ts";
import { accessLog, bootstrap, cluster, http as httpFilter, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

/** What a filter does with what the SDK and the isolate give it; each entry answers something to compare. */
const PROBES = {
  text: `const d = new TextDecoder(); return d.decode(new TextEncoder().encode("grüße")) + btoa("x") + atob("eQ==");`,
  url: `const u = new URL("/p?a=1&b=2", "https://h:8443/x"); u.searchParams.append("c", "ü"); return [u.href, new URLSearchParams("q=1").get("q")];`,
  clone: `const a = { d: new Date(0), m: new Map([[1, { x: 1 }]]) }; const b = structuredClone(a); return [b.d.getTime(), b.m.get(1), b.m !== a.m];`,
  abort: `const c = new AbortController(); let seen = 0; c.signal.addEventListener("abort", () => seen++); c.abort(); return [seen, c.signal.aborted, c.signal.reason.name];`,
  timers: `const from = performance.now(); await new Promise((resolve) => setTimeout(resolve, 30)); const order = []; queueMicrotask(() => order.push(1)); order.push(0); await undefined; await undefined; return [performance.now() - from >= 30, order];`,
  crypto: `const key = await crypto.subtle.importKey("raw", utf8Encode("k"), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]); const mac = new Uint8Array(await crypto.subtle.sign("HMAC", key, utf8Encode("data"))); return [mac[0], mac.length, crypto.randomUUID().length];`,
  fetch: `const r = await cx.fetch("origin:/data", { method: "POST", body: parts() }); let n = 0; for await (const part of r.body) n += part.length; return [r.status, r.headers.get("x-length"), n];
    async function* parts() { for (let k = 0; k < 30; k++) yield new Uint8Array(10_000); }`,
  facts: `stream.metadata.set("probe", { seen: "yes" }); stream.filterState.set("tenant", "blue"); return [stream.route.name, stream.route.virtualHostName, stream.route.routeMetadata, stream.info.protocol, stream.downstreamConnection.listener.direction];`,
  state: `const n = (stream.connectionState.get("n") ?? 0) + 1; stream.connectionState.set("n", n); return n;`,
} as const;

const source = (name: string): string => `
import { defineHttpFilter, reply, Type, utf8Encode } from "@tsproxy/sdk";
const probes = { ${Object.entries(PROBES)
  .map(([probe, body]) => `async ${probe}(cx, stream) { ${body} }`)
  .join(",\n")} };
export default defineHttpFilter({
  name: "${name}",
  config: Type.Object({}),
  setup: (config, cx) => (stream) => ({
    async onRequestHeaders(headers) {
      const probe = probes[headers.path.slice(1)];
      try { return reply(200, { body: JSON.stringify(await probe(cx, stream)) }); }
      catch (error) { return reply(500, { body: String(error.stack) }); }
    },
  }),
});
`;

let upstream: Upstream<http.Server>;
let proxy: Proxy;
beforeAll(async () => {
  upstream = await httpUpstream((request, response) => {
    let size = 0;
    request.on("data", (data: Buffer) => {
      size += data.length;
    });
    request.on("end", () => {
      response.writeHead(201, { "x-length": String(size) });
      response.end(Buffer.alloc(300_000));
    });
  });
  const named = {
    ...route("/", "origin"),
    name: "all",
    metadata: { filter_metadata: { ns: { a: 1 } } },
  };
  const format = "%DYNAMIC_METADATA(probe:seen)% %FILTER_STATE(tenant:PLAIN)%\n";
  const chain = (name: string) =>
    listener(
      name,
      httpFilter([named], { access_log: [accessLog(`${name}.log`, format)] }, [
        { name, config: {} },
      ]),
    );
  proxy = await Proxy.start({
    config: bootstrap([chain("apart"), chain("beside")], [cluster("origin", [upstream.port])]),
    files: { "filters/apart.ts": source("apart"), "filters/beside.ts": source("beside") },
    args: ["--trust", "beside", "--file-flush-interval-msec", "50"],
  });
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

/** JSON of what each probe answers, in both placements. */
const EXPECTED: Readonly<Record<keyof typeof PROBES, unknown>> = {
  text: "grüßeeA==y",
  url: ["https://h:8443/p?a=1&b=2&c=%C3%BC", "1"],
  clone: [0, { x: 1 }, true],
  abort: [1, true, "AbortError"],
  timers: [true, [0, 1]],
  crypto: [createHmac("sha256", "k").update("data").digest()[0], 32, 36],
  fetch: [201, "300000", 300_000],
  facts: ["all", "all", { ns: { a: 1 } }, "HTTP/1.1", "UNSPECIFIED"],
  state: 1,
};

describe.each(["apart", "beside"])("a filter that runs %s", (place) => {
  it.each(Object.keys(EXPECTED))("has %s", async (probe) => {
    const { status, text } = await get(proxy.port(place), `/${probe}`);
    expect([status, JSON.parse(text)]).toEqual([200, EXPECTED[probe as keyof typeof PROBES]]);
  });

  it("leaves metadata and filter state to the access log", async () => {
    const lines = () => readFileSync(path.join(proxy.dir, `${place}.log`), "utf8").split("\n");
    await get(proxy.port(place), "/facts");
    await eventually(lines, (found) => found.includes("yes blue"), "a line with both");
  });
});
