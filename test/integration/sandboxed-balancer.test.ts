import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, cluster, http, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

// A dropped-in balancer in a sandbox of its own, without trust.

const balancer = (choose: string): string => `
import { defineBalancer, Type } from "@tsproxy/sdk";
export default defineBalancer({
  name: "mine",
  config: Type.Object({}),
  setup: (_config, cx) => ({
    hashing: true,
    create: ({ hosts }) => ({ choose({ hash }) { ${choose} } }),
  }),
});
`;
const BY_HASH = `if (hash === 13n) for (;;) {}
  if (hash === undefined) return hosts.at(-1);
  cx.log.debug("chosen", { hash: String(hash) });
  return hosts[Number(hash % 3n)];`;
/** Asks the cluster by itself, from its own sandbox. */
const ASKS = `
import { defineHttpFilter, reply, Type } from "@tsproxy/sdk";
export default defineHttpFilter({
  name: "asks",
  config: Type.Object({}),
  setup: (_config, cx) => () => ({
    async onRequestHeaders(headers) {
      if (headers.path !== "/asks") return;
      return reply(200, { body: "asked " + (await (await cx.fetch("mine:/")).text()) });
    },
  }),
});
`;
const MINE = {
  load_balancing_policy: { policies: [{ typed_extension_config: { name: "mine", config: {} } }] },
};

let upstreams: Upstream[];
let proxy: Proxy;
beforeAll(async () => {
  upstreams = await Promise.all(
    ["a", "b", "c"].map((name) => httpUpstream((_, response) => response.end(name))),
  );
  const ports = upstreams.map(({ port }) => port);
  const hash_policy = [{ header: { header_name: "x-key" } }];
  const routes = [route("/plain", "plain"), route("/", "mine", { hash_policy })];
  proxy = await Proxy.start({
    config: bootstrap(
      [listener("main", http(routes, {}, [{ name: "asks", config: {} }]))],
      [cluster("mine", ports, MINE), cluster("plain", ports.slice(0, 1))],
    ),
    files: { "filters/mine.ts": balancer(BY_HASH), "filters/asks.ts": ASKS },
  });
});
afterAll(async () => {
  await proxy?.stop();
  await Promise.all((upstreams ?? []).map((upstream) => upstream.close()));
});

const bodies = async (path: string, n: number): Promise<string[]> => {
  const answers = await Promise.all(Array.from({ length: n }, () => get(proxy.port("main"), path)));
  return answers.map(({ text }) => text);
};

test("it chooses for each request, by what it sees of it", async () => {
  // On a machine that stands still for a while a few may be left to turns.
  const isOurs = (answers: readonly string[]) => answers.every((text) => text === "c");
  await eventually(() => bodies("/", 50), isOurs, "all are chosen by it");
  const byKey = async (key: string) =>
    (await get(proxy.port("main"), "/", { headers: { "x-key": key } })).text;
  const keys = Array.from({ length: 20 }, (_, k) => `key-${k}`);
  const twice = () => Promise.all([...keys, ...keys].map(byKey));
  const agree = (answers: readonly string[]) =>
    answers.every((text, k) => text === answers[(k + keys.length) % answers.length]);
  const answers = await eventually(twice, agree, "a key leads to the same host");
  expect(new Set(answers)).toEqual(new Set(["a", "b", "c"]));
});

test("it chooses for a filter that asks its cluster from another sandbox", async () => {
  const isOurs = (answers: readonly string[]) => answers.every((text) => text === "asked c");
  await eventually(() => bodies("/asks", 10), isOurs, "all are chosen by it");
});

test("new code of it takes over with the next request, and none is lost", async () => {
  let on = true;
  const seen: string[] = [];
  const asking = (async () => {
    while (on) seen.push(...(await bodies("/", 4)));
  })();
  proxy.write("filters/mine.ts", balancer("return hosts[0];"));
  await proxy.line(/reloaded balancer\/mine \(generation 2\)/);
  on = false;
  await asking;
  const isNew = (answers: readonly string[]) => answers.every((text) => text === "a");
  await eventually(() => bodies("/", 4), isNew, "all are chosen by the new code");
  expect(seen.filter((text) => !/^[abc]$/.test(text))).toEqual([]);
});

test("one that never returns costs its own requests only", async () => {
  proxy.write("filters/mine.ts", balancer("for (;;) {}"));
  await proxy.line(/reloaded balancer\/mine \(generation 3\)/);
  const [bad, plain] = await Promise.all([
    get(proxy.port("main"), "/"),
    get(proxy.port("main"), "/plain"),
  ]);
  expect([bad.status, plain.status]).toEqual([503, 200]);
  await proxy.line(/fault: balancer\/mine: .*: entry: it was stopped/);
  // It has been built anew, and as long as it is looked at more closely hosts take turns.
  const served = (answers: readonly string[]) => answers.every((text) => /^[abc]$/.test(text));
  await eventually(() => bodies("/", 6), served, "requests are served in turn");
});
