import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { cli } from "../cli.ts";

// What people type, in a folder of their own. Their working directory is this process's.

let root: string;
const before = process.cwd();
beforeAll(async () => {
  root = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), "filter-commands-"));
  process.chdir(root);
  for (const kind of KINDS) await run("filter", "new", `my_${kind}`, "--kind", kind);
});
afterAll(() => {
  process.chdir(before);
  fs.rmSync(root, { recursive: true });
});

const KINDS = ["http", "network", "listener", "access_log", "balancer", "service"];

async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ["", ""];
  const stdout = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    out += text;
    return true;
  });
  const stderr = vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    err += text;
    return true;
  });
  const code = await cli(argv);
  stdout.mockRestore();
  stderr.mockRestore();
  return { code, out, err };
}

function edit(file: string, from: string, to: string): () => void {
  const text = fs.readFileSync(file, "utf8");
  expect(text).toContain(from);
  fs.writeFileSync(file, text.replace(from, to));
  return () => fs.writeFileSync(file, text);
}

test("what new writes is sound, of every kind, and where it may be is where it says", async () => {
  expect(await run("filter", "check")).toEqual({ code: 0, out: "6 filters: OK\n", err: "" });
  const { filters } = JSON.parse((await run("filter", "list", "--json")).out);
  const own = filters.filter((row: { origin: string }) => row.origin === "dropped-in");
  expect(own.map((row: { package: string; state: string }) => [row.package, row.state])).toEqual(
    [...KINDS].sort().map((kind) => [`${kind}/my_${kind}`, "ready"]),
  );
  for (const file of ["package.json", "README.md", "config.ts", "filter.ts", "filter.test.ts"])
    for (const kind of KINDS) expect(fs.existsSync(`filters/my_${kind}/${file}`)).toBe(true);
  expect(fs.existsSync(".vscode/launch.json")).toBe(true);
});

test("of two filters with one name the second is an error that names both files", async () => {
  const text = `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "twin", config: Type.Object({}), setup: () => () => ({}) });
`;
  fs.mkdirSync("twins");
  for (const name of ["a.ts", "b.ts"]) fs.writeFileSync(`twins/${name}`, text);
  const said =
    'twins/b.ts: twins/a.ts already is http filter "http/twin"; give one of them another name';
  const list = await run("filter", "list", "--filters", "twins");
  expect(list.code).toBe(1);
  expect(list.out).toMatch(/^http\/twin +ready +dropped-in, sandbox$/m);
  expect(list.out).toContain(said);
  const check = await run("filter", "check", "--filters", "twins");
  expect(check.code).toBe(1);
  expect(check.err + check.out).toContain(said);
});

test("a mistake in a manifest is told at its line, and what names the filter says which file to mend", async () => {
  const file = "filters/my_http/filter.ts";
  const mend = edit(
    file,
    "  config: Config,\n",
    "  config: Config,\n  sandbox: { memoryMB: 64 },\n",
  );
  fs.writeFileSync(
    "uses.yaml",
    "static_resources: { listeners: [{ name: a, address: { socket_address: { address: 127.0.0.1, port_value: 1 } }, filter_chains: [{ filters: [{ name: my_http }] }] }] }\n",
  );
  const [line, column] = [24, 14];
  expect(
    fs
      .readFileSync(file, "utf8")
      .split("\n")
      [line - 1]?.slice(column - 1),
  ).toMatch(/^memoryMB/);
  const message = 'sandbox: no "memoryMB"; did you mean "memoryMb"?';
  const told = `${file}:${line}:${column}: ${message}`;
  for (const words of [["info", "my_http"], ["list"], ["check", "my_http"], ["build", "my_http"]]) {
    const { code, out, err } = await run("filter", ...words);
    expect([words[0], code]).toEqual([words[0], 1]);
    expect(out + err).toContain(told);
  }
  const { code, out } = await run("validate", "uses.yaml", "--json");
  expect(code).toBe(1);
  const [{ errors }] = JSON.parse(out);
  expect(errors).toEqual([
    { file, line, column, path: "", message },
    {
      file: "uses.yaml",
      line: 1,
      column: 148,
      path: "static_resources.listeners[0].filter_chains[0].filters[0].name",
      message: `${file} is "my_http" and has errors of its own; mend those`,
    },
  ]);
  mend();
  fs.rmSync("uses.yaml");
});

