import {
  type ClusterManagerStatus,
  defineCluster,
  type HostSpec,
  type MadeClusters,
  type ReadyClusters,
  type Service,
  Type,
} from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { beforeEach, expect, it } from "vitest";
import clusterManager from "./filter.ts";
import {
  ask,
  cluster,
  connected,
  cx,
  discoverer,
  endTurn,
  equip,
  listedCluster,
  say,
  spec,
  start,
  useContext,
} from "./test-clusters.ts";

let made: MadeClusters;
let ready: ReadyClusters;
/** Names of made clusters as they got ready. */
let told: string[];

/** A cluster type whose clusters the test makes. */
const maker = defineCluster({
  name: "maker",
  config: Type.Unsafe<object>({ type: "object" }),
  setup: () => ({
    initialHosts: [],
    discover: (update, _cx, clusters) => {
      made = clusters;
      update([]);
    },
    provide: (own) => {
      ready = own.made;
      own.made.onReady = (name) => told.push(name);
      return { choose: () => undefined };
    },
  }),
});
const parent = (more: object = {}) => ({
  name: "parent",
  type: "STATIC",
  cluster_type: { name: "maker", package: "cluster/maker", config: {} },
  lb_policy: "CLUSTER_PROVIDED",
  connect_timeout: 250,
  ...more,
});
const fields = (hosts: HostSpec[] = [spec("10.0.0.1")]) => ({
  type: "STATIC",
  lb_policy: "ROUND_ROBIN",
  hosts,
});
const discovered = { type: "STRICT_DNS", lb_policy: "ROUND_ROBIN" };
const total = (name: string) => cx.stats.value(`cluster_manager.${name}`);
const status = (service: Service): ClusterManagerStatus => service.clusters!.status!()!;

beforeEach(() => {
  useContext();
  cx.role = "control";
  cx.define("cluster/maker", maker);
  told = [];
});

/** The next generation, with this config: prepared, and put into service by `commit`. */
function reload(config: object): { service: Service; commit: () => void } {
  const before = cx;
  const next = equip(new TestContext(before)).define("cluster/maker", maker);
  next.role = before.role;
  next.previous = before.handover!();
  next.join(before);
  useContext(next);
  const service = next.setup(clusterManager, [config]);
  return { service, commit: () => before.dispose() };
}

it("adds a cluster, which is used like any other, and like its parent but for its own fields", () => {
  const service = start(parent());
  expect(made.put("m", fields())).toBe(true);
  expect([...made.names]).toEqual(["m"]);
  expect(told).toEqual(["m"]);
  expect(ready.has("m")).toBe(true);
  expect(cluster(service, "m").connectTimeoutMs).toBe(250);
  expect(ready.choose("m", {})?.key).toBe("10.0.0.1:80");
  const caller = ask(cluster(service, "m"));
  connected(0);
  say(0, "ok ");
  expect(caller.responses).toBe(1);
  expect([total("cluster_added"), total("active_clusters")]).toEqual([2, 2]);
});

it("finds a cluster only once its first hosts are known", () => {
  const service = start(parent());
  made.put("m", discovered);
  expect(service.clusters!.get("m")).toBeUndefined();
  expect([ready.has("m"), total("warming_clusters"), total("active_clusters")]).toEqual([
    false,
    1,
    1,
  ]);
  expect(status(service).clusters[1]!.made).toMatchObject({ parent: "parent", warming: true });
  discoverer.updates[0]!([], 0, false);
  expect(told).toEqual([]);
  discoverer.updates[0]!([spec("10.0.0.9")]);
  expect(told).toEqual(["m"]);
  expect(ready.choose("m", {})?.key).toBe("10.0.0.9:80");
  expect([total("warming_clusters"), total("active_clusters")]).toEqual([0, 2]);
  expect(status(service).clusters[1]).toMatchObject({
    addedViaApi: true,
    made: { warming: false },
  });
});

it("puts another config in the place of one", () => {
  start(parent());
  made.put("m", fields());
  made.put("m", fields([spec("10.0.0.2")]));
  expect(ready.choose("m", {})?.key).toBe("10.0.0.2:80");
  expect([...made.names]).toEqual(["m"]);
});

