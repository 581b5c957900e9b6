import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, cluster, http, type Json, listener, route, unlimited } from "./config.ts";
import { Healthy } from "./containing.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

const PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute";

/** Scripts that want more than there is, each on a route of its own. */
const ATTACKS = {
  loop: "while true do end",
  caught: "while true do pcall(function() while true do end end) end",
  strings: "local s = 'x' while true do s = s .. s end",
  rep: "local t = {} for i = 1, 1e6 do t[i] = ('x'):rep(1e7) end",
  tables: "local t = {} for i = 1, 1e9 do t[i] = { i } end",
  recursion: "local function f() return 1 + f() end f()",
  branching: "local function f(n) if n > 0 then f(n - 1) f(n - 1) end end f(60)",
  pattern: "while true do (('a'):rep(3000)):find(('.-'):rep(20) .. 'b') end",
  gsub: "('x'):rep(1e6):gsub('.', ('y'):rep(1e6))",
  sort: "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.sort(t, function() return true end) end",
  format: "while true do ('%99.99f'):format(1e300) end",
  coroutines: "while true do coroutine.wrap(function() coroutine.yield() end)() end",
  load: "while true do loadstring('return ' .. os.time())() end",
} as const;
const NAMES = Object.keys(ATTACKS) as (keyof typeof ATTACKS)[];

const own = (settings: Json): Json => ({
  typed_per_filter_config: { "envoy.filters.http.lua": { "@type": PER_ROUTE, ...settings } },
});
const lua: Json = {
  name: "envoy.filters.http.lua",
  typed_config: {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
    default_source_code: {
      inline_string: "function envoy_on_request(h) h:headers():add('x-lua', '1') end",
    },
  },
};

let proxy: Proxy;
let upstream: Upstream;
beforeAll(async () => {
  upstream = await httpUpstream((request, response) => {
    request.resume();
    request.on("end", () => response.end("healthy"));
  });
  const attacked = NAMES.map((name) => {
    const inline_string = `function envoy_on_request(h) h:headers():add("x-before", "1") ${ATTACKS[name]} end`;
    return { ...route(`/${name}`, "origin"), ...own({ source_code: { inline_string } }) };
  });
  // Skipped by the connection manager: nothing that befalls the sandbox is felt here.
  const off = { "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", disabled: true };
  const healthy = {
    ...route("/", "origin"),
    typed_per_filter_config: { "envoy.filters.http.lua": off },
  };
  proxy = await Proxy.start({
    config: bootstrap(
      [listener("main", http([...attacked, route("/lua", "origin"), healthy], {}, [lua]))],
      [cluster("origin", [upstream.port], unlimited)],
    ),
    concurrency: 1,
  });
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

test("a script that wants too much costs its own stream at most; others of the worker lose nothing", async () => {
  const port = proxy.port("main");
  const healthy = new Healthy(port, 4);
  for (const name of NAMES) {
    const answer = await get(port, `/${name}`).then(
      ({ status }) => status,
      (error: Error) => error.message,
    );
    // Stopped by its own meter it goes on; stopped with its isolate it is answered by the failure policy.
    expect([200, 500], name).toContain(answer);
  }
  await healthy.stop();
  expect(healthy.failures).toEqual([]);
  expect(healthy.tookMs.length).toBeGreaterThan(NAMES.length);
  await eventually(
    () => get(port, "/lua"),
    (answer) => answer.status === 200,
    "other scripts run again",
  );
});

test("a loop is an error of its script: logged, counted, and the stream goes on", async () => {
  const port = proxy.port("main");
  await eventually(
    () => get(port, "/loop"),
    (answer) => answer.status === 200 && answer.text === "healthy",
    "the stream goes on",
  );
  await proxy.line(/script ran for more than 100 ms/);
});
