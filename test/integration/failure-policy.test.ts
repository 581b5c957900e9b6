import type http from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, cluster, http as httpFilter, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

/** A filter of that name; `sandbox` is its manifest, `hook` what it does with a request. */
const source = (name: string, sandbox: object, hook: string): string => `
import { defineHttpFilter, reply, Type } from "@tsproxy/sdk";
export default defineHttpFilter({
  name: "${name}", config: Type.Object({}), sandbox: ${JSON.stringify(sandbox)},
  setup: (config, cx) => () => ({ ${hook} }),
});
`;
const SPIN = "onRequestHeaders() { while (true) {} }";

let upstream: Upstream<http.Server>;
let proxy: Proxy;
beforeAll(async () => {
  upstream = await httpUpstream((_request, response) => response.end("origin"));
  const chain = (name: string) =>
    listener(name, httpFilter([route("/", "origin")], {}, [{ name, config: {} }]));
  const names = ["closes", "opens", "goes_back", "asks", "rewrites"];
  proxy = await Proxy.start({
    config: bootstrap(names.map(chain), [
      cluster("origin", [upstream.port]),
      cluster("other", [upstream.port]),
    ]),
    files: {
      "filters/closes.ts": source("closes", {}, SPIN),
      "filters/opens.ts": source("opens", { failurePolicy: "open" }, SPIN),
      "filters/goes_back.ts": source(
        "goes_back",
        { failurePolicy: "previous" },
        `onRequestHeaders() { return reply(299, { body: "of before" }); }`,
      ),
      "filters/rewrites.ts": source(
        "rewrites",
        { body: "read" },
        "onResponseBody(chunk) { chunk.replace(new Uint8Array(1)); }",
      ),
      "filters/asks.ts": source(
        "asks",
        { clusters: ["origin"] },
        `async onRequestHeaders(h) {
          const ask = (target) => cx.fetch(target).then((r) => r.status, (e) => e.reason);
          return reply(200, { body: [await ask("origin:/"), await ask("other:/")].join() });
        }`,
      ),
    },
  });
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

const ask = async (name: string) => {
  const { status, text } = await get(proxy.port(name), "/");
  return `${status} ${text}`;
};

describe("what a package's manifest says", () => {
  it("closed fails its requests, open lets them pass it by", async () => {
    await eventually(
      () => ask("closes"),
      (answer) => answer === "500 ",
      "fails",
    );
    expect(await proxy.admin("/filters?filter=closes")).toMatch(/http\/closes .* \d+ faults?\n/);
    await eventually(
      () => ask("opens"),
      (answer) => answer === "200 origin",
      "passes",
    );
  });

  it("previous has the code of before serve while the new one cannot be entered", async () => {
    expect(await ask("goes_back")).toBe("299 of before");
    proxy.write("filters/goes_back.ts", source("goes_back", { failurePolicy: "previous" }, SPIN));
    await proxy.line(/reloaded http\/goes_back \(generation 2\)/);
    // It is entered, and stopped, until its breaker opens.
    const opened = proxy.line(/fault: http\/goes_back.*not entered for/);
    let isOpen = false;
    void opened.then(() => {
      isOpen = true;
    });
    while (!isOpen) expect(await ask("goes_back")).toMatch(/^(500 |299 of before)$/);
    for (let k = 0; k < 3; k++) expect(await ask("goes_back")).toBe("299 of before");
    const good = `onRequestHeaders() { return reply(299, { body: "mended" }); }`;
    proxy.write("filters/goes_back.ts", source("goes_back", { failurePolicy: "previous" }, good));
    await eventually(
      () => ask("goes_back"),
      (answer) => answer === "299 mended",
      "is mended",
    );
  });

  it("read has a filter's other body fail its request, and the log says whose it is and how to mend that", async () => {
    await expect(ask("rewrites")).rejects.toThrow();
    const { filter } = await proxy.line(
      /its manifest does not allow; take "body" out of its "sandbox"/,
    );
    expect(filter).toBe("http/rewrites");
  });

  it("asks no cluster that is not named", async () => {
    expect(await ask("asks")).toBe("200 200,no_cluster");
  });
});
