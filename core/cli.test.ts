import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { cli } from "./cli.ts";
import { VERSION } from "./version.ts";

let root: string;
beforeAll(() => {
  root = fs.mkdtempSync(path.join(fileURLToPath(new URL("..", import.meta.url)), ".cli-test-"));
});
afterAll(() => fs.rmSync(root, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

/** Runs a command line; the exit code and what it printed. */
async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  let out = "";
  let err = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    out += text;
    return true;
  });
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    err += text;
    return true;
  });
  const code = await cli(argv);
  vi.restoreAllMocks();
  return { code, out, err };
}

function write(name: string, text: string): string {
  const file = path.join(root, name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text);
  return file;
}

const ECHO = `static_resources:
  listeners:
  - name: echo
    address: { socket_address: { address: 127.0.0.1, port_value: 10000 } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.echo
        typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo }
`;

test("prints its version, and a help that names every command", async () => {
  expect(await run("--version")).toMatchObject({ code: 0, out: `${VERSION}\n` });
  const { out } = await run("--help");
  for (const command of ["run", "validate", "filter"])
    expect(out).toMatch(new RegExp(`^  ${command} `, "m"));
});

test("what it prints arrives whole, however slow the reader is", async () => {
  const program = fileURLToPath(new URL("bin/tsproxy.js", import.meta.url));
  const { stdout } = spawn(process.execPath, [program, "schema"]);
  const pieces: Buffer[] = [];
  // One piece, and then nothing for a while: the program is blocked by now, or has left too early.
  await once(stdout, "readable");
  await new Promise((resolve) => setTimeout(resolve, 300));
  for await (const piece of stdout) pieces.push(piece as Buffer);
  expect(() => JSON.parse(Buffer.concat(pieces).toString())).not.toThrow();
});

test("after a mistake names the help of the command, and validate takes a file as run does", async () => {
  const told = async (...words: string[]) => (await run(...words)).err;
  expect(await told("validate", "--nothing")).toContain("(tsproxy validate --help tells more)");
  expect(await told("filter", "new", "--nothing")).toContain(
    "(tsproxy filter new --help tells more)",
  );
  expect(await run("validate")).toMatchObject({
    code: 1,
    err: "error: name the files to check\n(tsproxy validate --help tells more)\n",
  });
  const file = write("echo-by-c.yaml", ECHO);
  expect(await run("validate", "-c", file)).toMatchObject({ code: 0, out: `${file}: OK\n` });
});

test("says what is missing or wrong about an option, with exit code 1", async () => {
  expect(await run("run")).toMatchObject({
    code: 1,
    err: expect.stringContaining("name a file with -c"),
  });
  expect(await run("-c", path.join(root, "none.yaml"))).toMatchObject({
    code: 1,
    err: expect.stringContaining("none.yaml: no such file"),
  });
  expect(await run("run", "-c", "x", "--concurrency", "many")).toMatchObject({
    code: 1,
    err: expect.stringContaining("from 1 to 256"),
  });
  expect(await run("run", "-c", "x", "-l", "loud")).toMatchObject({
    code: 1,
    err: expect.stringContaining("trace, debug"),
  });
});

