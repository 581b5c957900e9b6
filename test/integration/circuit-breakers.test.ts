import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import {
  bootstrap,
  cluster,
  direct,
  http as httpFilter,
  type Json,
  listener,
  route,
} from "./config.ts";
import { Proxy, ROOT } from "./proxy.ts";
import { httpUpstream } from "./upstream.ts";

const LIMIT = 10;
const CLIENTS = 64;

/** An upstream that is slow, and knows how many requests it has had at once. */
async function slowUpstream(ms: number) {
  let active = 0;
  const most = { requests: 0 };
  const upstream = await httpUpstream((_request, response) => {
    active++;
    most.requests = Math.max(most.requests, active);
    setTimeout(() => {
      active--;
      response.end("ok");
    }, ms);
  });
  return { upstream, most };
}

function start(port: number, limits: Json): Promise<Proxy> {
  const circuit_breakers = { thresholds: [{ max_pending_requests: 1000, ...limits }] };
  return Proxy.start({
    concurrency: 4,
    config: bootstrap(
      [listener("main", httpFilter([route("/", "slow", { timeout: "30s" })]))],
      [cluster("slow", [port], { circuit_breakers })],
    ),
  });
}

async function statuses(proxy: Proxy, requests: number): Promise<ReadonlyMap<number, number>> {
  const counts = new Map<number, number>();
  const clients = Array.from({ length: CLIENTS }, async () => {
    for (let k = 0; k < requests; k++) {
      const { status } = await get(proxy.port("main"), "/");
      counts.set(status, (counts.get(status) ?? 0) + 1);
    }
  });
  await Promise.all(clients);
  return counts;
}

test("max_connections holds across workers, and everybody who waits is served", async () => {
  const { upstream, most } = await slowUpstream(20);
  const proxy = await start(upstream.port, { max_connections: LIMIT });
  const counts = await statuses(proxy, 4);
  expect([...counts]).toEqual([[200, CLIENTS * 4]]);
  expect(most.requests).toBeLessThanOrEqual(LIMIT);
  expect(most.requests).toBeGreaterThan(LIMIT / 2);
  await proxy.untilStat("cluster.slow.upstream_rq_active", 0);
  await proxy.stop();
  await upstream.close();
});

test("max_requests holds across workers, the others are told to come again", async () => {
  const { upstream, most } = await slowUpstream(50);
  const proxy = await start(upstream.port, { max_requests: LIMIT });
  const counts = await statuses(proxy, 4);
  expect(most.requests).toBe(LIMIT);
  expect((counts.get(200) ?? 0) + (counts.get(503) ?? 0)).toBe(CLIENTS * 4);
  expect(counts.get(503)).toBeGreaterThan(0);
  // As many again: nothing is left of those before.
  most.requests = 0;
  await statuses(proxy, 1);
  expect(most.requests).toBe(LIMIT);
  await proxy.stop();
  await upstream.close();
});

test("what an isolate held is free again when it has been killed in mid-request", async () => {
  // A copy of the shipped filters, whose router never comes back from one path.
  const shipped = mkdtempSync(path.join(os.tmpdir(), "tsproxy-shipped-"));
  const filter = (source: string) => !source.endsWith("node_modules");
  cpSync(path.join(ROOT, "filters"), shipped, { recursive: true, filter });
  const router = path.join(shipped, "http/router/router.ts");
  const source = readFileSync(router, "utf8");
  const entry = "  route(stream: HttpStream): RoutedRequest {\n";
  expect(source).toContain(entry);
  const spin = 'if (stream.request.path === "/spin") while (true) {}\n';
  writeFileSync(router, source.replace(entry, entry + spin));

  const held: (() => void)[] = [];
  let active = 0;
  const upstream = await httpUpstream((_request, response) => {
    active++;
    held.push(() => response.end("ok"));
  });
  const proxy = await Proxy.start({
    concurrency: 1,
    env: { TSPROXY_SHIPPED_FILTERS: shipped },
    config: bootstrap(
      [
        listener(
          "main",
          httpFilter([direct("/ready", "yes"), route("/", "slow", { timeout: "30s" })]),
        ),
      ],
      [
        cluster("slow", [upstream.port], {
          circuit_breakers: { thresholds: [{ max_requests: LIMIT }] },
        }),
      ],
    ),
  });
  const fill = async () => {
    const asked = Array.from({ length: LIMIT + 1 }, () => get(proxy.port("main"), "/"));
    for (const answer of asked) answer.catch(() => {});
    expect((await Promise.any(asked)).status).toBe(503);
    return asked;
  };
  const lost = await fill();
  expect(active).toBe(LIMIT);
  await get(proxy.port("main"), "/spin").catch(() => {});
  await Promise.allSettled(lost);
  await proxy.line(/the isolate of the shipped filters was lost/);
  const ready = () => get(proxy.port("main"), "/ready").catch(() => undefined);
  await eventually(ready, (answer) => answer?.text === "yes", "the isolate built anew");
  held.length = 0;
  // The isolate is built anew: the same limit, and nobody in it.
  const again = await fill();
  expect(held.length).toBe(LIMIT);
  for (const release of held) release();
  const answers = await Promise.all(again);
  expect(answers.filter(({ status }) => status === 200).length).toBe(LIMIT);
  // What the dead isolate gauged is over, and no two names count in one cell.
  const stat = await proxy.stats();
  expect(stat("http.test.downstream_rq_active")).toBe(0);
  expect(stat("cluster.slow.upstream_rq_active")).toBe(0);
  expect(stat("cluster.slow.upstream_rq_total")).toBe(2 * LIMIT);
  await proxy.stop();
  await upstream.close();
  rmSync(shipped, { recursive: true, force: true });
});
