import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, direct, http, listener, router } from "./config.ts";
import { Proxy } from "./proxy.ts";

/** Two routes of one listener have scripts of their own, and another listener has one too: all share one sandbox a worker. */
const SCRIPT = `
  function onRequest(req) { req.headers.set("x-script", "request"); }
  function onResponse(res) { res.headers.set("x-script", "response"); }`;
const NAPS = `
  async function onRequest(req, stream) { await stream.sleep(20); }
  function onResponse(res) { res.headers.set("x-script", "response"); }`;
const LOOPS = `
  function onRequest(req) { if (req.path.endsWith("/loop")) for (;;) {} }
  function onResponse(res) { res.headers.set("x-script", "looping"); }`;

const script = (inline: string) => ({ name: "http/script", config: { inline } });
const route = (path: string, inline?: string) => ({
  ...direct(path, "through\n"),
  ...(inline !== undefined && {
    typed_per_filter_config: { "http/script": { inline } },
  }),
});

let proxy: Proxy;
beforeAll(async () => {
  const config = bootstrap([
    listener(
      "main",
      http([route("/bad", LOOPS), route("/naps", NAPS), route("/good", SCRIPT)], {
        http_filters: [script(SCRIPT), router],
      }),
    ),
    listener("other", http([direct("/", "through\n")], { http_filters: [script(SCRIPT), router] })),
  ]);
  proxy = await Proxy.start({ config, concurrency: 1 });
});
afterAll(() => proxy?.stop());

const LEFT = /not entered for 4000 ms/;

/** Sixteen clients ask `where` of a listener, one request after the other each, until they are told to end. */
function load(name: string, where: string) {
  const failed: string[] = [];
  const ms: number[] = [];
  let isOver = false;
  const clients = Array.from({ length: 16 }, async () => {
    while (!isOver) {
      const began = performance.now();
      const { status, headers } = await get(proxy.port(name), where);
      ms.push(performance.now() - began);
      if (status !== 200 || headers["x-script"] !== "response")
        failed.push(`${status} ${headers["x-script"]}`);
    }
  });
  return async () => {
    isOver = true;
    await Promise.all(clients);
    ms.sort((a, b) => a - b);
    return { failed, p99: ms[Math.floor(ms.length * 0.99)]! };
  };
}

test("a route's script that loops costs no request of another route or listener, and ends alone in its failure policy", async () => {
  const ask = () => get(proxy.port("main"), "/bad/loop");
  const ends = [load("main", "/good"), load("other", "/")];
  expect((await ask()).status).toBe(500);
  // It goes on apart, so that not even requests whose promise is pending are lost with its isolate.
  ends.push(load("main", "/naps"));
  for (let k = 0; k < 2; k++) expect((await ask()).status).toBe(500);
  for (const { failed } of await Promise.all(ends.map((end) => end()))) expect(failed).toEqual([]);
  // Each trial that loops doubles the time for which it is left alone.
  await eventually(
    ask,
    ({ status }) => status === 500 && proxy.lines.some(({ msg }) => LEFT.test(msg)),
    "it is left alone for 4 s",
  );
  // While it is, others are as quick as ever. A busy machine may make a window slow, but not each of them.
  const failures: string[] = [];
  await eventually(
    async () => {
      const calm = [load("main", "/good"), load("other", "/")];
      for (let k = 0; k < 50; k++) expect((await ask()).status).toBe(500);
      const windows = await Promise.all(calm.map((end) => end()));
      for (const { failed } of windows) failures.push(...failed);
      return Math.max(...windows.map(({ p99 }) => p99));
    },
    // As long as an entry that loops takes.
    (p99) => p99 < 250,
    "p99 below 250 ms",
  );
  expect(failures).toEqual([]);
  expect((await proxy.line(LEFT)).msg).toMatch(/^fault: http\/script: .*\.json:\d+:\d+: /);
  const listed = await proxy.admin("/filters?filter=http/script");
  expect(listed).toMatch(/not entered now: .*routes\[0\]\.typed_per_filter_config/);
  expect(await proxy.stat("filters.http.script.opened")).toBeGreaterThanOrEqual(3);
});
