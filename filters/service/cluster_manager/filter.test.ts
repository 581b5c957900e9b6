import { readdirSync } from "node:fs";
import {
  type Chunk,
  type CloseEvent,
  type Cluster,
  type ConfigError,
  type Connection,
  defineBalancer,
  defineCluster,
  defineTransport,
  type HostSpec,
  latin1Encode,
  Type,
} from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import { ClusterConfig } from "./config.ts";
import { fingerprintOf } from "./handover.ts";
import { healthTopic } from "./health-desk.ts";
import { FLAG } from "./health-flags.ts";
import {
  ask,
  cell,
  close,
  cluster,
  connected,
  cx,
  discoveredCluster,
  discoverer,
  endTurn,
  equip,
  gauges,
  inTurn,
  listedCluster,
  one,
  refused,
  remote,
  say,
  spec,
  start,
  stat,
  useContext,
} from "./test-clusters.ts";
import type { UpstreamCluster } from "./upstream-cluster.ts";

beforeEach(() => useContext());

it("the local cluster is not zone-aware itself, others are", () => {
  const zone = { region: "", zone: "", sub_zone: "" };
  const localities = {
    type: "zone_aware",
    routingEnabled: 100,
    minClusterSize: 1,
    failTrafficOnPanic: false,
    byWeight: false,
  } as const;
  const choose = () => undefined;
  const zoned = defineBalancer({
    name: "zoned",
    config: Type.Object({}),
    setup: () => ({ localities, create: () => ({ choose }) }),
  });
  cx.define("balancer/round_robin", zoned);
  const zones = ["a", "b"].map((name, k) =>
    spec(`10.0.0.${k}`, { locality: { ...zone, zone: name } }),
  );
  cx.node = { ...cx.node, localCluster: "me", locality: { zone: "a" } };
  start(listedCluster("me", zones), listedCluster("other", zones));
  const seen = (name: string) => cx.stats.value(`cluster.${name}.lb_recalculate_zone_structures`);
  expect([seen("me"), seen("other") > 0]).toEqual([0, true]);
});

