import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, get, RawClient } from "./client.ts";
import {
  address,
  bootstrap,
  cluster,
  direct,
  http as httpFilter,
  type Json,
  listener,
  route,
} from "./config.ts";
import { Proxy } from "./proxy.ts";
import { type Edited, FILTER, filterSource, Load, Workbench } from "./reloading.ts";
import { httpUpstream } from "./upstream.ts";

const WORKERS = 2;
const CLIENTS = 6;
/** Of each kind here; `test/bench/reload.ts` does hundreds. */
const EDITS = 15;

describe("under a load of one connection a request", () => {
  let bench: Workbench;
  let load: Load;

  beforeAll(async () => {
    bench = await Workbench.open(WORKERS);
    load = new Load(bench.port, CLIENTS);
    await load.untilAllWorkers(WORKERS, () => true);
  });
  afterAll(async () => {
    await load?.stop();
    await bench?.close();
  });

  const kinds: readonly (readonly [string, Edited])[] = [
    ["a dropped-in filter", "filter"],
    ["the shipped router", "router"],
    ["the config", "config"],
  ];
  test.each(kinds)(
    `${EDITS} edits of %s reach every worker, and no request fails`,
    async (_, what) => {
      for (let n = 0; n < EDITS; n++) {
        const version = bench.edit(what);
        await load.untilAllWorkers(WORKERS, (seen) => seen[what] === version);
      }
      await load.pass(50);
      expect(load.failures).toEqual([]);
    },
  );

  test("nobody is told to restart: core and the SDK are as they were", () => {
    expect(bench.proxy.output).not.toContain("restart to take that up");
  });

  test("after an edit nobody meets the code of before again", async () => {
    const version = bench.edit("filter");
    await load.untilAllWorkers(WORKERS, (seen) => seen.filter === version);
    for (let n = 0; n < 100; n++)
      expect((await get(bench.port, "/")).headers["x-filter"]).toMatch(new RegExp(`^${version} `));
  });

  test("all three saved at once come together", async () => {
    const wanted = {
      filter: bench.edit("filter"),
      router: bench.edit("router"),
      config: bench.edit("config"),
    };
    await load.untilAllWorkers(
      WORKERS,
      ({ filter, router, config }) =>
        filter === wanted.filter && router === wanted.router && config === wanted.config,
    );
    expect(load.failures).toEqual([]);
  });

  const broken: readonly (readonly [string, string, RegExp])[] = [
    [
      "a syntax error",
      filterSource(1000).replace("setup: (", "setup: (("),
      /filters\/mark\/filter\.ts:\d+:\d+: /,
    ],
    [
      "a throw in setup",
      filterSource(1001).replace(
        "const value =",
        'throw new Error("not today");\n    const value =',
      ),
      /filters\/mark\/filter\.ts:9:\d+: [^]*not today/,
    ],
    [
      "a schema that refuses the live config",
      filterSource(1002).replace("header: Type.String()", "header: Type.Number()"),
      /envoy\.json:\d+:\d+: [^]*"x-filter" is not a number/,
    ],
    [
      "an import of Node",
      `import fs from "node:fs";\nfs;\n${filterSource(1003)}`,
      /cannot import "node:fs"/,
    ],
  ];
  test.each(broken)(
    "%s changes nothing for traffic and is shown; mended, it serves",
    async (_, source, said) => {
      const { proxy } = bench;
      const before = bench.version("filter");
      const from = proxy.lines.length;
      proxy.write(FILTER, source);
      expect((await proxy.line(said, from)).level).toBe("error");
      const filters = await proxy.admin("/filters?filter=mark");
      expect(filters).toMatch(said);
      expect(await proxy.stat("filters.reload.refused")).toBeGreaterThan(0);
      await load.pass(50);
      await load.untilAllWorkers(WORKERS, (seen) => seen.filter === before);
      const version = bench.edit("filter");
      await load.untilAllWorkers(WORKERS, (seen) => seen.filter === version);
      expect(await proxy.admin("/filters?filter=mark")).not.toMatch(said);
      expect(load.failures).toEqual([]);
    },
  );

  test("a syntax error in the router is shown, and the router of before goes on", async () => {
    const before = bench.version("router");
    const from = bench.proxy.lines.length;
    writeFileSync(bench.routerFile, "export default {");
    await bench.proxy.line(/http\/router\/filter\.ts:1:\d+: /, from);
    await load.untilAllWorkers(WORKERS, (seen) => seen.router === before);
    const version = bench.edit("router");
    await load.untilAllWorkers(WORKERS, (seen) => seen.router === version);
    expect(load.failures).toEqual([]);
  });

  test("a config with a mistake is told with its place, and the config of before goes on", async () => {
    const before = bench.version("config");
    const from = bench.proxy.lines.length;
    const text = bench.proxy.read("envoy.json").replace('"stat_prefix"', '"stat_prefx"');
    bench.proxy.reconfigure(text);
    await bench.proxy.line(/envoy\.json:\d+:\d+: [^]*stat_prefx/, from);
    await load.untilAllWorkers(WORKERS, (seen) => seen.config === before);
    const version = bench.edit("config");
    await load.untilAllWorkers(WORKERS, (seen) => seen.config === version);
    expect(load.failures).toEqual([]);
  });
});

