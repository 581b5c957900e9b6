import { type Address, type BalancerContext, formatAddress } from "@tsproxy/sdk";
import {
  requestHeaders,
  TestConnection,
  TestContext,
  TestHost,
  TestMade,
} from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import originalDst from "./filter.ts";

let cx: TestContext;
let asked: string[];
let swept: number[];
beforeEach(() => {
  cx = new TestContext();
  asked = [];
  swept = [];
});

function make(original_dst_lb_config: object = {}) {
  const type = cx.setup(originalDst, {
    name: "c",
    cleanup_interval: 5_000,
    original_dst_lb_config,
  });
  const hosts = new Map<string, TestHost>();
  return type.provide!({
    stats: cx.stats.scope("cluster.c."),
    at: (address, hostname) => {
      const key = formatAddress(address);
      expect(hostname).toBe(`c${key}`);
      asked.push(key);
      const host = hosts.get(key) ?? new TestHost(address);
      hosts.set(key, host);
      return host;
    },
    get hosts() {
      return [...hosts.values()];
    },
    find: () => undefined,
    made: new TestMade(),
    defaultPort: 80,
    sweep: (sinceMs) => void swept.push(sinceMs),
  });
}
const LOCAL: Address = { ip: "10.9.9.9", port: 443 };
const stream = (
  headers: string[],
  options: { restored?: boolean; metadata?: Map<string, Record<string, unknown>> } = {},
): BalancerContext => ({
  stream: {
    request: requestHeaders("GET", "/", ...headers),
    metadata: options.metadata ?? new Map(),
    filterState: new Map(),
    info: {
      downstreamLocalAddress: LOCAL,
      downstreamLocalAddressRestored: options.restored === true,
    } as NonNullable<BalancerContext["stream"]>["info"],
  },
});

function tcp(restored: boolean) {
  const connection = new TestConnection(1);
  connection.localAddress = LOCAL;
  return Object.assign(connection, { localAddressRestored: restored });
}

describe("original destination", () => {
  it("is the address that a listener filter restored, and never our own", () => {
    const cluster = make();
    cluster.choose(stream([], { restored: true }));
    cluster.choose({ downstream: tcp(true) });
    expect(asked).toEqual(["10.9.9.9:443", "10.9.9.9:443"]);
    expect(cluster.choose(stream([]))).toBeUndefined();
    expect(cluster.choose({ downstream: tcp(false) })).toBeUndefined();
  });

  it("is what the header says, where that counts", () => {
    const header = ["x-envoy-original-dst-host", "10.0.0.1:8080"];
    make({ use_http_header: true }).choose(stream(header, { restored: true }));
    make().choose(stream(header, { restored: true }));
    make({ use_http_header: true, http_header_name: "x-to" }).choose(stream(["x-to", "[::1]:80"]));
    expect(asked).toEqual(["10.0.0.1:8080", "10.9.9.9:443", "[::1]:80"]);
  });

  it("is what filter state says, before all else", () => {
    const state = new Map([["envoy.network.transport_socket.original_dst_address", "10.1.1.1:81"]]);
    const header = ["x-envoy-original-dst-host", "10.0.0.1:8080"];
    const { stream: request } = stream(header, { restored: true });
    const cluster = make({ use_http_header: true });
    cluster.choose({ stream: { ...request!, filterState: state } });
    cluster.choose({ downstream: Object.assign(tcp(true), { filterState: state }) });
    expect(asked).toEqual(["10.1.1.1:81", "10.1.1.1:81"]);
  });

  it("is nowhere for a header that holds no address", () => {
    const cluster = make({ use_http_header: true });
    for (const bad of ["name.test:80", "10.0.0.1", "10.0.0.1:99999", "999.0.0.1:1", "::1:80", ""])
      expect(cluster.choose(stream(["x-envoy-original-dst-host", bad]))).toBeUndefined();
    expect(cx.stats.value("cluster.c.original_dst_host_invalid")).toBe(6);
  });

  it("is what metadata says before the header, at the port that the config says", () => {
    const metadata = new Map([["f", { to: { host: "10.0.0.2:1" } }]]);
    const metadata_key = { key: "f", path: [{ key: "to" }, { key: "host" }] };
    const cluster = make({ use_http_header: true, metadata_key, upstream_port_override: 99 });
    cluster.choose(stream(["x-envoy-original-dst-host", "10.0.0.1:1"], { metadata }));
    cluster.choose(stream(["x-envoy-original-dst-host", "10.0.0.1:1"]));
    expect(asked).toEqual(["10.0.0.2:99", "10.0.0.1:99"]);
  });

  it("drops hosts that nobody asks for, until its cluster ends", () => {
    const cluster = make();
    cx.clock.advance(10_000);
    expect(swept).toEqual([0, 5_000]);
    cluster.dispose!();
    cx.clock.advance(10_000);
    expect(swept).toHaveLength(2);
  });

  it("tells the control thread of its hosts, new ones at once and the rest from time to time", () => {
    const told: unknown[] = [];
    cx.subscribe("original_dst/c", (hosts) => told.push(hosts));
    const cluster = make({ use_http_header: true });
    const to = (host: string) => cluster.choose(stream(["x-envoy-original-dst-host", host]));
    const first = { ip: "10.0.0.1", port: 1 };
    const second = { ip: "10.0.0.2", port: 2 };
    to("10.0.0.1:1");
    to("10.0.0.1:1");
    to("10.0.0.2:2");
    expect(told).toEqual([[first], [second]]);
    cx.clock.advance(5_000);
    expect(told.slice(2)).toEqual([[first, second]]);
  });

  it("is known to the control thread while a worker tells of it", () => {
    cx.role = "control";
    make();
    asked = [];
    cx.publish("original_dst/c", [{ ip: "10.0.0.1", port: 1 }]);
    expect(asked).toEqual(["10.0.0.1:1"]);
    cx.clock.advance(15_000);
    expect(swept).toEqual([-5_000, 0, 5_000]);
  });

  it("takes no load assignment", () => {
    expect(() => cx.setup(originalDst, { load_assignment: {} })).toThrow("no load assignment");
  });
});
