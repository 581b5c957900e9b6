import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, direct, http, listener, router } from "./config.ts";
import { Proxy, ROOT } from "./proxy.ts";

/** Its setup refuses while a runtime value says so. */
const MOODY = `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({
  name: "moody",
  config: Type.Object({}),
  setup(_config, cx) {
    if (cx.runtime.integer("refuse", 0) === 1) throw new Error("not today");
    return () => ({
      onResponseHeaders(headers) {
        headers.set("x-refuse", String(cx.runtime.integer("refuse", 0)));
      },
    });
  },
});
`;

test("a worker whose isolate was lost serves again although a sandbox refuses its setup, and that one joins when it can", async () => {
  // A copy of the shipped filters, whose router never comes back from one path.
  const shipped = mkdtempSync(path.join(os.tmpdir(), "tsproxy-shipped-"));
  const filter = (source: string) => !source.endsWith("node_modules");
  cpSync(path.join(ROOT, "filters"), shipped, { recursive: true, filter });
  const file = path.join(shipped, "http/router/router.ts");
  const source = readFileSync(file, "utf8");
  const entry = "  route(stream: HttpStream): RoutedRequest {\n";
  expect(source).toContain(entry);
  const spin = 'if (stream.request.path === "/spin") while (true) {}\n';
  writeFileSync(file, source.replace(entry, entry + spin));
  const off = { typed_per_filter_config: { moody: { disabled: true } } };
  const proxy = await Proxy.start({
    concurrency: 1,
    env: { TSPROXY_SHIPPED_FILTERS: shipped },
    files: { "filters/moody.ts": MOODY },
    config: {
      ...bootstrap([
        listener(
          "main",
          http(
            [
              { ...direct("/spin", ""), ...off },
              { ...direct("/without", "yes"), ...off },
              direct("/with", "yes"),
            ],
            { http_filters: [{ name: "moody" }, router] },
          ),
        ),
      ]),
      layered_runtime: { layers: [{ name: "admin", admin_layer: {} }] },
    },
  });
  try {
    const at = (path: string) => get(proxy.port("main"), path).catch(() => undefined);
    const refusing = (value: string) =>
      eventually(
        () => at("/with"),
        (answer) => answer?.headers["x-refuse"] === value,
        `an answer of the sandbox, with refuse=${value}`,
      );
    await proxy.admin("/runtime_modify?refuse=1", "POST");
    await refusing("1");
    await at("/spin");
    await proxy.line(/the isolate of the shipped filters was lost/);
    await eventually(
      () => at("/without"),
      (answer) => answer?.text === "yes",
      "the isolate built anew",
    );
    await proxy.line(/setup refuses what it took before: .*not today/);
    expect((await at("/with"))?.status).toBe(500);
    await proxy.admin("/runtime_modify?refuse=0", "POST");
    await refusing("0");
  } finally {
    await proxy.stop();
    rmSync(shipped, { recursive: true, force: true });
  }
});

/** Beside the shipped filters: loops for the path /spin, and refuses its setup while a runtime value says so. */
const FRAGILE = MOODY.replace('"moody"', '"fragile"').replace(
  "onResponseHeaders",
  'onRequestHeaders(headers) { if (headers.path === "/spin") for (;;) {} },\n      onResponseHeaders',
);

test("listeners that are told to stop while the isolate is lost stop once there is one again", async () => {
  const filters = [{ name: "fragile", config: {} }];
  const proxy = await Proxy.start({
    concurrency: 1,
    args: ["--trust", "fragile"],
    files: { "filters/fragile.ts": FRAGILE },
    config: {
      ...bootstrap([listener("main", http([direct("/", "yes")], {}, filters))]),
      layered_runtime: { layers: [{ name: "admin", admin_layer: {} }] },
    },
  });
  try {
    /** What came of a request: the answer's x-refuse, or why there was none. */
    const outcome = (path: string) =>
      get(proxy.port("main"), path).then(
        ({ headers }) => headers["x-refuse"],
        (error: NodeJS.ErrnoException) => error.code,
      );
    const until = (wanted: string) =>
      eventually(
        () => outcome("/"),
        (said) => said === wanted,
        `the outcome ${wanted}`,
      );
    await proxy.admin("/runtime_modify?refuse=1", "POST");
    await until("1");
    await outcome("/spin");
    await proxy.line(/fragile: cannot be set up again: not today/);
    await proxy.admin("/drain_listeners", "POST");
    await proxy.admin("/runtime_modify?refuse=0", "POST");
    await until("ECONNREFUSED");
  } finally {
    await proxy.stop();
  }
});

