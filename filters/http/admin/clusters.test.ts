import { describe, expect, it } from "vitest";
import { cluster, start } from "./test-admin.ts";

describe("/clusters and /listeners", () => {
  const world = {
    clusters: { clusters: [cluster("up", [10100]), cluster("empty")] },
    stats: {
      counters: [["@host|up|127.0.0.1:10100|cx_total", 15]] as const,
      gauges: [["@host|up|127.0.0.1:10100|cx_active", 1]] as const,
    },
  };

  it("prints the figures of hosts", async () => {
    const { body } = await start(world).ask("/clusters");
    expect(body).toContain(
      "up::127.0.0.1:10100::cx_active::1\nup::127.0.0.1:10100::cx_connect_fail::0\n",
    );
    expect(body).toContain("up::127.0.0.1:10100::cx_total::15\n");
    expect(body).toContain("empty::observability_name::empty\n");
  });

  it("prints limits as runtime has them", async () => {
    const t = start(world);
    t.cx.runtime.replace([["circuit_breakers.up.high.max_requests", 7]]);
    const { body } = await t.ask("/clusters");
    expect(body).toContain("up::high_priority::max_requests::7\n");
    expect(body).toContain("up::default_priority::max_requests::1024\n");
  });

  it("picks clusters by name", async () => {
    const { body } = await start(world).ask("/clusters?filter=^em&format=json");
    expect(JSON.parse(body).cluster_statuses.map((c: { name: string }) => c.name)).toEqual([
      "empty",
    ]);
    const none = await start(world).ask("/clusters?filter=nobody&format=json");
    expect(JSON.parse(none.body)).toEqual({});
  });

  it("tells why a host is not healthy", async () => {
    const sick = cluster("sick", [1]);
    const host = {
      ...sick.hosts[0]!,
      healthFlags: "/failed_active_hc/degraded_outlier_detection",
      healthStatus: "DRAINING",
      priority: 1,
    };
    const t = start({ clusters: { clusters: [{ ...sick, hosts: [host] }] } });
    const { body } = await t.ask("/clusters?format=json");
    expect(JSON.parse(body).cluster_statuses[0].host_statuses[0]).toMatchObject({
      health_status: {
        failed_active_health_check: true,
        failed_degraded_outlier_detection: true,
        eds_health_status: "DRAINING",
      },
      priority: 1,
    });
  });

  it("prints success rates of hosts in full, those of the cluster to six digits", async () => {
    const rated = cluster("rated", [1, 2]);
    const hosts = [200 / 3, 0].map((successRate, k) => ({ ...rated.hosts[k]!, successRate }));
    const outlier = {
      successRateAverage: 100 / 3,
      successRateEjectionThreshold: 0,
      localOriginSuccessRateAverage: -1,
      localOriginSuccessRateEjectionThreshold: -1,
    };
    const t = start({ clusters: { clusters: [{ ...rated, hosts, outlier }] } });
    const { body } = await t.ask("/clusters");
    expect(body).toContain("rated::127.0.0.1:1::success_rate::66.66666666666667\n");
    expect(body).toContain("rated::127.0.0.1:2::success_rate::0\n");
    expect(body).toContain("rated::127.0.0.1:2::local_origin_success_rate::-1\n");
    expect(body).toContain("rated::outlier::success_rate_average::33.3333\n");
    const json = JSON.parse((await t.ask("/clusters?format=json")).body).cluster_statuses[0];
    expect(json.success_rate_ejection_threshold).toEqual({});
    expect(json.host_statuses[0].success_rate).toEqual({ value: 200 / 3 });
    expect(json.host_statuses[1].success_rate).toEqual({});
    expect(json.host_statuses[1]).not.toHaveProperty("local_origin_success_rate");
  });

  it("lists listeners", async () => {
    const t = start();
    expect((await t.ask("/listeners")).body).toBe(
      "main::127.0.0.1:10000\ntwo::[::1]:1\ntwo::/run/two\n",
    );
    expect(JSON.parse((await t.ask("/listeners?format=json")).body).listener_statuses[1]).toEqual({
      name: "two",
      local_address: { socket_address: { address: "::1", port_value: 1 } },
      additional_local_addresses: [{ pipe: { path: "/run/two" } }],
    });
  });
});