test("check tells a wrong type at its line, and knows no Node", async () => {
  const mend = edit(
    "filters/my_http/filter.ts",
    "marked.inc()",
    'marked.add("x"); Buffer.from(""); void new Promise((done) => setTimeout(done, 5))',
  );
  const { code, err, out } = await run("filter", "check", "my_http");
  mend();
  expect(code).toBe(1);
  expect(out).toBe("1 filter: 2 errors\n");
  expect(err).toMatch(/^filters\/my_http\/filter\.ts:17:2\d: .*'string' is not .*\(TS2345\)$/m);
  expect(err).toMatch(/Cannot find name 'Buffer': filters run without Node; use Uint8Array/);
  expect(err).toMatch(/^> 17 \|/m);
});

test("check lets tests have Node, and tells what is wrong in them", async () => {
  const file = "filters/my_http/node.test.ts";
  fs.writeFileSync(
    file,
    'import { readFileSync } from "node:fs";\nimport filter from "./filter.ts";\nfilter.name.trim();\nBuffer.from(readFileSync("a")).nope();\n',
  );
  const { err } = await run("filter", "check", "my_http");
  fs.rmSync(file);
  expect(err).toMatch(/^filters\/my_http\/node\.test\.ts:4:32: Property 'nope' does not exist/);
  expect(err.match(/TS\d+/g)).toHaveLength(1);
});

test("what cannot be done is said in a sentence, or in JSON for a program", async () => {
  const none = "no filters in nowhere; write one: tsproxy filter new hello";
  for (const command of ["test", "check", "build", "list"]) {
    const where = command === "test" ? "--dir" : "--filters";
    const { code, err } = await run("filter", command, where, "nowhere");
    expect([command, code, err]).toEqual([command, 1, `${none}\n`]);
  }
  for (const [kind, help] of [
    ["htpp", 'did you mean "http"?'],
    ["cluster", `write one of ${KINDS.join(", ")}`],
  ] as const) {
    const { code, err } = await run("filter", "new", "other", "--kind", kind);
    expect([code, err]).toEqual([
      1,
      `--kind "${kind}": there is no template of that kind; ${help}\n`,
    ]);
  }
  const asked = [
    ["info", "my_htp"],
    ["bench", "my_htp"],
    ["build", "my_htp"],
    ["list", "--admin", "127.0.0.1:1"],
    ["profile", "my_http", "--admin", "127.0.0.1:1"],
  ];
  for (const words of asked) {
    const { code, out, err } = await run("filter", ...words, "--json");
    expect([code, err]).toEqual([1, ""]);
    expect(JSON.parse(out)).toEqual({ error: expect.stringMatching(/^no (filter|tsproxy admin)/) });
  }
});

test("test and build tell which filters there are where none has the name that they were given", async () => {
  for (const [command, words] of [
    ["test", 'or test file in filters has "my_htp" in its path'],
    ["build", '"my_htp" in filters'],
  ] as const) {
    const error = expect.stringMatching(new RegExp(`^no filter ${words}; there: .*my_http`));
    const text = await run("filter", command, "my_htp");
    expect(text).toEqual({ code: 1, out: "", err: error });
    const { code, out, err } = await run("filter", command, "my_htp", "--json");
    expect([code, JSON.parse(out), err]).toEqual([1, { error }, ""]);
  }
});

test("bench says what to do where there is nothing to measure", async () => {
  const none = await run("filter", "bench", "my_htp");
  expect(none).toEqual({ code: 1, out: "", err: 'no filter "my_htp"; did you mean "my_http"?\n' });
  const network = await run("filter", "bench", "my_network");
  expect([network.code, network.err]).toEqual([
    1,
    expect.stringMatching(/^network\/my_network: filter bench takes http filters only/),
  ]);
  const mend = edit("filters/my_http/filter.ts", "marked.inc()", "marked.inc(");
  for (const name of ["my_http", "filters/my_http", "./filters/my_http/filter.ts"]) {
    const { code, err } = await run("filter", "bench", name);
    expect(code).toBe(1);
    expect(err).toMatch(/^filters\/my_http\/filter\.ts:17:\d+: /);
    expect(err).toMatch(/\nit does not load, so there is nothing to measure; mend it/);
  }
  mend();
  const unused = await run("filter", "bench", "my_http", "-c", "missing.yaml");
  expect(unused.err).toBe("missing.yaml: cannot be read: no such file or directory\n");
});