describe("hosts", () => {
  it("are chosen in turn, each with connections of its own", () => {
    const c = cluster(start(listedCluster("c", [spec("10.0.0.1"), spec("10.0.0.2")])));
    for (let k = 0; k < 4; k++) ask(c);
    expect(cx.opened.map((o) => o.address.ip)).toEqual([
      "10.0.0.1",
      "10.0.0.2",
      "10.0.0.1",
      "10.0.0.2",
    ]);
  });

  it("may be none: the request fails at once", () => {
    const c = cluster(start(listedCluster("c", [])));
    expect(ask(c).failure).toEqual({ reason: "no_host", host: undefined, transportFailure: "" });
    expect(c.connect({ onData: () => {}, onEof: () => {}, onClosed: () => {} }, {})).toBe(
      "no_host",
    );
    expect(stat("cx_none_healthy")).toBe(2);
  });

  it("are listed for admin level by level", () => {
    cx.role = "control";
    const hosts = [spec("10.0.0.1", { priority: 1 }), spec("10.0.0.2"), spec("10.0.0.3")];
    const [only] = start(listedCluster("c", hosts)).clusters!.status!()!.clusters;
    expect(only!.hosts.map(({ ip }) => ip)).toEqual(["10.0.0.2", "10.0.0.3", "10.0.0.1"]);
  });

  it("weigh for admin what their balancer goes by", () => {
    cx.role = "control";
    const hosts = [spec("10.0.0.1", { weight: 7 }), spec("10.0.0.2")];
    const service = start(listedCluster("c", hosts), listedCluster("d", hosts));
    const weights = () =>
      service.clusters!.status!()!.clusters.map((each) => each.hosts.map((host) => host.weight));
    cx.publish("host_weights", {
      cluster: "c",
      weights: [
        ["10.0.0.1:80", 200],
        ["10.0.0.9:80", 3],
      ],
    });
    expect(weights()).toEqual([
      [200, 1],
      [7, 1],
    ]);
  });

  it("keep their identity and connections through an update that still names them", () => {
    const c = cluster(start(discoveredCluster("c")));
    cx.publish("cluster/c/hosts", hostList(c, [spec("10.0.0.1")]));
    const host = c.hosts[0]!;
    ask(c);
    connected(0);
    say(0, "ok");
    cx.publish("cluster/c/hosts", hostList(c, [spec("10.0.0.2"), spec("10.0.0.1", { weight: 7 })]));
    expect(c.hosts.map((h) => h.key)).toEqual(["10.0.0.2:80", "10.0.0.1:80"]);
    expect(c.hosts[1]).toBe(host);
    expect(host.weight).toBe(7);
    ask(c);
    expect(ask(c).connection).toBe(cx.opened[0]!.connection);
  });

  it("that are gone lose their idle connections at once and their busy ones when they end", () => {
    const c = cluster(start(discoveredCluster("c")));
    cx.publish("cluster/c/hosts", hostList(c, [spec("10.0.0.1")]));
    ask(c);
    const busy = ask(c);
    const connecting = ask(c);
    connected(0);
    connected(1);
    say(0, "ok");
    // The first is busy again with the request that was waiting; the second carries `busy`.
    cx.publish("cluster/c/hosts", hostList(c, [spec("10.0.0.2")]));
    expect(cx.opened.map((o) => o.connection.closed)).toEqual([undefined, undefined, undefined]);
    say(0, "ok");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    say(1, "ok");
    expect([busy.responses, connecting.responses]).toEqual([1, 1]);
    expect(cx.opened[1]!.connection.closed).toBe("flush");
    connected(2);
    expect(cx.opened[2]!.connection.closed).toBe("flush");
    endTurn();
    expect(gauges()).toEqual({});
    ask(c);
    expect(cx.opened[3]!.address.ip).toBe("10.0.0.2");
  });

  it("that come back after they were gone begin anew", () => {
    const c = cluster(start(discoveredCluster("c")));
    for (const ips of [["10.0.0.1"], [], ["10.0.0.1"]]) {
      cx.publish(
        "cluster/c/hosts",
        hostList(
          c,
          ips.map((ip) => spec(ip)),
        ),
      );
    }
    ask(c);
    connected(0);
    expect(c.hosts[0]!.activeRequests).toBe(1);
  });

  it("listed twice by a config are two hosts", () => {
    const c = cluster(start(listedCluster("c", [spec("10.0.0.1"), spec("10.0.0.1")])));
    expect(c.hosts).toHaveLength(2);
    expect(c.hosts[0]).not.toBe(c.hosts[1]);
  });

  it("of another config under the same name are not ours", () => {
    const c = cluster(start(discoveredCluster("c")));
    cx.publish("cluster/c/hosts", { config: "{}", hosts: [spec("10.0.0.9")] });
    expect(c.hosts).toEqual([]);
  });

  it("hold a worker's configuration back until the first list has come", async () => {
    const c = cluster(start(discoveredCluster("c")));
    expect(cx.waits).toHaveLength(1);
    let warm = false;
    cx.waits[0]!.then(() => {
      warm = true;
    });
    await Promise.resolve();
    expect(warm).toBe(false);
    cx.publish("cluster/c/hosts", hostList(c, []));
    await Promise.resolve();
    expect(warm).toBe(true);
  });

  it("do not hold it back when wait_for_warm_on_init is false", () => {
    start(discoveredCluster("c", { wait_for_warm_on_init: false }));
    expect(cx.waits).toEqual([]);
  });
});

const hostList = (c: Cluster, hosts: HostSpec[]) => ({
  config: (c as Cluster & { fingerprint: string }).fingerprint,
  hosts,
});

