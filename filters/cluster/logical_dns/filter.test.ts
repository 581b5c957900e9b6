import type { HostSpec } from "@tsproxy/sdk";
import { TestContext, TestMade } from "@tsproxy/sdk/testing";
import { beforeEach, expect, it } from "vitest";
import logicalDns from "./filter.ts";

let cx: TestContext;
let answer: string[] | Error;
let lists: (readonly HostSpec[])[];
const settled = async () => {
  for (let k = 0; k < 8; k++) await Promise.resolve();
};
const endpoint = (address: string) => ({
  endpoint: { address: { socket_address: { address, port_value: 80 } } },
});
const make = (...endpoints: object[]) =>
  cx.setup(logicalDns, {
    name: "c",
    load_assignment: { endpoints: [{ lb_endpoints: endpoints }] },
  });
const round = async (next: string[] | Error) => {
  answer = next;
  cx.clock.advance(5_000);
  await settled();
};

beforeEach(() => {
  cx = new TestContext();
  cx.role = "control";
  lists = [];
  cx.operations.set("dns.resolve", () => {
    if (answer instanceof Error) throw answer;
    return { addresses: answer.map((ip) => ({ ip, ttl: 0 })) };
  });
});

it("is one host that moves to the address that is named first", async () => {
  answer = ["10.0.0.1", "10.0.0.2"];
  make(endpoint("api.test")).discover!((hosts) => void lists.push(hosts), cx, new TestMade());
  await settled();
  expect(lists).toEqual([
    [
      expect.objectContaining({
        id: "api.test:80",
        ip: "10.0.0.1",
        hostname: "api.test",
        metadata: {},
        additionalAddresses: [{ ip: "10.0.0.2", port: 80 }],
      }),
    ],
  ]);
  await round(["10.0.0.2", "10.0.0.3"]);
  expect(lists.at(-1)![0]).toMatchObject({ id: "api.test:80", ip: "10.0.0.2" });
  expect(lists).toHaveLength(2);
});

it("stays where it is when the same addresses come, when none comes and when nobody answers", async () => {
  answer = ["10.0.0.1"];
  make(endpoint("api.test")).discover!((hosts) => void lists.push(hosts), cx, new TestMade());
  await settled();
  await round(["10.0.0.1"]);
  await round([]);
  await round(new Error("ESERVFAIL"));
  expect(lists).toHaveLength(1);
  const stat = (name: string) => cx.stats.value(`cluster.c.update_${name}`);
  expect(["success", "no_rebuild", "failure"].map(stat)).toEqual([2, 1, 2]);
});

it("refuses more than one endpoint, or none", () => {
  expect(() => make(endpoint("a.test"), endpoint("b.test"))).toThrow("must have a single");
  expect(() => make()).toThrow("must have a single");
});
