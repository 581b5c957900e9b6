import { type Balancer, HeaderMap } from "@tsproxy/sdk";
import { balancerFor, TestContext, TestHost } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import policy from "./filter.ts";
import { loadReportOf } from "./load-report.ts";

const lines = (...pairs: readonly (readonly [string, string])[]): HeaderMap => {
  const map = new HeaderMap();
  for (const [name, value] of pairs) map.append(name, value);
  return map;
};
const report = (rate: number, utilization: number, more = "") =>
  lines([
    "endpoint-load-metrics",
    `TEXT rps_fractional:${rate},application_utilization:${utilization}${more}`,
  ]);

const DEFAULTS = {
  cluster: "",
  blackout_period: 0,
  weight_expiration_period: 180_000,
  weight_update_period: 1_000,
  error_utilization_penalty: 0,
  metric_names_for_computing_utilization: [],
};
const start = (config: object = {}) => {
  const cx = new TestContext();
  const hosts = ["198.51.100.1", "198.51.100.2", "198.51.100.3"].map(
    (ip) => new TestHost({ ip, port: 80 }),
  );
  const balancer = balancerFor(cx.setup(policy, { ...DEFAULTS, ...config }), hosts);
  return { cx, hosts, balancer };
};
const turns = (balancer: Balancer, hosts: readonly TestHost[], n: number): number[] => {
  const seen = Array.from({ length: n }, () => balancer.choose({}));
  return hosts.map((host) => seen.filter((each) => each === host).length);
};

describe("client-side weighted round robin", () => {
  it("takes hosts in turn until one has reported", () => {
    const { cx, hosts, balancer } = start();
    expect(turns(balancer, hosts, 9)).toEqual([3, 3, 3]);
    cx.clock.advance(5_000);
    expect(turns(balancer, hosts, 9)).toEqual([3, 3, 3]);
  });

  it("gives turns by requests a second over utilization, the median to hosts that have not reported", () => {
    const { cx, hosts, balancer } = start();
    hosts[0]!.onLoadReport!(report(100, 0.25));
    hosts[1]!.onLoadReport!(report(100, 1));
    cx.clock.advance(1_000);
    expect(turns(balancer, hosts, 90)).toEqual([40, 10, 40]);
  });

  it("publishes the weights that have changed", () => {
    const { cx, hosts } = start({ cluster: "c" });
    const published: unknown[] = [];
    cx.subscribe("host_weights", (value) => published.push(value));
    hosts[0]!.onLoadReport!(report(100, 0.25));
    hosts[1]!.onLoadReport!(report(100, 1));
    cx.clock.advance(2_000);
    hosts[1]!.onLoadReport!(report(200, 1));
    cx.clock.advance(1_000);
    const weights = (...all: number[]) => all.map((weight, k) => [hosts[k]!.key, weight]);
    expect(published).toEqual([
      { cluster: "c", weights: weights(400, 100, 400) },
      { cluster: "c", weights: [[hosts[1]!.key, 200]] },
    ]);
  });

  it("counts errors beside utilization", () => {
    const { cx, hosts, balancer } = start({ error_utilization_penalty: 3 });
    hosts[0]!.onLoadReport!(report(100, 0.25, ",eps:25"));
    hosts[1]!.onLoadReport!(report(100, 0.25));
    hosts[2]!.onLoadReport!(report(100, 1));
    cx.clock.advance(1_000);
    expect(turns(balancer, hosts, 60)).toEqual([10, 40, 10]);
  });

  it("goes by the most strained of the metrics that the config names, else by the CPU", () => {
    const names = ["named_metrics.queue", "mem_utilization"];
    const { cx, hosts, balancer } = start({ metric_names_for_computing_utilization: names });
    const tell = (k: number, text: string) =>
      hosts[k]!.onLoadReport!(lines(["endpoint-load-metrics", `TEXT rps_fractional:10,${text}`]));
    tell(0, "named_metrics.queue:0.5,mem_utilization:0.1,cpu_utilization:0.01");
    tell(1, "cpu_utilization:0.25");
    tell(2, "mem_utilization:0.5");
    cx.clock.advance(1_000);
    expect(turns(balancer, hosts, 40)).toEqual([10, 20, 10]);
  });

  it("believes reports after the blackout period, and until they are too old", () => {
    const { cx, hosts, balancer } = start({
      blackout_period: 3_000,
      weight_expiration_period: 10_000,
    });
    const tell = () => {
      hosts[0]!.onLoadReport!(report(100, 0.25));
      hosts[1]!.onLoadReport!(report(100, 1));
      hosts[2]!.onLoadReport!(report(100, 1));
    };
    tell();
    cx.clock.advance(2_000);
    expect(turns(balancer, hosts, 60)).toEqual([20, 20, 20]);
    cx.clock.advance(1_000);
    expect(turns(balancer, hosts, 60)).toEqual([40, 10, 10]);
    cx.clock.advance(8_000);
    expect(turns(balancer, hosts, 60)).toEqual([20, 20, 20]);
    tell();
    cx.clock.advance(2_000);
    expect(turns(balancer, hosts, 60)).toEqual([20, 20, 20]);
  });
});

