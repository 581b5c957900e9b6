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

const CALL =
  'h:httpCall("origin", { [":method"] = "GET", [":path"] = "/", [":authority"] = "a" }, nil, 5000';
const onRequest = (code: string): string => `function envoy_on_request(h) ${code} end`;
/** Where else a script may be when it begins to want too much. */
const PLACES = {
  response: (code: string) => `function envoy_on_response(h) ${code} end`,
  body: (code: string) => onRequest(`h:body() ${code}`),
  chunks: (code: string) => onRequest(`for chunk in h:bodyChunks() do ${code} end`),
  response_body: (code: string) => `function envoy_on_response(h) h:body() ${code} end`,
  httpCall: (code: string) => onRequest(`${CALL}) ${code}`),
  asynchronous: (code: string) => onRequest(`for k = 1, 50 do ${CALL}, true) end ${code}`),
  coroutine: (code: string) => onRequest(`coroutine.wrap(function() ${code} end)()`),
  metamethod: (code: string) =>
    onRequest(`local t = setmetatable({}, { __index = function() ${code} end }) return t.x`),
  context: (code: string) =>
    onRequest(`local c = h:filterContext():get("deep") while c do ${code} end`),
} as const;
const PLACE_NAMES = Object.keys(PLACES) as (keyof typeof PLACES)[];
const ERRORS = "http.test.lua.errors";
const EVERYWHERE = ["loop", "strings", "rep", "tables", "recursion", "pattern"] as const;

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
let config: (filter: Json) => Json;
beforeAll(async () => {
  upstream = await httpUpstream((request, response) => {
    request.resume();
    request.on("end", () => response.end("healthy"));
  });
  const attacked = NAMES.map((name) => {
    const inline_string = `function envoy_on_request(h) h:headers():add("x-before", "1") ${ATTACKS[name]} end`;
    return { ...route(`/${name}`, "origin"), ...own({ source_code: { inline_string } }) };
  });
  const placed = PLACE_NAMES.flatMap((place) =>
    EVERYWHERE.map((name) => {
      const inline_string = PLACES[place](ATTACKS[name]);
      const filter_context = { deep: { list: [1, "two"] } };
      const route_ = route(`/${place}/${name}`, "origin");
      return { ...route_, ...own({ source_code: { inline_string }, filter_context }) };
    }),
  );
  // Skipped by the connection manager: nothing that befalls the sandbox is felt here.
  const off = { "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", disabled: true };
  const healthy = {
    ...route("/", "origin"),
    typed_per_filter_config: { "envoy.filters.http.lua": off },
  };
  const routes = [...placed, ...attacked, route("/lua", "origin"), healthy];
  config = (filter) =>
    bootstrap(
      [listener("main", http(routes, {}, [filter]))],
      [cluster("origin", [upstream.port], unlimited)],
    );
  proxy = await Proxy.start({ config: config(lua), concurrency: 1 });
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

test.each(PLACE_NAMES)("nor does it in: %s", async (place) => {
  const port = proxy.port("main");
  const before = await proxy.stat(ERRORS);
  const healthy = new Healthy(port, 2);
  const ask = { method: "POST", body: "a body" };
  for (const name of EVERYWHERE) {
    const answer = await get(port, `/${place}/${name}`, ask).then(
      ({ status }) => status,
      (error: Error) => error.message,
    );
    expect([200, 500], name).toContain(answer);
  }
  await healthy.stop();
  expect(healthy.failures).toEqual([]);
  await eventually(
    async () => {
      const now = await proxy.stat(ERRORS);
      // Requests pass the sandbox by for some seconds after too many faults in a row.
      if (now === before) await get(port, `/${place}/loop`, ask).catch(() => undefined);
      return now;
    },
    (now) => now > before,
    "the scripts were stopped",
  );
  expect(proxy.output).not.toMatch(/died|starting it again|was lost/);
});

test("a script that does not come to an end where it is loaded is refused with its config, and what runs goes on", async () => {
  const healthy = new Healthy(proxy.port("main"), 2);
  const inline_string = "local t = {} while true do t[#t + 1] = #t end";
  const { typed_config } = lua as { typed_config: Json };
  proxy.reconfigure(
    config({ ...lua, typed_config: { ...typed_config, default_source_code: { inline_string } } }),
  );
  await proxy.line(/script load error: script (ran for|made tables)/);
  await healthy.stop();
  expect(healthy.failures).toEqual([]);
  await eventually(
    () => get(proxy.port("main"), "/lua"),
    (answer) => answer.status === 200,
    "the scripts of before run",
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