test("takes every flag of Envoy's; one without meaning costs a warning", async () => {
  const good = write("flags.yaml", ECHO);
  const envoys =
    `--mode validate -l warning --component-log-level upstream:debug,config:trace --log-path ${root}/x.log --log-format %v ` +
    "--log-format-escaped --service-cluster c --service-node n --service-zone z --concurrency 0 --drain-time-s 1 " +
    "--drain-strategy immediate --parent-shutdown-time-s 2 --restart-epoch 1 --base-id 3 --base-id-path /dev/null " +
    "--disable-hot-restart --socket-path s --socket-mode 600 " +
    "--allow-unknown-static-fields --allow-unknown-fields --reject-unknown-dynamic-fields " +
    "--ignore-unknown-dynamic-fields --admin-address-path a --local-address-ip-version v6 --cpuset-threads " +
    "--disable-extensions a --enable-core-dump --enable-mutex-tracing --enable-fine-grain-logging " +
    "--file-flush-interval-msec 1 --file-flush-min-size-kb 1 --log-stacktrace-single-entry --skip-deprecated-logs " +
    "--skip-hot-restart-on-no-parent --skip-hot-restart-parent-stats --stats-tag a:b --stats-tag b:c " +
    "--ignore_rest --nobody reads --this";
  const { code, err } = await run("-c", good, ...envoys.split(" "));
  expect(code).toBe(0);
  expect(err.match(/^warning: --cpuset-threads has no effect: /gm)).toHaveLength(1);
  expect(await run("-c", good, "--component-log-level", "upstream")).toMatchObject({
    code: 1,
    err: expect.stringContaining('"upstream" is not component:level'),
  });
});

test("takes values of flags as Envoy does: empty ones as none, numbers in digits, and none twice", async () => {
  const good = write("values.yaml", ECHO);
  const check = (...flags: string[]) => run("-c", good, "--mode", "validate", ...flags);
  const empty =
    "config-yaml log-path base-id-path socket-path service-zone component-log-level log-format";
  for (const name of empty.split(" "))
    expect(await check(`--${name}`, ""), name).toMatchObject({ code: 0, err: "" });
  for (const flag of ["--file-flush-interval-msec", "--file-flush-min-size-kb"])
    expect(await check(flag, "0"), flag).toMatchObject({ code: 0, err: "" });
  for (const number of ["0x2", "1e1", "", "-1", "257"])
    expect((await check("--concurrency", number)).err).toContain("write a number from 1 to 256");
  expect(await check("--config-yaml", "node: {id: a}", "--config-yaml", "{}")).toMatchObject({
    code: 1,
    err: expect.stringContaining("error: option '--config-yaml <yaml>' is given twice"),
  });
  expect(await check("--use-dynamic-base-id", "--restart-epoch", "1")).toMatchObject({
    code: 1,
    err: expect.stringContaining("write --base-id"),
  });
  expect((await check("--", "whatever")).code).toBe(0);
  expect((await check("whatever")).code).toBe(1);
});

test("a check of the config writes nothing: neither the base id nor the log of the proxy that serves", async () => {
  const good = write("traceless.yaml", ECHO);
  const [id, log] = [path.join(root, "base-id"), path.join(root, "traceless.log")];
  const flags = ["--base-id", "7", "--base-id-path", id, "--log-path", log];
  expect((await run("-c", good, "--mode", "validate", ...flags)).code).toBe(0);
  expect([fs.existsSync(id), fs.existsSync(log)]).toEqual([false, false]);
});

test("warns of a log in a folder that does not exist, which is an error with --strict and for a proxy that starts", async () => {
  const log = "{name: access_log/file, config: {path: /no/such/a.log}}";
  const echo = write(
    "log.yaml",
    ECHO.replace("    filter_chains:", `    access_log: [${log}]\n    filter_chains:`),
  );
  const validate = ["-c", echo, "--mode", "validate"];
  expect(await run(...validate)).toMatchObject({
    code: 0,
    err: expect.stringContaining("warning"),
  });
  expect(await run(...validate, "--strict")).toMatchObject({
    code: 1,
    err: expect.stringMatching(
      /log\.yaml:\d+:\d+: \S+access_log\[0\]\.config\.path: cannot write to "\/no\/such\/a\.log": "\/no\/such" does not exist; make that folder first/,
    ),
  });
});

test("refuses a logger that there is not while checking a config, as at the start", async () => {
  const good = write("levels.yaml", ECHO);
  const check = (levels: string) =>
    run("-c", good, "--mode", "validate", "--component-log-level", levels);
  expect((await check("main:info,http/router:debug")).code).toBe(0);
  expect(await check("nobody:info")).toMatchObject({
    code: 1,
    err: expect.stringContaining('no logger is called "nobody"'),
  });
});