it("goes by reports that came to other workers", () => {
  const { cx, hosts } = start();
  const others = hosts.map(({ address }) => new TestHost(address));
  const balancer = balancerFor(cx.setup(policy, DEFAULTS), others);
  hosts[0]!.onLoadReport!(report(100, 0.25));
  hosts[1]!.onLoadReport!(report(100, 1));
  cx.clock.advance(2_000);
  expect(turns(balancer, others, 90)).toEqual([40, 10, 40]);
});

describe("a load report", () => {
  const of = (name: string, value: string) => {
    const found = loadReportOf(lines([name, value]));
    return found && Object.fromEntries(found);
  };

  it("is text, JSON or binary", () => {
    const said = { cpu_utilization: 0.5, rps_fractional: 8, "named_metrics.q": 2 };
    const text = "TEXT cpu_utilization=0.5, rps_fractional:8,named_metrics.q:2";
    expect(of("endpoint-load-metrics", text)).toEqual(said);
    const json = '{"cpu_utilization":0.5,"rpsFractional":8,"named_metrics":{"q":2}}';
    expect(of("endpoint-load-metrics", `JSON ${json}`)).toEqual(said);
    const bytes = Buffer.alloc(32);
    bytes.writeUInt8(0x09, 0);
    bytes.writeDoubleLE(0.5, 1);
    bytes.writeUInt8(0x31, 9);
    bytes.writeDoubleLE(8, 10);
    bytes.set([0x42, 12, 0x0a, 1, 0x71, 0x11], 18);
    bytes.writeDoubleLE(2, 24);
    const binary = bytes.toString("base64");
    expect(of("endpoint-load-metrics-bin", binary)).toEqual(said);
    expect(of("endpoint-load-metrics", `BIN ${binary}`)).toEqual(said);
  });

  it("that cannot be understood says nothing", () => {
    for (const text of [
      "",
      "cpu_utilization:0.5",
      "TEXT ",
      "TEXT cpu_utilization",
      "TEXT cpu_utilization:x",
      "TEXT cpu_utilization:Infinity",
      "TEXT cpu_utilization:1,cpu_utilization:1",
      "TEXT unheard_of:1",
      "JSON [",
      "JSON 1",
      'JSON {"unheard_of":1}',
      `JSON {"eps":${"[".repeat(4000)}${"]".repeat(4000)}}`,
      "BIN ?",
      "BIN CQ==",
      `BIN ${Buffer.from("090000000000f07f310000000000f07f", "hex").toString("base64")}`,
      `TEXT cpu_utilization:${"1".repeat(9000)}`,
    ]) {
      expect([text, of("endpoint-load-metrics", text)?.cpu_utilization]).toEqual([text, undefined]);
    }
  });

  it("of any bytes does no harm", () => {
    let seed = 7;
    const random = () => (seed = (seed * 48_271) % 0x7fff_ffff) / 0x7fff_ffff;
    for (let k = 0; k < 2_000; k++) {
      const bytes = Buffer.from(Array.from({ length: random() * 40 }, () => random() * 256));
      loadReportOf(lines(["endpoint-load-metrics-bin", bytes.toString("base64")]));
    }
  });
});
