import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, direct, http, listener, router } from "./config.ts";
import { Proxy } from "./proxy.ts";

const LIMIT = 40;

const config = (version: string) =>
  bootstrap([
    listener(
      "main",
      http([direct("/", "through\n")], {
        http_filters: [
          {
            name: "http/script",
            config: {
              inline: `
                const limit: any = shared.tokenBuckets("by key", {
                  maxKeys: 100, maxTokens: ${LIMIT}, tokensPerFill: 1, fillIntervalMs: 3_600_000,
                });
                function onRequest(req) {
                  if (req.path === "/throw") throw new Error("on purpose");
                  if (req.path === "/float") Promise.reject(new Error("floating"));
                  if (req.path === "/loop") for (;;) {}
                  const key = req.header("x-key");
                  if (key !== undefined && !limit.take(key)) return reply(429);
                }
                function onResponse(res, req, stream) {
                  res.headers.set("x-version", "${version}");
                  res.headers.set("x-host", stream.route.virtualHostName);
                }`,
            },
          },
          router,
        ],
      }),
    ),
  ]);

let proxy: Proxy;
beforeAll(async () => {
  proxy = await Proxy.start({ config: config("1"), concurrency: 2 });
});
afterAll(() => proxy?.stop());

const ask = (where = "/", key?: string) =>
  get(proxy.port("main"), where, key === undefined ? {} : { headers: { "x-key": key } });

test("a script's shared limit is exact over workers and through reloads of the config", async () => {
  let admitted = 0;
  let version = 1;
  for (let k = 0; k < LIMIT + 20; k++) {
    // Connections of their own: both workers take part.
    if ((await ask("/", "one")).status === 200) admitted++;
    if (k % 15 !== 14) continue;
    version++;
    proxy.reconfigure(config(String(version)));
    await eventually(
      () => ask(),
      (answer) => answer.headers["x-version"] === String(version),
      `version ${version} serves`,
    );
  }
  expect(admitted).toBe(LIMIT);
  expect((await ask()).headers["x-host"]).toBe("all");
  expect((await ask("/", "other")).status).toBe(200);
});

test("a script that throws costs its own request, and is told of with its place in the config", async () => {
  expect((await ask("/throw")).status).toBe(500);
  expect((await ask()).text).toBe("through\n");
  const line = await proxy.line(/on purpose/);
  expect(line.msg).toMatch(/\.(ya?ml|json):\d+:\d+: on purpose/);
});

test("a promise that a script leaves to itself is told of with the script's place, too", async () => {
  expect((await ask("/float")).status).toBe(200);
  const line = await proxy.line(/floating/);
  expect(line.msg).toMatch(/^fault: http\/script: [^ ]*\.(ya?ml|json):\d+:\d+: .* floating$/);
});

test("a script that loops is stopped, and serves again", async () => {
  expect((await ask("/loop")).status).toBe(500);
  await eventually(
    () => ask(),
    (answer) => answer.status === 200,
    "it serves again",
  );
});

test("a config whose script loops outside its functions is refused with the script's place", async () => {
  const text = JSON.stringify(config("looping")).replace(
    "const limit",
    "for (;;) {}\\nconst limit",
  );
  proxy.reconfigure(JSON.parse(text));
  const line = await proxy.line(/: setup did not return/);
  expect(line.msg).toMatch(/\.json:\d+:\d+: setup did not return/);
  const { status, headers } = await ask();
  expect([status, headers["x-version"]]).not.toEqual([200, "looping"]);
  expect(status).toBe(200);
});