test("merges --config-yaml over the file, and takes it alone", async () => {
  const good = write("base.yaml", ECHO);
  const validate = ["--mode", "validate", "--config-yaml"];
  expect(await run("-c", good, ...validate, "node: {id: a}")).toMatchObject({ code: 0 });
  expect(await run(...validate, ECHO)).toMatchObject({ code: 0, out: "--config-yaml: OK\n" });
  expect(await run("-c", good, ...validate, "{nod: {}}")).toMatchObject({
    code: 1,
    err: expect.stringContaining(
      '--config-yaml:1:2: nod: unknown field "nod"; did you mean "node"?',
    ),
  });
});

test("starts a config with its schema, and never over another", async () => {
  const file = path.join(root, "begun/start.yaml");
  fs.mkdirSync(path.dirname(file));
  expect((await run("init", file)).code).toBe(0);
  const again = await run("init", "--json", file);
  expect(again.code).toBe(1);
  expect(JSON.parse(again.out)).toMatchObject({ file, ok: false });
  const another = path.join(root, "begun/another.yaml");
  const { code, out } = await run("init", "--json", another);
  expect({ code, ...JSON.parse(out) }).toMatchObject({
    code: 0,
    file: another,
    ok: true,
    errors: [],
  });
  expect(fs.readFileSync(file, "utf8")).toContain("$schema=./tsproxy.schema.json");
  expect((await run("validate", file)).code).toBe(0);
  const schema = JSON.parse(fs.readFileSync(path.join(root, "begun/tsproxy.schema.json"), "utf8"));
  expect(schema).toEqual(JSON.parse((await run("schema")).out));
  expect(schema.$defs["http/router"]).toBeDefined();
  expect(await run("init", file)).toMatchObject({
    code: 1,
    err: expect.stringContaining("is there already"),
  });
});

test("prints a v2 file in v3, and says what has no place there", async () => {
  const old = write("old.yaml", "static_resources: { clusters: [{ name: a, hosts: [] }] }\n");
  const { code, out } = await run("config", "upgrade", old);
  expect(code).toBe(0);
  expect(out).toContain("load_assignment");
  const bad = write("older.yaml", "static_resources: { clusters: [{ name: a, hots: [] }] }\n");
  const made = await run("config", "upgrade", "--json", bad);
  expect(made.code).toBe(1);
  expect(JSON.parse(made.out)).toMatchObject({ ok: false, errors: [{ line: 1 }] });
  const none = path.join(root, "none.yaml");
  expect(await run("config", "upgrade", none)).toMatchObject({ code: 1 });
  const unread = await run("config", "upgrade", "--json", none);
  expect(JSON.parse(unread.out)).toMatchObject({
    ok: false,
    errors: [{ message: expect.stringContaining("cannot read") }],
  });
});

test("says what went wrong before anything was read", async () => {
  const good = write("plain.yaml", ECHO);
  const missing = path.join(root, "no/such/x.log");
  expect(await run("runn", "-c", good)).toMatchObject({
    code: 1,
    err: 'no command "runn"; did you mean "run"?\n',
  });
  expect((await run(good)).err).toBe(`no command "${good}"; to run a config: -c ${good}\n`);
  expect((await run("-c", good, "--log-path", missing)).err).toContain(
    `cannot write the log to ${missing}: no such file or directory`,
  );
  expect((await run("-c", root)).err).toContain(`cannot read ${root}: it is a directory`);
  expect((await run("config", "upgrade", missing)).err).toContain(
    `cannot read ${missing}: no such`,
  );
  const inFile = path.join(good, "x.yaml");
  for (const command of [
    ["validate", inFile],
    ["route", "explain", inFile, "--request", "GET http://a.test/"],
    ["filter", "check", "-c", inFile],
    ["filter", "info", "http/router", "-c", inFile],
  ]) {
    const { code, out, err } = await run(...command);
    expect([code, out + err]).toEqual([
      1,
      expect.stringContaining(
        `${inFile}: cannot be read: what its path takes for a directory is a file`,
      ),
    ]);
  }
});