describe("a connection of the caller's own", () => {
  const heard: string[] = [];
  const handler = {
    onConnected: () => void heard.push("connected"),
    onData: (chunk: Chunk) => void heard.push(chunk.text()),
    onEof: () => void heard.push("eof"),
    onClosed: (event: CloseEvent) => void heard.push(`closed by ${event.by}`),
  };
  beforeEach(() => void heard.splice(0));

  it("is passed through, and counted", () => {
    const c = one();
    const opened = c.connect(handler, {});
    if (typeof opened === "string") throw new Error(opened);
    expect(opened.host.key).toBe("10.0.0.1:80");
    connected(0);
    expect([stat("rq_total"), stat("rq_active"), opened.host.activeRequests]).toEqual([1, 1, 1]);
    expect(cx.sharedCount("circuit_breakers|c|default|requests").value).toBe(1);
    opened.connection!.write(latin1Encode("ping"), 0, 4);
    say(0, "pong");
    cx.opened[0]!.handler.onEof();
    close(0, remote);
    expect(heard).toEqual(["connected", "pong", "eof", "closed by remote"]);
    expect([
      stat("cx_total"),
      stat("cx_http1_total"),
      stat("cx_rx_bytes_total"),
      stat("cx_tx_bytes_total"),
    ]).toEqual([1, 0, 4, 4]);
    expect(cx.sharedCount("circuit_breakers|c|default|requests").value).toBe(0);
    expect(gauges()).toEqual({});
  });

  it("counts a source address that cannot be bound as a close of its own", () => {
    const source_address = { address: "192.0.2.7", port_value: 0 };
    one({ upstream_bind_config: { source_address } }).connect(handler, {});
    close(0, { ...refused, error: "EADDRNOTAVAIL" });
    expect([stat("cx_destroy_local"), stat("cx_destroy_remote")]).toEqual([1, 0]);
  });

  it("counts as closed by the side whose half ended last", () => {
    const c = one();
    const local = { ...remote, by: "local" as const };
    for (const endsFirst of ["client", "upstream"]) {
      const { connection } = c.connect(handler, {}) as { readonly connection: Connection };
      const { handler: told } = cx.opened.at(-1)!;
      connected(cx.opened.length - 1);
      if (endsFirst === "client") connection.end();
      told.onEof();
      connection.end();
      close(cx.opened.length - 1, local);
    }
    expect([stat("cx_destroy_remote"), stat("cx_destroy_local")]).toEqual([1, 1]);
  });

  it("counts a refusal and leaves the rest to the caller", () => {
    one().connect(handler, {});
    close(0, refused);
    expect(heard).toEqual(["closed by remote"]);
    expect([stat("cx_destroy_remote"), stat("cx_destroy_with_active_rq")]).toEqual([1, 0]);
    expect([stat("cx_connect_fail"), cell("cx_connect_fail"), stat("rq_total")]).toEqual([1, 1, 0]);
    expect(gauges()).toEqual({});
  });
});