/** `at`: the status of an answer; undefined: there was none. `serves`: settles when `/new` is answered with 200. */
function asked(proxy: Proxy) {
  const at = (path: string) =>
    get(proxy.port("main"), path).then(
      ({ status }) => status,
      () => undefined,
    );
  const serves = () =>
    eventually(
      () => at("/new"),
      (status) => status === 200,
      "the new config",
    );
  return { at, serves };
}

test("a config that was saved just before an isolate is lost stays: only code is blamed", async () => {
  const configOf = (path: string) =>
    bootstrap([
      listener("main", http([direct(path, "yes")], {}, [{ name: "fragile", config: {} }])),
    ]);
  const proxy = await Proxy.start({
    concurrency: 1,
    args: ["--trust", "fragile"],
    files: { "filters/fragile.ts": FRAGILE },
    config: configOf("/old"),
  });
  try {
    const { at, serves } = asked(proxy);
    proxy.reconfigure(configOf("/new"));
    await serves();
    await at("/spin");
    await proxy.line(/the isolate of the shipped filters was lost .* is built anew/);
    await serves();
    expect(await at("/old")).toBe(404);
  } finally {
    await proxy.stop();
  }
});

test("code that came together with the config that uses it stays as that does, since none was before it", async () => {
  const plain = bootstrap([listener("main", http([direct("/old", "yes")]))]);
  const filters = [{ name: "fragile", config: {} }];
  const proxy = await Proxy.start({
    concurrency: 1,
    args: ["--trust", "fragile"],
    files: { "filters/moody.ts": MOODY },
    config: plain,
  });
  try {
    const { at, serves } = asked(proxy);
    proxy.reconfigure(bootstrap([listener("main", http([direct("/new", "yes")], {}, filters))]));
    await proxy.line(/fragile.*the config of before goes on/s);
    proxy.write("filters/fragile.ts", FRAGILE);
    await serves();
    await at("/spin");
    await proxy.line(/the isolate of the shipped filters was lost .* is built anew/);
    await serves();
  } finally {
    await proxy.stop();
  }
});

test("code that hangs goes back on every thread, also when it was saved twice and others after it, all within a minute", async () => {
  /** Tells its version in every answer. */
  const versioned = (name: string, version: number, atSpin = "") => `
import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({
  name: "${name}",
  config: Type.Object({}),
  setup: () => () => ({
    onRequestHeaders(headers) { if (headers.path === "/spin") { ${atSpin} } },
    onResponseHeaders(headers) { headers.set("x-${name}", "${version}"); },
  }),
});
`;
  const filters = ["guilty", "innocent", "apart"];
  const proxy = await Proxy.start({
    concurrency: 2,
    args: ["--trust", "guilty", "--trust", "innocent"],
    files: {
      "filters/guilty.ts": versioned("guilty", 1),
      "filters/innocent.ts": versioned("innocent", 1),
      "filters/apart.ts": versioned("apart", 1),
    },
    config: bootstrap([
      listener(
        "main",
        http(
          [direct("/", "yes")],
          {},
          filters.map((name) => ({ name })),
        ),
      ),
    ]),
  });
  try {
    const save = async (name: string, version: number, atSpin?: string) => {
      const from = proxy.lines.length;
      proxy.write(`filters/${name}.ts`, versioned(name, version, atSpin));
      await proxy.line(new RegExp(`^reloaded http/${name} `), from);
    };
    await save("guilty", 2, "for (;;) {}");
    await save("guilty", 3, "for (;;) {}");
    await save("innocent", 2);
    await save("apart", 2);
    await get(proxy.port("main"), "/spin").catch(() => undefined);
    await proxy.line(/http\/guilty stays at generation/);
    // Each of these may meet either worker. What runs in a sandbox stays as it was saved.
    for (let times = 0; times < 20; times++) {
      const { headers } = await get(proxy.port("main"), "/spin");
      expect([headers["x-guilty"], headers["x-apart"]]).toEqual(["1", "2"]);
    }
    expect(
      proxy.lines.filter(({ msg }) => msg.includes("the isolate of the shipped")),
    ).toHaveLength(1);
  } finally {
    await proxy.stop();
  }
});