test("gives each file its verdict, and 1 if one is refused", async () => {
  const good = write("good.yaml", ECHO);
  const bad = write(
    "bad.yaml",
    ECHO.replace("network.echo\n", "network.ecko\n").replace("v3.Echo ", "v3.Ecko "),
  );
  const none = path.join(root, "none.yaml");
  expect(await run("validate", good)).toMatchObject({ code: 0, out: `${good}: OK\n`, err: "" });
  const { code, out } = await run("validate", "--json", good, bad, none);
  expect(code).toBe(1);
  const verdicts = JSON.parse(out);
  expect(verdicts.map((v: { file: string; ok: boolean }) => [v.file, v.ok])).toEqual([
    [good, true],
    [bad, false],
    [none, false],
  ]);
  expect(verdicts[1].errors[0]).toMatchObject({
    line: 8,
    message: expect.any(String),
    path: expect.stringContaining("filters[0]"),
  });
  expect((await run("-c", good, "--mode", "validate")).code).toBe(0);
});

test("validates with the values that the config's runtime layers have", async () => {
  const split = (folder: string) => `layered_runtime:
  layers:
  - { name: disk, disk_layer: { symlink_root: ${path.join(root, folder)} } }
static_resources:
  clusters:
  - { name: one }
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: 10000 } }
    filter_chains:
    - filters:
      - name: network/http_connection_manager
        config:
          stat_prefix: main
          http_filters: [{ name: http/router, config: {} }]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: { prefix: / }
                route: { weighted_clusters: { runtime_key_prefix: w, clusters: [{ name: one, weight: 0 }] } }
`;
  write("some/w.one", "3\n");
  write("none/w.one", "0\n");
  const good = write("some.yaml", split("some"));
  const bad = write("none.yaml", split("none"));
  const { code, out, err } = await run("validate", good, bad);
  expect([code, out]).toEqual([1, `${good}: OK\n${bad}: 1 error\n`]);
  expect(err).toContain('with the runtime\'s "w.…" the weights are 0 in sum');
  const explain = ["route", "explain", good, "--request", "GET http://a:10000/"];
  expect(await run(...explain)).toMatchObject({
    code: 0,
    out: expect.stringContaining("cluster: one"),
  });
});

test("validates with the filters beside each config, and sets them up", async () => {
  const picky = `import { ConfigError, defineNetworkFilter, Type } from "@tsproxy/sdk";
export default defineNetworkFilter({
  name: "picky",
  config: Type.Object({ word: Type.String() }),
  setup(config) {
    if (config.word !== "please") throw new ConfigError("word", "say please");
    return { create: () => ({}) };
  },
});
`;
  write("beside/filters/picky.ts", picky);
  const yaml = (word: string) =>
    ECHO.replace(
      "    - filters:\n",
      `    - filters:\n      - name: picky\n        config: { word: ${word} }\n`,
    );
  const bad = write("beside/bad.yaml", yaml("now"));
  const good = write("beside/good.yaml", yaml("please"));
  const { code, out, err } = await run("validate", good, bad);
  expect(code).toBe(1);
  expect(out).toContain(`${good}: OK`);
  expect(err).toMatch(/bad\.yaml:8:\d+: .*word: say please/);
});

test("refuses the shipped tree as a directory of dropped-in filters", async () => {
  const shipped = fileURLToPath(new URL("../filters", import.meta.url));
  expect(await run("validate", "--filters", shipped, write("a.yaml", ECHO))).toMatchObject({
    code: 1,
    err: expect.stringContaining("these are the shipped filters"),
  });
});

