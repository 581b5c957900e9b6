import type { ClusterType, HostNames, ProvidedBalancer } from "@tsproxy/sdk";
import { requestHeaders, TestContext, TestHost, TestMade } from "@tsproxy/sdk/testing";
import { beforeEach, expect, it } from "vitest";
import forward from "./filter.ts";

let cx: TestContext;
let made: TestMade;
let worker: ProvidedBalancer;
let type: ClusterType;
const stops: (() => void)[] = [];

const host = (port: number) => new TestHost({ ip: "10.0.0.1", port });
const resolve = (authority: string, waitMs = 5_000) =>
  (worker.names as HostNames).resolve(authority, undefined, waitMs);
const names = () => [...made.names];

beforeEach(() => {
  cx = new TestContext();
  made = new TestMade();
  open({});
});

/** The thread that makes clusters, and a worker. */
function open(config: object): void {
  for (const stop of stops.splice(0)) stop();
  const sub_clusters_config = {
    lb_policy: "RANDOM",
    max_sub_clusters: 2,
    sub_cluster_ttl: 1_000,
    ...config,
  };
  cx.role = "control";
  type = cx.setup(forward, { sub_clusters_config });
  stops.push(type.discover!(() => {}, cx, made) as () => void);
  cx.role = "worker";
  worker = type.provide!({
    stats: cx.stats.scope("cluster.c."),
    at: () => undefined,
    hosts: [],
    made,
    find: () => undefined,
    defaultPort: 80,
    sweep: () => {},
  });
}

it("makes a cluster for each host at the first request, which waits until it is ready", async () => {
  const waiting = resolve("a.test:8080");
  expect(made.made.get("DFPCluster:a.test:8080")).toEqual({
    type: "STRICT_DNS",
    lb_policy: "RANDOM",
    load_assignment: {
      cluster_name: "DFPCluster:a.test:8080",
      endpoints: [
        {
          lb_endpoints: [
            {
              endpoint: {
                address: { socket_address: { address: "a.test", port_value: 8080 } },
              },
            },
          ],
        },
      ],
    },
  });
  const target = host(8080);
  made.begin("DFPCluster:a.test:8080", target);
  expect(await waiting).toBe("known");
  expect(resolve("a.test:8080")).toBe("known");
  const head = requestHeaders("GET", "/", "host", "a.test:8080");
  expect(worker.choose({ head })).toBe(target);
  expect(worker.choose({ head: requestHeaders("GET", "/", "host", "b.test") })).toBeUndefined();
});

it("calls it as Envoy does", () => {
  open({ max_sub_clusters: 10 });
  const called: [string, string][] = [
    ["a.test", "DFPCluster:a.test:80"],
    ["[::1]:7", "DFPCluster:::1:7"],
    ["a.test:99999", "DFPCluster:a.test:99999:80"],
    ["a.test:", "DFPCluster:a.test::80"],
    ["", "DFPCluster::80"],
  ];
  for (const [authority] of called) void resolve(authority);
  expect(names()).toEqual(called.map(([, name]) => name));
});

it("refuses hosts beyond max_sub_clusters, and goes on with those that there are", async () => {
  void resolve("a.test");
  void resolve("b.test");
  expect(await resolve("c.test")).toBe("sub_cluster_overflow");
  expect(names()).toEqual(["DFPCluster:a.test:80", "DFPCluster:b.test:80"]);
  const late = resolve("a.test");
  made.begin("DFPCluster:a.test:80", host(80));
  expect(await late).toBe("known");
});

it("lets a request wait no longer than its filter says", async () => {
  const waiting = resolve("a.test", 300);
  const longer = resolve("a.test", 400);
  cx.clock.advance(350);
  expect(await waiting).toBe("sub_cluster_timeout");
  made.begin("DFPCluster:a.test:80", host(80));
  expect(await longer).toBe("known");
});

it("removes a cluster that no request has named for its ttl", () => {
  void resolve("a.test");
  made.begin("DFPCluster:a.test:80", host(80));
  for (let k = 0; k < 30; k++) {
    cx.clock.advance(200);
    expect(resolve("a.test")).toBe("known");
  }
  expect(names()).toHaveLength(1);
  cx.clock.advance(2_100);
  expect(names()).toEqual([]);
  void resolve("a.test");
  expect(names()).toHaveLength(1);
});

it("removes those that an earlier generation has made as well", () => {
  made.put("DFPCluster:old.test:80", {});
  cx.clock.advance(3_100);
  expect(names()).toEqual([]);
});

it("makes none while another generation serves, and sends who waits to that one", async () => {
  made.serves = false;
  const waiting = resolve("a.test");
  expect(names()).toEqual([]);
  worker.dispose!();
  expect(await waiting).toBe("again");
});

it("does not make again what an earlier generation was asked for", () => {
  made.serves = false;
  void resolve("a.test");
  made.serves = true;
  open({});
  expect(names()).toEqual([]);
});

it("refuses CLUSTER_PROVIDED, and a config without either kind of hosts", () => {
  expect(() => open({ lb_policy: "CLUSTER_PROVIDED" })).toThrow(
    "unsupported lb_policy 'CLUSTER_PROVIDED' in sub_cluster_config",
  );
  expect(() => cx.setup(forward, {})).toThrow("is missing");
});
