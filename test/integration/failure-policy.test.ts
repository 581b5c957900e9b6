import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import type http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually, get, RawClient } from "./client.ts";
import { bootstrap, cluster, direct, http as httpFilter, listener, route } from "./config.ts";
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

/** Packages of other kinds that fall back; `call` runs in their hook. What they answer, or log, is "of before". */
const OTHERS = {
  network: {
    define: "defineNetworkFilter",
    setup: (call: string) =>
      `() => ({ create: (_connection, chain) => ({ onData(chunk) { ${call} chunk.replace(utf8Encode("of before")); } }) })`,
    ask: () => say("back_network"),
  },
  listener: {
    define: "defineListenerFilter",
    // Where it lets nothing be seen of its first bytes, the echo has the rest.
    setup: (call: string) =>
      `() => () => ({ onBytes(bytes) { ${call} return bytes.length < 12 ? "more" : 3; } })`,
    ask: () => say("back_listener", "xyzof before"),
  },
  access_log: {
    define: "defineAccessLogger",
    setup: (call: string) =>
      `(config, cx) => { const file = cx.file(config.path); return { log() { ${call} file.append("of before\\n"); } }; }`,
    async ask() {
      const lines = () => (existsSync(log) ? readFileSync(log, "utf8").split("\n").length : 0);
      const dropped = () => proxy.stat("filters.access_log.back_access_log.entries_dropped");
      const [before, lost] = [lines(), await dropped()];
      await get(proxy.port("back_access_log"), "/");
      await eventually(
        async () => lines() > before || (await dropped()) > lost,
        Boolean,
        "its entry is written or dropped",
      );
      return lines() > before ? "of before" : "";
    },
  },
} as const;

const other = (kind: keyof typeof OTHERS, call = ""): string => `
import { ${OTHERS[kind].define}, Type, utf8Encode } from "@tsproxy/sdk";
export default ${OTHERS[kind].define}({
  name: "back_${kind}", config: Type.Object({ path: Type.String({ default: "" }) }),
  sandbox: { failurePolicy: "previous" }, setup: ${OTHERS[kind].setup(call)},
});
`;

/** What comes back on a connection, up to its end. */
async function say(name: string, text = "x"): Promise<string> {
  const client = await RawClient.connect(proxy.port(name));
  client.send(text);
  await client.until(({ text: got, closed }) => got === "of before" || closed);
  client.socket.destroy();
  return client.text;
}

let upstream: Upstream<http.Server>;
let proxy: Proxy;
let folder: string;
let log: string;
beforeAll(async () => {
  upstream = await httpUpstream((_request, response) => response.end("origin"));
  const chain = (name: string) =>
    listener(name, httpFilter([route("/", "origin")], {}, [{ name, config: {} }]));
  const names = ["closes", "opens", "goes_back", "asks", "rewrites"];
  folder = await mkdtemp(path.join(tmpdir(), "tsproxy-policy-"));
  log = path.join(folder, "back.log");
  const echo = { name: "network/echo", config: {} };
  const others = [
    listener(
      "back_network",
      {},
      { filter_chains: [{ filters: [{ name: "back_network", config: {} }, echo] }] },
    ),
    listener(
      "back_listener",
      {},
      {
        listener_filters: [{ name: "back_listener", config: {} }],
        filter_chains: [{ filters: [echo] }],
      },
    ),
    listener(
      "back_access_log",
      httpFilter([direct("/", "")], {
        access_log: [{ name: "back_access_log", config: { path: log } }],
      }),
    ),
  ];
  const otherFiles = Object.keys(OTHERS).map((kind) => [
    `filters/back_${kind}.ts`,
    other(kind as keyof typeof OTHERS),
  ]);
  proxy = await Proxy.start({
    config: bootstrap(
      [...names.map(chain), ...others],
      [cluster("origin", [upstream.port]), cluster("other", [upstream.port])],
    ),
    files: {
      ...Object.fromEntries(otherFiles),
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
  await rm(folder, { recursive: true, force: true });
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

  it.each(["network", "listener", "access_log"] as const)(
    "previous has the code of before serve in the place of a %s package as well",
    async (kind) => {
      const file = `filters/back_${kind}.ts`;
      await eventually(
        () => OTHERS[kind].ask(),
        (answer) => answer === "of before",
        "serves",
      );
      proxy.write(file, other(kind, "for (;;) {}"));
      await proxy.line(new RegExp(`reloaded ${kind}/back_${kind} \\(generation`));
      // It is entered, and stopped, until its breaker opens; and again, once that is half-open.
      const opened = new RegExp(`fault: ${kind}/back_${kind}.*not entered for`, "g");
      while ((proxy.output.match(opened)?.length ?? 0) < 2) await OTHERS[kind].ask();
      await eventually(
        () => OTHERS[kind].ask(),
        (answer) => answer === "of before",
        "serves in its place",
      );
    },
  );

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
