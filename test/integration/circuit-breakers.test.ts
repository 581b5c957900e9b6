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

/** An upstream that answers when it is told to, and knows how many requests it has had at once. */
async function heldUpstream() {
  const held: (() => void)[] = [];
  const most = { requests: 0 };
  const upstream = await httpUpstream((_request, response) => {
    held.push(() => response.end("ok"));
    most.requests = Math.max(most.requests, held.length);
  });
  return {
    upstream,
    most,
    /** Settles once so many wait for their answers. */
    until: (requests: number) =>
      eventually(
        () => held.length,
        (n) => n === requests,
        `${requests} requests at once`,
      ),
    release: () => {
      for (const answer of held.splice(0)) answer();
    },
    /** They are never answered. */
    forget: () => void held.splice(0),
  };
}

function start(port: number, limits: Json): Promise<Proxy> {
  const circuit_breakers = { thresholds: [{ max_pending_requests: 1000, ...limits }] };
  return Proxy.start({
    concurrency: 4,
    config: bootstrap(
      [listener("main", httpFilter([route("/", "slow")]))],
      [cluster("slow", [port], { circuit_breakers })],
    ),
  });
}

/** What each of so many clients is answered, each on a connection of its own. */
function statuses(proxy: Proxy): Promise<readonly number[]> {
  const asked = Array.from({ length: CLIENTS }, () => get(proxy.port("main"), "/"));
  return Promise.all(asked.map((answer) => answer.then(({ status }) => status)));
}

test("max_connections holds across workers, and everybody who waits is served", async () => {
  const { upstream, most, until, release } = await heldUpstream();
  const proxy = await start(upstream.port, { max_connections: LIMIT });
  const asked = statuses(proxy);
  await until(LIMIT);
  await proxy.untilStat("cluster.slow.upstream_rq_pending_active", CLIENTS - LIMIT);
  const releasing = setInterval(release, 20);
  expect(await asked).toEqual(Array(CLIENTS).fill(200));
  clearInterval(releasing);
  expect(most.requests).toBe(LIMIT);
  await proxy.untilStat("cluster.slow.upstream_rq_active", 0);
  await proxy.stop();
  await upstream.close();
});

test("max_requests holds across workers, the others are told to come again", async () => {
  const { upstream, most, until, release } = await heldUpstream();
  const proxy = await start(upstream.port, { max_requests: LIMIT });
  // Twice: nothing is left of those before.
  for (let round = 1; round <= 2; round++) {
    const asked = statuses(proxy);
    await until(LIMIT);
    await proxy.untilStat("cluster.slow.upstream_rq_active_overflow", round * (CLIENTS - LIMIT));
    release();
    const served = (await asked).filter((status) => status === 200);
    expect([served.length, most.requests]).toEqual([LIMIT, LIMIT]);
    expect((await asked).filter((status) => status === 503).length).toBe(CLIENTS - LIMIT);
  }
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

  const { upstream, until, release, forget } = await heldUpstream();
  const proxy = await Proxy.start({
    concurrency: 1,
    env: { TSPROXY_SHIPPED_FILTERS: shipped },
    config: bootstrap(
      [listener("main", httpFilter([direct("/ready", "yes"), route("/", "slow")]))],
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
    await until(LIMIT);
    return asked;
  };
  const lost = await fill();
  await get(proxy.port("main"), "/spin").catch(() => {});
  await Promise.allSettled(lost);
  await proxy.line(/the isolate of the shipped filters was lost/);
  const ready = () => get(proxy.port("main"), "/ready").catch(() => undefined);
  await eventually(ready, (answer) => answer?.text === "yes", "the isolate built anew");
  forget();
  // The isolate is built anew: the same limit, and nobody in it.
  const again = await fill();
  release();
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
