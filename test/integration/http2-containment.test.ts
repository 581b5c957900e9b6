import type http from "node:http";
import http2 from "node:http2";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BAD_NAMES, type BadFilter, openBadFilters } from "./containing.ts";
import { StreamLoad } from "./http2-load.ts";
import type { Proxy } from "./proxy.ts";
import type { Upstream } from "./upstream.ts";

const PROVOCATIONS = 4;
/** A promise that never settles is given up after 10 s: once is enough. */
const timesOf = (name: BadFilter) => (name === "never" ? 1 : PROVOCATIONS);

let proxy: Proxy;
let upstream: Upstream<http.Server>;
let load: StreamLoad;
const answers = new Map<BadFilter, (number | "reset")[]>();

beforeAll(async () => {
  ({ proxy, upstream } = await openBadFilters());
  load = new StreamLoad({
    connect: () => http2.connect(`http://127.0.0.1:${proxy.port("main")}`),
    connections: 2,
    streams: 4,
    body: "healthy",
  });
  await load.pass(50);
  await Promise.all(
    BAD_NAMES.map(async (name) => {
      const own: (number | "reset")[] = [];
      answers.set(name, own);
      const body = name === "throw_request_body" ? "a body" : "";
      for (let n = 0; n < timesOf(name); n++) own.push(await load.ask(`/${name}`, body));
    }),
  );
  await load.pass(50);
  await load.stop();
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

test("other streams of the connections on which filters loop, hoard and throw lose nothing", () => {
  expect(load.failures).toEqual([]);
  expect(load.opened).toBe(2);
  expect(proxy.output).not.toMatch(/died|starting it again|was lost/);
});

test("each bad filter costs its own streams only", () => {
  const all = (answer: number | "reset") => Array(PROVOCATIONS).fill(answer);
  expect(Object.fromEntries(answers)).toEqual({
    spin: all(500),
    hoard: all(500),
    backtrack: all(200),
    never: [504],
    reject: all(500),
    throw_request_headers: all(500),
    throw_request_body: all(500),
    throw_response_headers: all(500),
    throw_response_body: all("reset"),
    throw_end: all(200),
    nonsense: all(500),
  });
});
