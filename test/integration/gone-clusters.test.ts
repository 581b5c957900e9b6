import http from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, cluster, listener, http as manager, route } from "./config.ts";
import { Proxy } from "./proxy.ts";

const RELOADS = 20;
let upstream: http.Server;
let port: number;
let proxy: Proxy | undefined;

beforeEach(async () => {
  upstream = http.createServer((_request, response) => response.end("yes"));
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  port = (upstream.address() as AddressInfo).port;
});
afterEach(async () => {
  await proxy?.stop();
  upstream.close();
  upstream.closeAllConnections();
});

test("what a cluster has counted in goes with it when a reload takes it away, and what others have counted stays", async () => {
  const more = {
    circuit_breakers: { thresholds: [{ track_remaining: true, max_connections: 10 }] },
    outlier_detection: {},
  };
  /** The route says its turn in a header, so that a test can tell when a config serves. */
  const config = (nth: number) =>
    bootstrap(
      [
        listener(
          "main",
          manager([
            route("/kept", "kept"),
            route("/idle", "idle"),
            {
              ...route("/", `turn${nth}`),
              response_headers_to_add: [{ header: { key: "x-turn", value: String(nth) } }],
            },
          ]),
        ),
      ],
      [...["kept", "idle", `turn${nth}`].map((name) => cluster(name, [port], more))],
    );
  proxy = await Proxy.start({ config: config(0), concurrency: 2 });
  const at = (path: string) => get(proxy!.port("main"), path);
  const turn = (nth: number) =>
    eventually(
      () => at("/"),
      ({ headers }) => headers["x-turn"] === String(nth),
      `turn ${nth}`,
    );
  const names = async () => (await proxy!.admin("/stats")).match(/^[^:]+/gm)!;
  await at("/idle");
  await turn(0);
  await at("/kept");
  for (let nth = 1; nth <= RELOADS; nth++) {
    proxy.reconfigure(config(nth));
    await turn(nth);
    await at("/kept");
  }
  const turns = async () => [
    ...new Set((await names()).flatMap((name) => /^cluster\.(turn\d+)\./.exec(name)?.[1] ?? [])),
  ];
  await eventually(
    turns,
    (found) => found.length === 1 && found[0] === `turn${RELOADS}`,
    "the last turn's stats alone",
  );
  const stat = await proxy.stats();
  expect(stat("cluster.kept.upstream_rq_total")).toBe(RELOADS + 1);
  // Not asked for since the first config, so that most generations never set it up.
  expect(stat("cluster.idle.upstream_rq_total")).toBe(1);
  const breaker = "circuit_breakers.default.remaining_cx";
  expect(stat(`cluster.turn${RELOADS}.${breaker}`)).toBeGreaterThan(0);
  expect(stat("cluster_manager.cluster_removed")).toBe(RELOADS);
});

test("a config that takes away a cluster which a route of an unchanged listener names is refused, as it would be at a start", async () => {
  const config = (names: readonly string[]) =>
    bootstrap(
      [listener("main", manager([route("/", "kept")]))],
      names.map((name) => cluster(name, [port])),
    );
  proxy = await Proxy.start({ config: config(["kept"]), concurrency: 2 });
  proxy.reconfigure(config(["other"]));
  await proxy.line(/unknown cluster "kept"[^]*the config of before goes on/);
  expect((await get(proxy.port("main"), "/")).status).toBe(200);
  proxy.reconfigure(config(["other", "kept"]));
  await proxy.line(/reloaded/);
  expect((await get(proxy.port("main"), "/")).status).toBe(200);
});