describe("the control thread", () => {
  beforeEach(() => {
    cx.role = "control";
  });

  it("discovers hosts and tells every thread", () => {
    const c = cluster(start(discoveredCluster("c")));
    discoverer.updates[0]!([spec("10.0.0.1")]);
    expect(c.hosts.map((h) => h.key)).toEqual(["10.0.0.1:80"]);
    expect(cx.published.get("cluster/c/hosts")).toEqual(hostList(c, [spec("10.0.0.1")]));
    expect(cx.stats.value("cluster.c.membership_total")).toBe(1);
  });

  it("counts members, their health and their changes", () => {
    start(
      discoveredCluster("c"),
      listedCluster("s", [spec("10.0.0.1"), spec("10.0.0.2", { healthStatus: "UNHEALTHY" })]),
    );
    const value = (name: string) => cx.stats.value(name);
    expect([
      value("cluster.s.membership_total"),
      value("cluster.s.membership_healthy"),
      value("cluster.s.membership_change"),
    ]).toEqual([2, 1, 1]);
    expect([
      value("cluster_manager.active_clusters"),
      value("cluster_manager.cluster_added"),
    ]).toEqual([2, 2]);
    discoverer.updates[0]!([spec("10.0.0.1"), spec("10.0.0.2", { healthStatus: "DEGRADED" })], 2);
    discoverer.updates[0]!([spec("10.0.0.1", { weight: 3 }), spec("10.0.0.2")]);
    expect([
      value("cluster.c.membership_total"),
      value("cluster.c.membership_degraded"),
      value("cluster.c.membership_change"),
    ]).toEqual([2, 0, 2]);
  });

  it("answers what admin shows of clusters and hosts", () => {
    const locality = { region: "r", zone: "z" };
    const metadata = { filter_metadata: { "envoy.lb": { canary: true } } };
    const manager = start(
      listedCluster(
        "c",
        [spec("::1", { locality, metadata, weight: 3, hostname: "h", healthStatus: "DRAINING" })],
        {
          alt_stat_name: "other",
        },
      ),
    );
    expect(manager.clusters!.status!()).toMatchObject({
      clusters: [
        {
          name: "c",
          observabilityName: "other",
          addedViaApi: false,
          thresholds: [{ maxConnections: 1024, maxRetries: 3 }, { maxPendingRequests: 1024 }],
          hosts: [
            {
              key: "[::1]:80",
              weight: 3,
              hostname: "h",
              locality,
              canary: true,
              healthFlags: "/eds_status_draining",
            },
          ],
        },
      ],
    });
  });

  it("renews connections when hosts come or go: close_connections_on_host_set_change", () => {
    const common_lb_config = { close_connections_on_host_set_change: true };
    const c = cluster(start(discoveredCluster("c", { common_lb_config })));
    const first = spec("10.0.0.1");
    discoverer.updates[0]!([first]);
    const busy = ask(c);
    connected(0);
    ask(c);
    connected(1);
    say(1, "ok");
    discoverer.updates[0]!([{ ...first, weight: 3 }]);
    expect([0, 1].map((n) => cx.opened[n]!.connection.closed)).toEqual([undefined, undefined]);
    discoverer.updates[0]!([first, spec("10.0.0.2")]);
    expect([0, 1].map((n) => cx.opened[n]!.connection.closed)).toEqual([undefined, "flush"]);
    say(0, "ok");
    expect(busy.responses).toBe(1);
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    expect(stat("cx_max_requests")).toBe(0);
  });

  it("connects by the transport that the host's new metadata selects", () => {
    const setup = () => ({ secure: true });
    cx.define("transport/tls", defineTransport({ name: "tls", config: Type.Object({}), setup }));
    const transport_socket = { name: "tls", package: "transport/tls", config: {} };
    const matches = [{ name: "secure", match: { secure: true }, transport_socket }];
    const c = cluster(start(discoveredCluster("c", { transport_socket_matches: matches })));
    const host = (secure: boolean) =>
      spec("10.0.0.1", {
        metadata: { filter_metadata: { "envoy.transport_socket_match": { secure } } },
      });
    for (const secure of [false, true, false]) {
      discoverer.updates[0]!([host(secure)]);
      ask(c);
    }
    expect(c.hosts).toHaveLength(1);
    expect(cx.opened.map((o) => o.transportOptions !== undefined)).toEqual([false, true, false]);
  });

  it.each([
    [false, undefined],
    [true, "abort"],
  ] as const)(
    "renews connections to a host that fails; others' own are cut if asked: %s",
    (asked, end) => {
      const c = cluster(
        start(
          listedCluster("c", [spec("10.0.0.1")], {
            close_connections_on_host_health_failure: asked,
          }),
        ),
      ) as UpstreamCluster;
      const told = { config: "", warm: true, slots: {} };
      c.setHealth({ ...told, flags: {} });
      const busy = ask(c);
      connected(0);
      ask(c);
      connected(1);
      say(1, "ok");
      c.connect({ onData() {}, onEof() {}, onClosed() {} }, {});
      c.setHealth({ ...told, flags: { "10.0.0.1:80": FLAG.FAILED_ACTIVE_HC } });
      expect([0, 1, 2].map((n) => cx.opened[n]!.connection.closed)).toEqual([
        undefined,
        "flush",
        end,
      ]);
      say(0, "ok");
      expect(busy.responses).toBe(1);
      expect(cx.opened[0]!.connection.closed).toBe("flush");
    },
  );

  it("counts updates of a cluster's hosts as Envoy does, in which each name's first answer is one", () => {
    start(discoveredCluster("c"));
    const updated = () => cx.stats.value("cluster_manager.cluster_updated");
    discoverer.updates[0]!([spec("10.0.0.1"), spec("10.0.0.2")], 2);
    expect(updated()).toBe(1);
    discoverer.updates[0]!([spec("10.0.0.1"), spec("10.0.0.2")]);
    expect(updated()).toBe(1);
    discoverer.updates[0]!([spec("10.0.0.2")]);
    expect(updated()).toBe(2);
  });

  it("answers the hosts that discovery has named last", () => {
    const manager = start(discoveredCluster("c"));
    discoverer.updates[0]!([spec("10.0.0.1")]);
    discoverer.updates[0]!([spec("10.0.0.2")]);
    expect(manager.clusters!.status!()).toMatchObject({
      clusters: [{ hosts: [{ key: "10.0.0.2:80" }] }],
    });
  });

  it("stops discovering when its generation ends", () => {
    const c = cluster(start(discoveredCluster("c")));
    cx.dispose();
    expect(discoverer.stopped).toBe(1);
    discoverer.updates[0]!([spec("10.0.0.1")]);
    expect(c.hosts).toEqual([]);
    expect(cx.clock.armed).toBe(0);
  });
});