test("the filter of each page of the SDK's docs is sound", async () => {
  const docs = path.join(import.meta.dirname, "../../sdk/docs");
  for (const kind of [...KINDS, "sandbox", "surroundings"]) {
    const page = fs.readFileSync(path.join(docs, `${kind}.md`), "utf8");
    fs.mkdirSync(`docs/${kind}`, { recursive: true });
    fs.writeFileSync(`docs/${kind}/filter.ts`, /```ts\n([^]*?)```/.exec(page)![1]!);
    fs.writeFileSync(`docs/${kind}/package.json`, '{ "tsproxy": { "trusted": true } }');
  }
  expect(await run("filter", "check", "--filters", "docs")).toEqual({
    code: 0,
    out: "8 filters: OK\n",
    err: "",
  });
});

const SCRIPTS = `static_resources:
  listeners:
    - name: main
      address: { socket_address: { address: 127.0.0.1, port_value: 1 } }
      filter_chains:
        - filters:
            - name: network/http_connection_manager
              config:
                stat_prefix: main
                route_config: { virtual_hosts: [] }
                http_filters:
                  - name: http/script
                    config:
                      inline: |
                        const seen = stats.counter("seen");
                        async function onRequest(req, stream) {
                          const key: number = req.header("x-key") ?? "";
                          seen.incr();
                          if (req.path === "/") return repyl(3); const m: number = req.method;
                        }
                  - name: http/script
                    config:
                      onResponse: |
                        res.headers.set("a", 3);
                  - name: my_http
                    config: {}
                  - name: http/router
                    config: {}
`;

test("new and test speak JSON, too", async () => {
  const made = await run("filter", "new", "spoken", "--dir", "spoken", "--json");
  expect(JSON.parse(made.out)).toEqual({
    name: "spoken",
    kind: "http",
    written: expect.arrayContaining(["spoken/spoken"]),
  });
  const again = await run("filter", "new", "spoken", "--dir", "spoken", "--json");
  expect(again.code).toBe(1);
  expect(JSON.parse(again.out).error).toBe("spoken/spoken is there already; choose another name");
  const { out } = await run("filter", "test", "--dir", "spoken", "--json");
  // Six checks that the group and the sandbox share, one of the group's memory, one that it is a filter, and its own test.
  expect(JSON.parse(out)).toMatchObject({ success: true, numPassedTests: 15 });
});

test("test adds the checks of the kind where the config has fields that are required, too", async () => {
  await run("filter", "new", "demanding", "--dir", "demanding");
  const folder = "demanding/demanding";
  edit(`${folder}/config.ts`, '{ default: "hello" }', "{ minLength: 3 }");
  edit(`${folder}/config.ts`, "});", "  limits: Type.Array(Type.Integer({ minimum: 5 })),\n});");
  edit(`${folder}/filter.test.ts`, '{ value: "hello" }', '{ value: "hello", limits: [] }');
  const { out } = await run("filter", "test", "--dir", "demanding", "--json");
  expect(JSON.parse(out)).toMatchObject({ success: true, numPassedTests: 15, numPendingTests: 0 });
  expect(out).toContain('demanding with {\\"value\\":\\"xxx\\",\\"limits\\":[]}: ');
});

test("check names what is wrong in a script by line and column of the config", async () => {
  fs.writeFileSync("scripts.yaml", SCRIPTS);
  const { code, out } = await run("filter", "check", "my_http", "-c", "scripts.yaml", "--json");
  expect(code).toBe(1);
  const { errors, ...counts } = JSON.parse(out);
  expect(counts).toEqual({ ok: false, filters: 1, scripts: 2 });
  const places = errors.map(
    (e: { file: string; line: number; column: number; message: string }) => [
      `${e.file}:${e.line}:${e.column}`,
      /TS\d+/.exec(e.message)![0],
    ],
  );
  expect(places).toEqual([
    ["scripts.yaml:17:33", "TS2322"],
    ["scripts.yaml:18:32", "TS2551"],
    ["scripts.yaml:19:56", "TS2552"],
    ["scripts.yaml:19:72", "TS2322"],
    ["scripts.yaml:24:46", "TS2345"],
  ]);
});

