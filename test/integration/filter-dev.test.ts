import { existsSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { eventually, get, RawClient } from "./client.ts";
import { type DevLine, DevSession, portOf } from "./dev-session.ts";
import { CLI } from "./proxy.ts";

let session: DevSession;
afterEach(() => session.end());

const FILTER = "filters/hello/filter.ts";

test("runs what is found before an echo upstream, and tells of each save what it changes", async () => {
  session = new DevSession();
  expect(session.run("filter", "new", "hello").status).toBe(0);
  const started = await session.start();
  expect(started).toMatchObject({ isOwnConfig: true, workers: 2 });
  const port = portOf(started, "http");

  const first = await get(port, "/a?b=1", { method: "POST", body: "sent" });
  expect(first.headers["x-hello"]).toBe("hello");
  expect(first.text).toMatch(/^POST \/a\?b=1\n[^]*\n\nsent\n$/);
  expect(await session.next("request")).toMatchObject({ method: "POST", status: 200 });

  const source = session.read(FILTER);
  session.write(FILTER, source.replace("this.#config.value", '"saved"'));
  expect(await session.next("reloaded")).toMatchObject({
    changed: ["http/hello"],
    generation: 2,
    workers: 2,
    replayed: [
      {
        method: "POST",
        path: "/a?b=1",
        verdict: "differs",
        before: 200,
        after: 200,
        headers: [
          { sign: "-", text: "x-hello: hello" },
          { sign: "+", text: "x-hello: saved" },
        ],
        body: [],
      },
    ],
  });

  const rejecting = source.replace(
    "onResponseHeaders(",
    'onRequestHeaders() { return { type: "reply", status: 403, body: "no\\n", headers: [], flags: [], details: "" } as const; }\n\n  onResponseHeaders(',
  );
  session.write(FILTER, rejecting);
  const refusing = await session.next("reloaded");
  expect(refusing.replayed).toMatchObject([
    {
      verdict: "differs",
      before: 200,
      after: 403,
      body: expect.arrayContaining([{ sign: "+", text: "no" }]),
    },
  ]);

  session.write(FILTER, `${source}\nconst = 1;\n`);
  const refused = await session.next("refused");
  expect(refused).toMatchObject({ what: "http/hello", rest: "http/hello stays at generation 3" });
  const [error] = refused.errors as { file: string; line: number; frame: string }[];
  expect(error).toMatchObject({ line: source.split("\n").length + 1 });
  expect(error!.file).toMatch(/hello\/filter\.ts$/);
  expect(error!.frame).toContain("const = 1;");
  expect((await get(port, "/still")).status).toBe(403);

  session.write(FILTER, rejecting);
  expect(await session.next("mended")).toEqual({ event: "mended", what: "http/hello" });
});

test("runs one of several filters, and tells of no other", async () => {
  session = new DevSession();
  for (const name of ["one", "two"]) session.run("filter", "new", name);
  const started = await session.start("two", "--concurrency", "1");
  expect(started.filters).toMatchObject([{ package: "http/two" }]);
  const { headers } = await get(portOf(started, "http"), "/");
  expect([headers["x-one"], headers["x-two"]]).toEqual([undefined, "hello"]);
});

test("a filter that comes later is taken into the chain", async () => {
  session = new DevSession();
  session.run("filter", "new", "one");
  const port = portOf(await session.start("--concurrency", "1"), "http");
  session.run("filter", "new", "two");
  expect(await session.next("reloaded")).toMatchObject({ changed: ["http/two"] });
  expect(await session.next("reloaded")).toMatchObject({ config: true });
  const { headers } = await get(port, "/");
  expect(headers).toMatchObject({ "x-one": "hello", "x-two": "hello" });
});

test("runs a config of one's own, and its lines stay those of the file", async () => {
  session = new DevSession();
  session.run("filter", "new", "hello");
  const config = `static_resources:
  listeners:
    - name: mine
      address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
      filter_chains:
        - filters:
            - name: network/http_connection_manager
              config:
                stat_prefix: mine
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: { prefix: / }
                          direct_response: { status: 200, body: { inline_string: "mine" } }
                http_filters:
                  - name: hello
                    config: { value: one }
                  - name: http/router
                    config: {}
`;
  session.write("front.yaml", config);
  const started = await session.start("-c", "front.yaml");
  expect(started).toMatchObject({ config: "front.yaml", isOwnConfig: false, echo: [] });
  const { headers, text } = await get(portOf(started, "mine"), "/");
  expect([headers["x-hello"], text]).toEqual(["one", "mine"]);
  session.write("front.yaml", config.replace("value: one", "value: 1"));
  const { errors } = await session.next("refused");
  expect(errors).toMatchObject([{ file: "front.yaml", line: 19, column: 38 }]);
  session.write("front.yaml", config.replace("value: one", "value: two"));
  expect(await session.next("reloaded")).toMatchObject({
    config: true,
    replayed: [{ headers: [{ text: "x-hello: one" }, { text: "x-hello: two" }] }],
  });
});

test("runs every kind that new makes", async () => {
  session = new DevSession();
  for (const kind of ["http", "network", "listener", "access_log", "balancer", "service"])
    session.run("filter", "new", `my_${kind}`, "--kind", kind);
  const started = await session.start("--concurrency", "1");
  expect((started.filters as unknown[]).length).toBe(6);
  expect((await get(portOf(started, "http"), "/a")).headers["x-my-http"]).toBe("hello");
  const { text } = await session.next("output");
  expect(JSON.parse(String(text))).toMatchObject({ method: "GET", path: "/a", status: 200 });
  const client = await RawClient.connect(portOf(started, "tcp"));
  client.send("hi");
  await client.untilText("hi");
  client.destroy();
});

test("names a filter that hangs for good, serves without it, and takes up what mends it", async () => {
  session = new DevSession();
  session.run("filter", "new", "hello");
  const source = session.read(FILTER);
  const set = /headers\.set\(.*\);/;
  session.write(FILTER, source.replace(set, "for (let x = 3n; ; ) x *= x;"));
  const port = portOf(await session.start("--concurrency", "1"), "http");
  const lost = get(port, "/").catch(() => "lost");
  await session.next("started");
  expect(await lost).toBe("lost");
  // The new process and the end of the old one are told of in any order.
  const isNamed = ({ event, message }: DevLine) =>
    event === "log" && /hung .* inside the filter http\/hello;/.test(String(message));
  await eventually(async () => session.lines.some(isNamed), Boolean, "the log names the filter");
  expect((await get(port, "/")).status).toBe(500);
  session.write(FILTER, source);
  await session.next("reloaded");
  expect((await get(port, "/")).headers["x-hello"]).toBe("hello");
});

test("says what to do where there is no filter, and leaves nothing behind", async () => {
  session = new DevSession();
  const { status, stdout } = session.run("filter", "dev");
  expect(status).toBe(1);
  expect(stdout).toBe("no filters in filters; write one: tsproxy filter new hello\n");
  session.run("filter", "new", "hello");
  expect(session.run("filter", "dev", "helo").stdout).toBe(
    'no filter "helo" in filters; there: hello\n',
  );
  const { config } = await session.start();
  expect(existsSync(String(config))).toBe(true);
  expect(await session.end()).toBe(0);
  expect(existsSync(String(config))).toBe(false);
});

test("ends with npx, which passes SIGTERM on to a shell alone", async () => {
  // What npx sets, and the shell in which it runs a command.
  const npx = "npm_lifecycle_event=npx npm_lifecycle_script=tsproxy";
  session = new DevSession(["sh", "-c", `${npx} "$0" "$@"; exit $?`, process.execPath, CLI]);
  expect(session.run("filter", "new", "hello").status).toBe(0);
  const port = portOf(await session.start(), "http");
  // Settles once nobody holds its output any more.
  await session.end();
  await expect(get(port, "/")).rejects.toThrow("ECONNREFUSED");
});