describe("a worker whose config the canary has set up", () => {
  /** Names of the clusters that have been set up, each time. */
  const made: string[] = [];
  beforeEach(() => {
    made.length = 0;
    const noting = defineCluster({
      name: "noting",
      config: Type.Unsafe<{ name: string; hosts: HostSpec[] }>({ type: "object" }),
      setup: ({ name, hosts }) => {
        made.push(name);
        if (hosts.length === 0) throw new Error("no hosts");
        return { initialHosts: hosts };
      },
    });
    useContext(equip(Object.assign(new TestContext(), { rehearsed: true })));
    cx.define("cluster/static", noting).define("balancer/ring_hash", inTurn);
  });
  const hosts = [spec("10.0.0.1")];

  it("sets plain clusters up at their first use", () => {
    const manager = start(listedCluster("a", hosts), listedCluster("b", hosts));
    expect(made).toEqual([]);
    expect(manager.clusters!.has!("a")).toBe(true);
    expect(made).toEqual([]);
    const b = cluster(manager, "b");
    expect(made).toEqual(["b"]);
    expect(cluster(manager, "b")).toBe(b);
    ask(b);
    connected(0);
    say(0, "ok");
    expect(stat("rq_total", "b")).toBe(1);
    expect(made).toEqual(["b"]);
    expect(manager.clusters!.get("c")).toBeUndefined();
    expect(manager.clusters!.has!("c")).toBe(false);
  });

  it("knows of a cluster with outlier detection, when that is set up, which hosts are ejected", () => {
    const two = [spec("10.0.0.1"), spec("10.0.0.2")];
    const config = listedCluster("a", two, { outlier_detection: {} });
    const manager = start(config);
    expect(made).toEqual([]);
    cx.publish(healthTopic("a"), {
      config: fingerprintOf(config),
      warm: true,
      flags: { "10.0.0.1:80": FLAG.FAILED_OUTLIER_CHECK },
      slots: { "10.0.0.1:80": 0, "10.0.0.2:80": 1 },
    });
    const a = cluster(manager, "a");
    expect(made).toEqual(["a"]);
    for (let k = 0; k < 4; k++) ask(a);
    expect(new Set(cx.opened.map(({ address }) => address.ip))).toEqual(new Set(["10.0.0.2"]));
    expect(cx.waits).toEqual([]);
  });

  it("sets others up at once: those that are checked, shown, or timed from the start", () => {
    start(
      listedCluster("checked", hosts, { health_checks: [{}] }),
      listedCluster("hashed", hosts, { lb_policy: "RING_HASH" }),
      listedCluster("slow", hosts, { round_robin_lb_config: { slow_start_config: {} } }),
      listedCluster("plain", hosts),
    );
    expect(made).toEqual(["checked", "hashed", "slow"]);
  });

  it("says so and has no such cluster if one fails after all", () => {
    const manager = start(listedCluster("a", []));
    expect(manager.clusters!.get("a")).toBeUndefined();
    expect(manager.clusters!.get("a")).toBeUndefined();
    expect(cx.logged.map(({ message }) => message)).toEqual(["a cluster cannot be set up"]);
  });
});

