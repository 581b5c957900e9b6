import { describe, expect, it } from "vitest";
import { cluster, start } from "./test-admin.ts";

describe("/config_dump", () => {
  const bootstrap = {
    node: { id: "n1", cluster: "c1" },
    static_resources: {
      listeners: [
        {
          name: "main",
          filter_chains: [{ filters: [{ typed_config: { route_config: { name: "r1" } } }] }],
        },
      ],
      clusters: [
        { name: "dead", transport_socket: { private_key: { inline_string: "secret" }, sni: "x" } },
        { name: "up" },
      ],
    },
  };
  const ask = async (path: string) => {
    const world = { bootstrap, clusters: { clusters: [cluster("up", [1, 2])] } };
    const { status, body } = await start(world).ask(path);
    return { status, body, configs: status === 200 ? JSON.parse(body).configs : [] };
  };

  it("dumps bootstrap, clusters, listeners and routes", async () => {
    const { configs } = await ask("/config_dump");
    expect(configs.map((c: { "@type": string }) => c["@type"].split(".").at(-1))).toEqual([
      "BootstrapConfigDump",
      "ClustersConfigDump",
      "ListenersConfigDump",
      "ScopedRoutesConfigDump",
      "RoutesConfigDump",
      "SecretsConfigDump",
    ]);
    expect(configs[4].static_route_configs[0].route_config).toEqual({
      "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
      name: "r1",
    });
  });

  it("dumps clusters made while serving like the one that has made them", async () => {
    const fields = {
      type: "STRICT_DNS",
      lb_policy: "RANDOM",
      load_assignment: { cluster_name: "m" },
    };
    const madeOne = (name: string, warming: boolean) => ({
      ...cluster(name, [1, 2]),
      made: { parent: "up", fields, at: "2026-11-20T10:00:00.000Z", warming },
    });
    const clusters = { clusters: [cluster("up", [1, 2]), madeOne("m", false), madeOne("w", true)] };
    const parent = { name: "up", connect_timeout: "1s", cluster_type: { name: "maker" } };
    const world = { bootstrap: { static_resources: { clusters: [parent] } }, clusters };
    const get = async (path: string) => JSON.parse((await start(world).ask(path)).body).configs;
    const [dumped] = await get("/config_dump?resource=dynamic_active_clusters");
    expect(dumped).toMatchObject({ last_updated: "2026-11-20T10:00:00.000Z" });
    expect(dumped.cluster).toEqual({
      "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
      name: "m",
      type: "STRICT_DNS",
      lb_policy: "RANDOM",
      connect_timeout: "1s",
      load_assignment: { cluster_name: "m" },
      upstream_http_protocol_options: { auto_sni: true, auto_san_validation: true },
    });
    const [warming] = await get("/config_dump?resource=dynamic_warming_clusters");
    expect(warming.cluster.name).toBe("w");
    const hosts = await get("/config_dump?include_eds&resource=dynamic_endpoint_configs");
    expect(
      hosts.map(
        (h: { endpoint_config: { cluster_name: string } }) => h.endpoint_config.cluster_name,
      ),
    ).toEqual(["m"]);
    const listed = await start(world).ask("/clusters?format=json");
    expect(JSON.parse(listed.body).cluster_statuses).toHaveLength(2);
  });

  it("has no dump of routes where no connection manager has any", async () => {
    const { body } = await start({ bootstrap: {} }).ask("/config_dump");
    expect(body).toContain("ListenersConfigDump");
    expect(body).not.toContain("RoutesConfigDump");
  });

  it("dumps scopes of routes that stand in the config", async () => {
    const one = { name: "one", key: {}, route_configuration: { name: "inner" } };
    const scoped_routes = {
      name: "scopes",
      scoped_route_configurations_list: { scoped_route_configurations: [one] },
    };
    const filters = [{ typed_config: { scoped_routes } }];
    const listeners = [{ name: "main", filter_chains: [{ filters }] }];
    const path = "/config_dump?resource=inline_scoped_route_configs";
    const { body } = await start({ bootstrap: { static_resources: { listeners } } }).ask(path);
    expect(JSON.parse(body).configs).toEqual([
      {
        "@type":
          "type.googleapis.com/envoy.admin.v3.ScopedRoutesConfigDump.InlineScopedRouteConfigs",
        name: "scopes",
        scoped_route_configs: [
          { "@type": "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration", ...one },
        ],
        last_updated: expect.any(String),
      },
    ]);
  });

  it("shows no secret", async () => {
    const { body } = await ask("/config_dump");
    expect(body).not.toContain('"secret"');
    expect(body.match(/"\[redacted\]"/g)).toHaveLength(2);
    expect(body).toContain('"sni": "x"');
  });

  it("flattens a resource and picks by name", async () => {
    const { configs } = await ask("/config_dump?resource=static_clusters&name_regex=^up");
    expect(configs).toEqual([
      {
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
        cluster: { "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", name: "up" },
        last_updated: "2026-11-20T09:30:50.219Z",
      },
    ]);
  });

  it("keeps the entries that lack what a mask names, if others have it", async () => {
    const mask = "cluster.transport_socket.sni";
    const { configs } = await ask(`/config_dump?resource=static_clusters&mask=${mask}`);
    const cluster = { "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster" };
    expect(configs.map((entry: { cluster: unknown }) => entry.cluster)).toEqual([
      { ...cluster, transport_socket: { sni: "x" } },
      cluster,
    ]);
    for (const query of ["mask=@type", "resource=static_clusters&mask=cluster.@type"])
      expect((await ask(`/config_dump?${query}`)).status).toBe(400);
  });

  it("keeps what a mask names", async () => {
    expect((await ask("/config_dump?mask=bootstrap.node.id")).configs).toEqual([
      {
        "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
        bootstrap: { node: { id: "n1" } },
      },
    ]);
    expect(
      (await ask("/config_dump?resource=static_listeners&mask=last_updated")).configs[0],
    ).toEqual({
      "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.StaticListener",
      last_updated: "2026-11-20T09:30:50.219Z",
    });
  });

  it("adds endpoints when asked to", async () => {
    const { configs } = await ask("/config_dump?include_eds");
    const { endpoint_config } = configs[2].static_endpoint_configs[0];
    expect(endpoint_config.cluster_name).toBe("up");
    expect(endpoint_config.endpoints[0].lb_endpoints).toHaveLength(2);
    expect(endpoint_config.endpoints[0].load_balancing_weight).toBe(0);
  });

  it("tells of each host what all that is known of its health comes to, of clusters by name", async () => {
    const up = cluster("up", [1, 2, 3]);
    const hosts = up.hosts.map((host, k) => ({
      ...host,
      localityWeight: 3,
      ...[
        { healthStatus: "DRAINING", healthFlags: "/eds_status_draining" },
        { healthFlags: "/failed_active_hc/active_hc_timeout" },
        { healthFlags: "/degraded_active_hc" },
      ][k],
    }));
    const policy = { overprovisioning_factor: 140 };
    const t = start({ clusters: { clusters: [{ ...up, hosts, policy }, cluster("down", [])] } });
    const dump = JSON.parse(
      (await t.ask("/config_dump?resource=static_endpoint_configs&include_eds")).body,
    );
    const [down, dumped] = dump.configs.map((c: { endpoint_config: unknown }) => c.endpoint_config);
    expect([down.cluster_name, down.endpoints]).toEqual(["down", undefined]);
    expect(dumped.policy).toEqual(policy);
    expect(dumped.endpoints[0].load_balancing_weight).toBe(3);
    expect(
      dumped.endpoints[0].lb_endpoints.map((e: { health_status: string }) => e.health_status),
    ).toEqual(["UNHEALTHY", "UNHEALTHY", "DEGRADED"]);
  });

  it("says what it cannot dump", async () => {
    expect(await ask("/config_dump?resource=foo")).toMatchObject({
      status: 404,
      body: "foo not found in config dump",
    });
    expect((await ask("/config_dump?resource=bootstrap")).status).toBe(400);
    expect((await ask("/config_dump?resource=static_endpoint_configs")).status).toBe(404);
    expect(await ask("/config_dump?mask=nothing")).toMatchObject({
      status: 400,
      body: "FieldMask nothing could not be successfully applied to any configs.",
    });
    expect((await ask("/config_dump?resource=static_clusters&mask=nothing")).status).toBe(400);
    expect(await ask("/config_dump?resource=dynamic_listeners")).toMatchObject({
      status: 200,
      body: "{}\n",
    });
    expect(await ask("/config_dump?mask=bootstrap..node")).toMatchObject({
      status: 400,
      body: "FieldMask bootstrap..node could not be successfully applied to any configs.",
    });
    expect((await ask("/config_dump?mask=,")).configs).toEqual((await ask("/config_dump")).configs);
    expect((await ask("/config_dump?mask=static_clusters.cluster")).status).toBe(400);
  });

  it("leaves dumps out that cannot have all that a mask names", async () => {
    expect(await ask("/config_dump?mask=bootstrap.node,static_listeners")).toMatchObject({
      status: 400,
      body: "FieldMask bootstrap.node,static_listeners could not be successfully applied to any configs.",
    });
    const { configs } = await ask("/config_dump?mask=static_clusters,dynamic_warming_clusters");
    expect(configs.map((dump: object) => Object.keys(dump))).toEqual([
      ["@type", "static_clusters"],
    ]);
  });

  it("keeps dumps that have nothing of what a mask names, though they could", async () => {
    const kept = async (mask: string) =>
      (await ask(`/config_dump?mask=${mask}`)).configs.map((dump: object) => Object.values(dump));
    const admin = "type.googleapis.com/envoy.admin.v3.";
    expect(await kept("dynamic_listeners")).toEqual([[`${admin}ListenersConfigDump`]]);
    expect(await kept("version_info")).toEqual([
      [`${admin}ClustersConfigDump`],
      [`${admin}ListenersConfigDump`],
    ]);
  });

  it("takes fields of the typed messages in entries, and none of these as a whole", async () => {
    const masked = (mask: string) => ask(`/config_dump?resource=static_clusters&mask=${mask}`);
    expect((await masked("cluster")).status).toBe(400);
    const { configs } = await masked("cluster.name,last_updated");
    expect(Object.keys(configs[0])).toEqual(["@type", "cluster", "last_updated"]);
  });
});
