import { expect, it } from "vitest";
import { isIp } from "./ip.ts";
import { endpointsOf } from "./load-assignment.ts";

it("tells addresses from names", () => {
  for (const ip of [
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "::",
    "::1",
    "1::",
    "fe80::1:2",
    "1:2:3:4:5:6:7:8",
    "::ffff:1.2.3.4",
    "1:2:3:4:5:6:1.2.3.4",
  ])
    expect(isIp(ip), ip).toBe(true);
  for (const name of [
    "",
    "localhost",
    "256.1.1.1",
    "1.2.3",
    "01.2.3.4",
    "1.2.3.4.5",
    ":::",
    "1::2::3",
    "1:2:3:4:5:6:7",
  ])
    expect(isIp(name), name).toBe(false);
  for (const name of [
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4::5:6:7:8",
    "12345::",
    "g::",
    "1.2.3.4::",
    ":1",
    "1:",
  ])
    expect(isIp(name), name).toBe(false);
});

it("lists endpoints with all that their locality says", () => {
  const list = endpointsOf({
    endpoints: [
      {
        locality: { region: "r", zone: "z" },
        priority: 1,
        lb_endpoints: [
          {
            endpoint: {
              address: { socket_address: { address: "10.0.0.1", port_value: 80 } },
              hostname: "h",
            },
            load_balancing_weight: 3,
            health_status: "DEGRADED",
          },
          { endpoint: { address: { pipe: { path: "@s" } } } },
        ],
      },
      {},
    ],
  });
  expect(list.map((e) => e.path)).toEqual([
    "endpoints[0].lb_endpoints[0]",
    "endpoints[0].lb_endpoints[1]",
  ]);
  expect(list[0]!.spec).toEqual({
    ip: "10.0.0.1",
    port: 80,
    hostname: "h",
    weight: 3,
    priority: 1,
    healthStatus: "DEGRADED",
    locality: { region: "r", zone: "z" },
  });
  expect(list[1]!.spec).toMatchObject({ path: "@s", weight: 1, healthStatus: "UNKNOWN" });
});
