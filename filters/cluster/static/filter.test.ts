import { ConfigError } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import staticCluster from "./filter.ts";

const assignment = (...addresses: object[]) => ({
  load_assignment: {
    cluster_name: "c",
    endpoints: [{ lb_endpoints: addresses.map((address) => ({ endpoint: { address } })) }],
  },
});
const socket = (address: string) => ({ socket_address: { address, port_value: 80 } });
const make = (config: object) => new TestContext().setup(staticCluster, config);

describe("static cluster", () => {
  it("has the hosts of its config, in order, at once", () => {
    const cluster = make(
      assignment(socket("10.0.0.1"), socket("::1"), { pipe: { path: "/run/a" } }),
    );
    expect(cluster.initialHosts.map((h) => h.path ?? h.ip)).toEqual(["10.0.0.1", "::1", "/run/a"]);
    expect(cluster.discover).toBeUndefined();
  });

  it("may have none", () => {
    expect(make({}).initialHosts).toEqual([]);
    expect(make({ load_assignment: { cluster_name: "c", endpoints: [] } }).initialHosts).toEqual(
      [],
    );
  });

  it("refuses a name, and says where and what to do", () => {
    try {
      make(assignment(socket("10.0.0.1"), socket("foo.test")));
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError);
      expect((error as ConfigError).path).toBe(
        "load_assignment.endpoints[0].lb_endpoints[1].endpoint.address",
      );
      expect((error as ConfigError).message).toMatch(
        /^malformed IP address: "foo.test".*STRICT_DNS/,
      );
    }
  });

  it("refuses an endpoint without an address", () => {
    expect(() => make(assignment({}))).toThrow("needs a socket_address or a pipe");
  });
});