test("a router that loops for ever is taken back on every worker, each tells of it once, and an edit serves again", async () => {
  const bench = await Workbench.open(WORKERS);
  const load = new Load(bench.port, CLIENTS);
  try {
    await load.untilAllWorkers(WORKERS, () => true);
    const before = bench.version("router");
    const source = readFileSync(bench.routerFile, "utf8");
    const from = bench.proxy.lines.length;
    const looping = source
      .replace(/VERSION = "\d+"/, 'VERSION = "99"')
      .replace("headers.set(", "while (true) {}\n        headers.set(");
    writeFileSync(bench.routerFile, looping);
    await bench.proxy.line(/http\/router\/filter\.ts:\d+:\d+: hung or broke the isolate/, from);
    await load.untilAllWorkers(WORKERS, (seen) => seen.router === before);
    const said = bench.proxy.lines.slice(from).map(({ msg }) => msg);
    // Not once more for each call into the isolate that has ended.
    expect(said.filter((line) => line.includes("Isolated is disposed"))).toEqual([]);
    expect(said).not.toContain("the reload failed");
    // Each worker is lost once, with the requests that it has; those that come until it serves again wait for that.
    expect(load.failures.length).toBeLessThanOrEqual(WORKERS * CLIENTS);
    const version = bench.edit("router");
    await load.untilAllWorkers(WORKERS, (seen) => seen.router === version);
  } finally {
    await load.stop();
    await bench.close();
  }
});