test("lists packages with what is wrong with them", async () => {
  const dir = path.join(root, "listed");
  write("listed/broken.ts", "export default (");
  write(
    "listed/fine.ts",
    'import { defineHttpFilter, Type } from "@tsproxy/sdk";\nexport default defineHttpFilter({ name: "fine", config: Type.Object({}), setup: () => () => ({}) });\n',
  );
  const { code, out } = await run("filter", "list", "--filters", dir);
  expect(code).toBe(1);
  expect(out).toMatch(/^http\/fine +ready +dropped-in, sandbox$/m);
  expect(out).toMatch(
    /broken\.ts +failed[^\n]*\n +[^\n]*broken\.ts:1:17: unexpected end of file\n +> 1 \| export default \(/,
  );
  const { filters } = JSON.parse((await run("filter", "list", "--json", "--filters", dir)).out);
  expect(filters).toContainEqual(
    expect.objectContaining({ package: "network/echo", origin: "shipped", state: "ready" }),
  );
  expect(await run("filter", "list", "--admin", "http://127.0.0.1:1")).toMatchObject({
    code: 1,
    err: expect.stringContaining("no tsproxy admin at"),
  });
});

test("writes new filters that are found, and whose own tests pass", async () => {
  const dir = path.join(root, "filters");
  expect((await run("filter", "new", "my_marker", "--dir", dir)).code).toBe(0);
  expect((await run("filter", "new", "limiter", "--kind", "network", "--dir", dir)).code).toBe(0);
  expect(await run("filter", "new", "limiter", "--dir", dir)).toMatchObject({
    code: 1,
    err: expect.stringContaining("is there already"),
  });
  expect(await run("filter", "new", "My-Filter", "--dir", dir)).toMatchObject({
    code: 1,
    err: expect.stringContaining('say "my_filter"'),
  });
  const odd = ["filter", "new", "odd", "--kind", "nope", "--dir", dir];
  const error =
    '--kind "nope": there is no template of that kind; write one of http, network, listener, access_log, balancer, service';
  expect(await run(...odd)).toEqual({ code: 1, out: "", err: `${error}\n` });
  const told = await run(...odd, "--json");
  expect([told.code, told.err]).toEqual([1, ""]);
  expect(JSON.parse(told.out)).toEqual({ name: "odd", kind: "nope", written: [], error });
  expect(fs.readdirSync(path.join(dir, "my_marker")).sort()).toEqual([
    "README.md",
    "config.ts",
    "filter.test.ts",
    "filter.ts",
    "package.json",
  ]);
  const { code, out } = await run("filter", "list", "--filters", dir);
  expect(code).toBe(0);
  expect(out).toMatch(/http\/my_marker +ready/);
  expect(out).toMatch(/network\/limiter +ready/);
  const bin = fileURLToPath(new URL("bin/tsproxy.js", import.meta.url));
  const tests = [bin, "filter", "test", "--dir", dir];
  const ran = await promisify(execFile)(process.execPath, tests, { env: { NO_COLOR: "1" } });
  // Two of their own, and those that every package of a kind has to pass.
  expect(ran.stdout).toMatch(/Test Files +4 passed \(4\)/);
  const cwd = fileURLToPath(new URL("..", import.meta.url));
  const tsc = path.join(cwd, "node_modules/typescript/bin/tsc");
  const types = () => promisify(execFile)(process.execPath, [tsc, "-p", root], { cwd });
  await types();
  fs.appendFileSync(path.join(dir, "limiter/filter.ts"), "process.exit(1);\n");
  await expect(types()).rejects.toMatchObject({
    stdout: expect.stringContaining("Cannot find name 'process'"),
  });
});

test.each([
  [1, 64],
  [16, 128],
])(
  "run with %i workers tells how many open files it needs, where Node would end with a stack trace",
  async (workers, files) => {
    const bin = fileURLToPath(new URL("bin/tsproxy.js", import.meta.url));
    const limited = `ulimit -n ${files} && exec "${process.execPath}" "${bin}" run --concurrency ${workers} -c "${write("few.yaml", ECHO)}"`;
    await expect(promisify(execFile)("sh", ["-c", limited])).rejects.toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(
        new RegExp(`^only ${files} files may be open .* run: ulimit -n 65536 .*\n$`),
      ),
    });
  },
);