const NETWORK_SCRIPTS = `static_resources:
  listeners:
    - name: main
      address: { socket_address: { address: 127.0.0.1, port_value: 1 } }
      filter_chains:
        - filters:
            - name: network/script
              config:
                inline: |
                  function onData(data, conn, end) { conn.send(data.length); }
                  async function onWrite(data, conn) { if (data.text() === "a") data.replace("b"); }
            - name: network/script
              config:
                onWrite: |
                  if (end) conn.state.ended = true;
                  data.change("x");
                onClose: |
                  log.info(event.by, { to: conn.remoteAddress.ip });
            - name: network/echo
              config: {}
`;

test("check holds scripts of connections to their types as well", async () => {
  fs.writeFileSync("network.yaml", NETWORK_SCRIPTS);
  const { out } = await run("filter", "check", "my_http", "-c", "network.yaml", "--json");
  const { errors, ...counts } = JSON.parse(out);
  expect(counts).toEqual({ ok: false, filters: 1, scripts: 3 });
  expect(
    errors.map(({ line, message }: { line: number; message: string }) => [
      line,
      /TS\d+/.exec(message)![0],
    ]),
  ).toEqual([
    [10, "TS2345"],
    [16, "TS2339"],
  ]);
});

test("info tells kind, version, config, hooks, stats, and where configs use it", async () => {
  const { out } = await run("filter", "info", "my_http", "-c", "scripts.yaml", "--json");
  expect(JSON.parse(out)).toMatchObject({
    package: "http/my_http",
    kind: "http",
    version: "0.1.0",
    placement: "sandbox",
    hooks: ["onResponseHeaders"],
    stats: [{ kind: "counter", name: "my_http.marked" }],
    schema: { properties: { value: { default: "hello" } } },
    uses: [{ file: "scripts.yaml", line: 25 }],
  });
  const text = (await run("filter", "info", "envoy.filters.http.buffer")).out;
  expect(text).toMatch(/^http\/buffer 0\.1\.0 {2}\(envoy\.filters\.http\.buffer\)\n/);
  expect(text).toMatch(/max_request_bytes: integer/);
  expect(await run("filter", "info", "my_htp")).toMatchObject({
    code: 1,
    err: 'no filter "my_htp"; did you mean "my_http"?\n',
  });
});

test("build makes one file that works as its folder does, and is refused once it is edited", async () => {
  expect(await run("filter", "build", "my_http", "-o", "out/filters")).toMatchObject({ code: 0 });
  const file = "out/filters/my_http-0.1.0.js";
  const manifest = JSON.parse(
    /^\/\/ tsproxy-filter (\{.*\})\n/.exec(fs.readFileSync(file, "utf8"))![1]!,
  );
  expect(manifest).toMatchObject({ name: "my_http", kind: "http", version: "0.1.0" });
  expect(manifest.schema.properties).toHaveProperty("value");
  const info = async () => run("filter", "info", "my_http", "--filters", "out/filters", "--json");
  expect(JSON.parse((await info()).out)).toMatchObject({
    package: "http/my_http",
    version: "0.1.0",
  });

  fs.writeFileSync(
    "front.yaml",
    SCRIPTS.replace(/ +- name: http\/script[^]*?(?= +- name: my_http)/, ""),
  );
  expect(await run("validate", "front.yaml", "--filters", "out/filters")).toMatchObject({
    code: 0,
  });

  fs.appendFileSync(file, "\n");
  const { code, err } = await run("filter", "info", "my_http", "--filters", "out/filters");
  expect([code, err]).toEqual([
    1,
    expect.stringMatching(/no filter "my_http"|my_http-0\.1\.0\.js: it is not what was packed/),
  ]);
  const { filters } = JSON.parse(
    (await run("filter", "list", "--filters", "out/filters", "--json")).out,
  );
  expect(
    filters.find((row: { state: string }) => row.state === "failed").errors[0].message,
  ).toMatch(/my_http-0\.1\.0\.js: it is not what was packed/);
});