describe("workers and the canary", () => {
  it("discover nothing", () => {
    start(discoveredCluster("c"));
    useContext();
    cx.role = "canary";
    start(discoveredCluster("c"));
    expect(discoverer.updates).toEqual([]);
    expect(cx.waits).toEqual([]);
  });

  it("leave the gauges that everybody would count to the control thread", () => {
    const manager = start(listedCluster("c", [spec("10.0.0.1")]));
    expect(cx.stats.value("cluster.c.membership_total")).toBe(0);
    expect(cx.stats.value("cluster_manager.active_clusters")).toBe(0);
    expect(manager.clusters!.status!()).toBeUndefined();
  });
});

describe("a config that the schema lets through", () => {
  const refusal = (...clusters: object[]): ConfigError => {
    try {
      start(...clusters);
    } catch (error) {
      return error as ConfigError;
    }
    throw new Error("it was accepted");
  };

  it("is refused for two clusters of one name", () => {
    const error = refusal(listedCluster("c", []), listedCluster("c", []));
    expect([error.path, error.message]).toEqual([
      "[1].name",
      '"c" is already the name of another cluster; rename one',
    ]);
  });

  it("is refused for a connect timeout of nothing", () => {
    expect(refusal(listedCluster("c", [], { connect_timeout: 0 })).path).toBe(
      "[0].connect_timeout",
    );
  });

  it("is refused for custom settings of HTTP/2 that contradict, wherever they stand", () => {
    const custom_settings_parameters = [{ identifier: 3, value: 1 }];
    const http2_protocol_options = { max_concurrent_streams: 4, custom_settings_parameters };
    expect(refusal(listedCluster("c", [], { http2_protocol_options })).path).toBe(
      "[0].http2_protocol_options.custom_settings_parameters[0]",
    );
    const name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    const typed_extension_protocol_options = {
      [name]: { auto_config: { http2_protocol_options } },
    };
    expect(refusal(listedCluster("c", [], { typed_extension_protocol_options })).path).toBe(
      `[0].typed_extension_protocol_options["${name}"].auto_config.http2_protocol_options.custom_settings_parameters[0]`,
    );
  });

  it("is refused for two limits of requests per connection, also where both are the default", () => {
    const limit = { max_requests_per_connection: 0 };
    const both = { ...limit, common_http_protocol_options: limit };
    expect(refusal(listedCluster("c", [], both)).path).toBe("[0].max_requests_per_connection");
  });

  it("is refused for gRPC health checks of a cluster that speaks HTTP/1.1 only", () => {
    const health_checks = [{ grpc_health_check: {} }];
    expect(refusal(listedCluster("c", [], { health_checks })).path).toBe(
      "[0].health_checks[0].grpc_health_check",
    );
  });

  it("is refused for hashing by names where hosts have none", () => {
    const common_lb_config = { consistent_hashing_lb_config: { use_hostname_for_hashing: true } };
    expect(refusal(listedCluster("c", [], { common_lb_config })).message).toContain(
      "cannot use hostname for consistent hashing",
    );
  });

  it("is refused with the place in this config for what its cluster package refuses", () => {
    const error = refusal(listedCluster("a", []), listedCluster("b", [spec("name")]));
    expect([error.path, error.message]).toEqual(["[1].hosts[0]", "malformed IP address"]);
  });

  it("has no type that no package brings, so that a config with one is refused as such", () => {
    const { enum: types } = ClusterConfig.properties.type as unknown as { enum: string[] };
    const packages = readdirSync(new URL("../../cluster", import.meta.url));
    expect(packages).toEqual(expect.arrayContaining(types.map((type) => type.toLowerCase())));
  });

  it("is refused for a type or a policy that nobody brings", () => {
    expect(refusal(listedCluster("c", [], { type: "ORIGINAL_DST" })).path).toBe("[0].type");
    expect(refusal(listedCluster("c", [], { lb_policy: "MAGLEV" })).path).toBe("[0].lb_policy");
  });

  it("is refused for weights that do not fit", () => {
    const lb = { endpoint: { address: {} }, load_balancing_weight: 0xffff_ffff };
    const error = refusal(
      listedCluster("c", [], { load_assignment: { endpoints: [{ lb_endpoints: [lb, lb] }] } }),
    );
    expect(error.path).toBe(
      "[0].load_assignment.endpoints[0].lb_endpoints[1].load_balancing_weight",
    );
  });
});