describe("one connection at a time", () => {
  test("a request in flight ends with the code that began it; the next one on its connection meets the new code", async () => {
    const asked: (() => void)[] = [];
    const upstream = await httpUpstream(
      (_, response) => void asked.push(() => response.end("done")),
    );
    const proxy = await Proxy.start({
      config: bootstrap(
        [
          listener(
            "main",
            httpFilter([route("/", "origin")], {}, [{ name: "mark", config: { header: "x-v" } }]),
          ),
        ],
        [cluster("origin", [upstream.port])],
      ),
      files: { [FILTER]: filterSource(1) },
    });
    try {
      const client = await RawClient.connect(proxy.port("main"));
      client.send("GET /1 HTTP/1.1\r\nhost: x\r\n\r\n");
      await eventually(
        () => asked.length,
        (n) => n === 1,
        "the upstream was asked",
      );
      const from = proxy.lines.length;
      proxy.write(FILTER, filterSource(2));
      await proxy.line(/^reloaded http\/mark /, from);
      asked[0]!();
      await client.untilText("done");
      expect(client.text).toContain("x-v: 1 0\r\n");
      client.send("GET /2 HTTP/1.1\r\nhost: x\r\n\r\n");
      await eventually(
        () => asked.length,
        (n) => n === 2,
        "the upstream was asked again",
      );
      asked[1]!();
      await client.untilText("x-v: 2 0\r\n");
      expect(upstream.accepted()).toBe(1);
      client.destroy();
    } finally {
      await proxy.stop();
      await upstream.close();
    }
  });

  test("listeners, routes and filters come and go with the config; open connections stay", async () => {
    const main = (text: string) => listener("main", httpFilter([direct("/", text)]));
    const proxy = await Proxy.start({ config: bootstrap([main("one")]) });
    try {
      const kept = await RawClient.connect(proxy.port("main"));
      kept.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
      await kept.untilText("\r\n\r\none");
      const config = (listeners: Parameters<typeof bootstrap>[0]) => ({
        ...bootstrap(listeners),
        admin: { address: address(proxy.adminPort) },
      });
      let from = proxy.lines.length;
      proxy.reconfigure(config([main("two"), listener("more", httpFilter([direct("/", "more")]))]));
      await proxy.line(/^reloaded /, from);
      const port = await eventually(
        async () => /^more::127\.0\.0\.1:(\d+)$/m.exec(await proxy.admin("/listeners"))?.[1],
        (found) => found !== undefined && found !== "0",
        "the new listener has a port",
      );
      expect((await get(Number(port), "/")).text).toBe("more");
      kept.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
      await kept.untilText("\r\n\r\ntwo");
      from = proxy.lines.length;
      proxy.reconfigure(config([main("three")]));
      await proxy.line(/^reloaded /, from);
      await eventually(
        () =>
          get(Number(port), "/").then(
            () => "served",
            () => "refused",
          ),
        (outcome) => outcome === "refused",
        "the listener that is gone takes no connection",
      );
      expect((await get(proxy.port("main"), "/")).text).toBe("three");
      kept.destroy();
    } finally {
      await proxy.stop();
    }
  });

  test("connections of an address that its listener leaves end with the drain time; one more address costs none", async () => {
    const at = (text: string, more: Json) =>
      listener("main", httpFilter([direct("/", text)]), more);
    const proxy = await Proxy.start({
      config: bootstrap([at("one", {})]),
      args: ["--drain-time-s", "1"],
    });
    try {
      const client = await RawClient.connect(proxy.port("main"));
      client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
      await client.untilText("\r\n\r\none");
      const save = async (listeners: readonly Json[]) => {
        const from = proxy.lines.length;
        proxy.reconfigure({
          ...bootstrap(listeners),
          admin: { address: address(proxy.adminPort) },
        });
        await proxy.line(/^reloaded /, from);
      };
      await save([at("two", { additional_addresses: [{ address: address(0, "127.0.0.2") }] })]);
      client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
      await client.untilText("\r\n\r\ntwo");
      expect(client.text.toLowerCase()).not.toContain("connection: close");
      await save([at("three", { address: address(0, "127.0.0.2") })]);
      await client.until(({ closed }) => closed);
    } finally {
      await proxy.stop();
    }
  });

  test("a table of many virtual hosts serves after a start and after an edit, and a mistake in it is told with its place", async () => {
    const HOSTS = 150;
    const upstream = await httpUpstream((request, response) => {
      response.end(`up ${request.headers["x-said"]}`);
    });
    const config = (version: string, admin: number, last = "up") => {
      const said = (v: number) => `${version} ${v}`;
      const virtual_hosts = Array.from({ length: HOSTS }, (_, v) => ({
        name: `v${v}`,
        domains: [`h${v}.test`],
        routes: [
          direct("/direct", said(v)),
          {
            ...route("/", v === HOSTS - 1 ? last : "up"),
            request_headers_to_add: [{ header: { key: "x-said", value: said(v) } }],
          },
        ],
      }));
      const main = httpFilter([], { route_config: { name: "many", virtual_hosts } });
      return {
        ...bootstrap([listener("main", main)], [cluster("up", [upstream.port])]),
        admin: { address: address(admin) },
      };
    };
    const proxy = await Proxy.start({ config: config("one", 0) });
    const serves = async (version: string) => {
      for (const v of [0, HOSTS - 1]) {
        const ask = (where: string) =>
          get(proxy.port("main"), where, { headers: { host: `h${v}.test` } });
        expect((await ask("/direct")).text).toBe(`${version} ${v}`);
        expect((await ask("/")).text).toBe(`up ${version} ${v}`);
      }
    };
    try {
      await serves("one");
      let from = proxy.lines.length;
      proxy.reconfigure(config("two", proxy.adminPort));
      await proxy.line(/^reloaded /, from);
      await serves("two");
      from = proxy.lines.length;
      proxy.reconfigure(config("three", proxy.adminPort, "nowhere"));
      const place = `virtual_hosts\\[${HOSTS - 1}\\]\\.routes\\[1\\]\\.route\\.cluster`;
      await proxy.line(
        new RegExp(`envoy\\.json:\\d+:\\d+: [^]*${place}[^]*unknown cluster "nowhere"`),
        from,
      );
      await serves("two");
    } finally {
      await proxy.stop();
      await upstream.close();
    }
  });
});
