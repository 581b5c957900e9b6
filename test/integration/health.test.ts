import { expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, cluster, http as httpFilter, type Json, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream } from "./upstream.ts";

const WORKERS = 3;

/** An upstream that answers with its name, and with what the test wants for checks and for requests. */
async function namedUpstream(name: string) {
  const answers = { check: 200, request: 200 };
  const upstream = await httpUpstream((request, response) => {
    response.statusCode = request.url === "/hc" ? answers.check : answers.request;
    response.end(name);
  });
  return { upstream, answers };
}

function start(ports: number[], more: Json): Promise<Proxy> {
  const common_lb_config = { healthy_panic_threshold: { value: 0 }, update_merge_window: "0s" };
  return Proxy.start({
    concurrency: WORKERS,
    config: bootstrap(
      [listener("main", httpFilter([route("/", "c")]))],
      [cluster("c", ports, { common_lb_config, ...more })],
    ),
  });
}

/** Who answers: connections of many clients land on all workers. */
async function answered(proxy: Proxy): Promise<string> {
  const asked = Array.from({ length: 24 }, () => get(proxy.port("main"), "/"));
  const answers = (await Promise.all(asked)).map(({ status, text }) => `${status} ${text}`);
  return [...new Set(answers)].sort().join(", ");
}

function untilAnswered(proxy: Proxy, by: string): Promise<string> {
  const what = `all answers are ${by}`;
  return eventually(
    () => answered(proxy),
    (seen) => seen === by,
    what,
  );
}

test("active checks run once a process, and every worker hears of them", async () => {
  const a = await namedUpstream("a");
  const b = await namedUpstream("b");
  const times = { timeout: "1s", interval: "0.1s", no_traffic_interval: "0.1s" };
  const thresholds = { unhealthy_threshold: 1, healthy_threshold: 1 };
  const health_checks = [{ ...times, ...thresholds, http_health_check: { path: "/hc" } }];
  const proxy = await start([a.upstream.port, b.upstream.port], { health_checks });
  expect(await answered(proxy)).toBe("200 a, 200 b");
  a.answers.check = 503;
  await proxy.untilStat("cluster.c.membership_healthy", 1);
  await untilAnswered(proxy, "200 b");
  a.answers.check = 200;
  await proxy.untilStat("cluster.c.membership_healthy", 2);
  await untilAnswered(proxy, "200 a, 200 b");
  await proxy.stop();
  await Promise.all([a.upstream.close(), b.upstream.close()]);
});

test("failures that workers see one each make one row, and the host is out on all of them", async () => {
  const a = await namedUpstream("a");
  const b = await namedUpstream("b");
  a.answers.request = 500;
  const outlier_detection = {
    consecutive_5xx: 10,
    interval: "0.2s",
    base_ejection_time: "600s",
    max_ejection_time: "600s",
    max_ejection_percent: 50,
  };
  const proxy = await start([a.upstream.port, b.upstream.port], { outlier_detection });
  // 24 requests, each worker's in turn: a fails ten times at least, of which no worker need have seen them all.
  await answered(proxy);
  await proxy.untilStat("cluster.c.outlier_detection.ejections_active", 1);
  await untilAnswered(proxy, "200 b");
  await proxy.stop();
  await Promise.all([a.upstream.close(), b.upstream.close()]);
});