it("removes a cluster: what goes on ends as it would have, then its counts are given back", () => {
  const service = start(parent());
  made.put("m", fields());
  const caller = ask(cluster(service, "m"));
  connected(0);
  made.remove("m");
  expect([ready.has("m"), service.clusters!.get("m")]).toEqual([false, undefined]);
  expect([total("cluster_removed"), total("active_clusters")]).toEqual([1, 1]);
  expect(status(service).clusters).toHaveLength(1);
  expect([...cx.published.keys()].filter((topic) => topic.includes("/m"))).toEqual([]);
  say(0, "ok ");
  expect(caller.responses).toBe(1);
});

it("refuses names of the config, and says which config cannot be made", () => {
  start(parent(), listedCluster("c", [spec("10.0.0.1")]));
  expect(made.put("c", fields())).toBe(false);
  made.put("bad", fields([spec("name")]));
  expect(cx.logged.at(-1)).toMatchObject({
    message: "a cluster cannot be made",
    fields: { cluster: "bad", error: "malformed IP address" },
  });
  expect([ready.has("bad"), total("cluster_added")]).toEqual([false, 2]);
  made.remove("bad");
  expect([...made.names]).toEqual([]);
});

it("goes on with made clusters after a reload, whose generation alone makes them from then on", () => {
  start(parent());
  made.put("m", fields());
  const before = made;
  const { service, commit } = reload(parent());
  expect([made.serves, made.put("n", fields())]).toEqual([false, false]);
  expect(cluster(service, "m").hosts).toHaveLength(1);
  commit();
  expect([before.serves, made.serves, [...made.names]]).toEqual([false, true, ["m"]]);
  expect([total("cluster_added"), total("cluster_removed"), total("active_clusters")]).toEqual([
    2, 0, 2,
  ]);
  made.remove("m");
  expect(service.clusters!.get("m")).toBeUndefined();
});

it("removes them with a parent that is another one after a reload, and not before", () => {
  start(parent());
  made.put("m", fields());
  const { service, commit } = reload(parent({ connect_timeout: 500 }));
  expect(service.clusters!.get("m")).toBeUndefined();
  expect(cx.published.has("clusters/made/m")).toBe(true);
  commit();
  expect(cx.published.has("clusters/made/m")).toBe(false);
  expect([...made.names]).toEqual([]);
});

it("sets up on a worker what the control thread has made, also before the worker was there", () => {
  const control = cx;
  start(parent());
  made.put("early", fields());
  const worker = equip(new TestContext(control)).define("cluster/maker", maker);
  worker.join(control);
  useContext(worker);
  const fromControl = made;
  const service = start(parent());
  expect(told).toEqual(["early", "early"]);
  fromControl.put("late", fields());
  expect(cluster(service, "late").hosts).toHaveLength(1);
  fromControl.remove("early");
  expect(service.clusters!.get("early")).toBeUndefined();
});

it("finds a cluster that is made again while the one before it drains", () => {
  const control = cx;
  start(parent());
  const fromControl = made;
  useContext(equip(new TestContext(control)).define("cluster/maker", maker));
  cx.join(control);
  const service = start(parent());
  const hosts = [spec("10.0.0.1")];
  fromControl.put("m", discovered);
  discoverer.updates[0]!(hosts);
  const caller = ask(cluster(service, "m"));
  connected(0);
  fromControl.remove("m");
  fromControl.put("m", discovered);
  expect(ready.has("m")).toBe(false);
  discoverer.updates[1]!(hosts);
  expect(ready.choose("m", {})?.key).toBe("10.0.0.1:80");
  say(0, "ok ");
  expect(caller.responses).toBe(1);
});

it("leaves no names of hosts behind", () => {
  const service = start(parent());
  const { hostNames } = cx.handover!() as { hostNames: Set<string> };
  for (let k = 0; k < 3; k++) {
    made.put("m", fields());
    const caller = ask(cluster(service, "m"));
    connected(k);
    expect(hostNames.size).toBe(1);
    made.remove("m");
    say(k, "bye ");
    expect(caller.responses).toBe(1);
    endTurn();
    cx.clock.advance(1_000);
    expect(hostNames.size).toBe(0);
  }
});
