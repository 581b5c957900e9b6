import type http from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BAD_NAMES, type BadFilter, Healthy, openBadFilters, provoke } from "./containing.ts";
import type { Proxy } from "./proxy.ts";
import type { Upstream } from "./upstream.ts";

/** Clients of the healthy route, and requests to each bad one. `test/bench/containment.ts` does more of both. */
const CLIENTS = 2;
const PROVOCATIONS = 4;

/** A promise that never settles is given up after 10 s: once is enough. */
const timesOf = (name: BadFilter) => (name === "never" ? 1 : PROVOCATIONS);

let proxy: Proxy;
let upstream: Upstream<http.Server>;
let healthy: Healthy;
const answers = new Map<BadFilter, (number | string)[]>();

beforeAll(async () => {
  ({ proxy, upstream } = await openBadFilters());
  healthy = new Healthy(proxy.port("main"), CLIENTS);
  await Promise.all(
    BAD_NAMES.map(async (name) => {
      const own: (number | string)[] = [];
      answers.set(name, own);
      for (let n = 0; n < timesOf(name); n++) own.push(await provoke(proxy.port("main"), name));
    }),
  );
  await healthy.stop();
});
afterAll(async () => {
  await proxy?.stop();
  await upstream?.close();
});

// How quick it stays is for test/bench/containment.ts.
test("the healthy route of the same worker loses nothing", () => {
  expect(healthy.failures).toEqual([]);
  expect(healthy.tookMs.length).toBeGreaterThan(0);
});

test("no worker and no process died of it", () => {
  expect(proxy.output).not.toMatch(/died|starting it again|was lost/);
});

const FAILS: readonly BadFilter[] = [
  "spin",
  "hoard",
  "reject",
  "throw_request_headers",
  "throw_request_body",
  "throw_response_headers",
  "nonsense",
];
test.each(FAILS)("%s costs its own requests a 500, each of them", (name) => {
  expect(answers.get(name)).toEqual(Array(PROVOCATIONS).fill(500));
});

test("a promise that never settles ends in a 504, and holds nobody else up", () => {
  expect(answers.get("never")).toEqual([504]);
});

test("a throw past the response's head cuts that response off", () => {
  for (const answer of answers.get("throw_response_body")!) expect(answer).not.toBe(200);
});

test("a throw at the very end changes nothing for the client", () => {
  expect(answers.get("throw_end")).toEqual(Array(PROVOCATIONS).fill(200));
});

test("an evil pattern takes linear time, as in RE2", () => {
  expect(answers.get("backtrack")).toEqual(Array(PROVOCATIONS).fill(200));
});

test("each fault is counted, and told with the filter's name", async () => {
  const stat = await proxy.stats();
  for (const name of ["spin", "hoard"] as const) {
    expect(stat(`filters.http.${name}.fault`)).toBeGreaterThan(0);
    expect(proxy.lines.some(({ msg }) => msg.includes(`http/${name}`))).toBe(true);
  }
});
