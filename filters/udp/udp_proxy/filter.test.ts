import {
  type AccessLogger,
  type BalancerContext,
  Chunk,
  defineAccessLogger,
  type LogEntry,
  latin1Encode,
  Type,
  type UdpListenerFilter,
} from "@tsproxy/sdk";
import { TestCluster, TestContext, TestHost, TestUdpSocket } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import udpProxy from "./filter.ts";

const ROUTE = "envoy.extensions.filters.udp.udp_proxy.v3.Route";
const route = { name: "route", typed_config: { "@type": ROUTE, cluster: "dns" } };

class UdpCluster extends TestCluster {
  readonly second = new TestHost({ ip: "198.51.100.2", port: 8080 });
  override readonly hosts = [this.host, this.second];
  readonly asked: BalancerContext[] = [];
  next: TestHost | undefined = this.host;
  room = 100;
  sessions = 0;
  beginSession() {
    if (this.sessions >= this.room) return false;
    this.sessions++;
    return true;
  }
  endSession() {
    this.sessions--;
  }
  chooseHost(context: BalancerContext) {
    this.asked.push(context);
    return this.next;
  }
}

function begin(config: object = {}) {
  const cx = new TestContext();
  const logged: LogEntry[] = [];
  const logger: AccessLogger = { log: (entry) => void logged.push(entry) };
  cx.define(
    "access_log/test",
    defineAccessLogger({ name: "test", config: Type.Object({}), setup: () => logger }),
  );
  const cluster = new UdpCluster("dns", cx.stats);
  cx.clusterMap.set("dns", cluster);
  const all = {
    stat_prefix: "u",
    matcher: { on_no_match: { action: route, keep_matching: false } },
    idle_timeout: 1000,
    use_per_packet_load_balancing: false,
    access_log: [],
    proxy_access_log: [],
    ...config,
  };
  const filter = cx.setup(udpProxy, all) as UdpListenerFilter;
  const listener = new TestUdpSocket({ ip: "", port: 0 });
  const send = (text: string, port = 1000) => {
    const bytes = latin1Encode(text);
    filter.onDatagram(new Chunk(bytes, 0, bytes.length), { ip: "192.0.2.1", port }, listener);
  };
  const answer = (k: number, text: string) => {
    const bytes = latin1Encode(text);
    const { handler, address } = cx.udpSockets[k]!;
    handler!.onDatagram(new Chunk(bytes, 0, bytes.length), address);
  };
  return { cx, cluster, listener, logged, send, answer };
}

test("the clusters that the config names have their stats before the first session", () => {
  const input = "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput";
  const matcher_tree = {
    input: { name: "ip", typed_config: { "@type": input } },
    exact_match_map: { map: { "192.0.2.1": { action: route, keep_matching: false } } },
  };
  for (const config of [{}, { matcher: { matcher_tree } }, { matcher: undefined, cluster: "dns" }])
    expect(begin(config).cx.stats.values.get("cluster.dns.udp.sess_rx_datagrams")).toBe(0);
});

test("each client has a session with one host, and gets what comes back", () => {
  const { cx, cluster, listener, send, answer } = begin();
  send("one");
  send("two");
  send("other", 2000);
  expect(cx.udpSockets.map(({ sent }) => sent.map(({ text }) => text))).toEqual([
    ["one", "two"],
    ["other"],
  ]);
  expect(cx.udpSockets[0]!.address).toEqual(cluster.host.address);
  answer(1, "back");
  expect(listener.sent).toEqual([{ text: "back", to: { ip: "192.0.2.1", port: 2000 } }]);
  expect(cx.stats.value("udp.u.downstream_sess_total")).toBe(2);
  expect(cx.stats.value("udp.u.downstream_sess_rx_bytes")).toBe(11);
  expect(cx.stats.value("cluster.dns.udp.sess_tx_datagrams")).toBe(3);
  expect(cx.stats.value("udp.u.downstream_sess_tx_datagrams")).toBe(1);
});

test("a session without datagrams ends, one with some goes on", () => {
  const { cx, send } = begin();
  send("one");
  cx.clock.advance(800);
  send("two");
  cx.clock.advance(800);
  expect(cx.stats.value("udp.u.downstream_sess_active")).toBe(1);
  cx.clock.advance(400);
  expect(cx.stats.value("udp.u.downstream_sess_active")).toBe(0);
  expect(cx.stats.value("udp.u.idle_timeout")).toBe(1);
  expect(cx.udpSockets[0]!.open).toBe(false);
  send("three");
  expect(cx.udpSockets).toHaveLength(2);
});

test("another host takes over when the first is unhealthy", () => {
  const { cx, cluster, send } = begin();
  send("one");
  cluster.host.health = "unhealthy";
  cluster.next = cluster.second;
  send("two");
  expect(cx.udpSockets[1]!.address).toEqual(cluster.second.address);
  expect(cx.stats.value("udp.u.downstream_sess_active")).toBe(1);
});

test("a host that is not well is kept while there is no better one", () => {
  const { cx, cluster, send } = begin();
  send("one");
  cluster.host.health = "unhealthy";
  send("two");
  cluster.next = undefined;
  send("three");
  expect(cx.udpSockets.map(({ sent }) => sent.length)).toEqual([3]);
});

test("sessions are connections to the cluster's circuit breaker", () => {
  const access_log = [{ name: "test", package: "access_log/test", config: {} }];
  const { cx, cluster, logged, send } = begin({ access_log });
  let free = 1;
  const limits = {
    beginSession: () => free > 0 && free-- > 0,
    endSession: () => void free++,
  };
  Object.assign(cluster, limits);
  send("one", 1);
  send("two", 2);
  expect(cx.udpSockets).toHaveLength(1);
  expect(cx.stats.value("cluster.dns.upstream_cx_overflow")).toBe(1);
  expect(logged.map(({ info, logType }) => [info.flags, info.upstreamHost, logType])).toEqual([
    [["UO"], undefined, "UdpSessionEnd"],
  ]);
  expect(logged[0]!.metadata!.get("udp.proxy.session")).toMatchObject({ cluster_name: "dns" });
  cx.clock.advance(1000);
  send("three", 2);
  expect(cx.udpSockets).toHaveLength(2);
});

test("lines tell of each session, now and then and at its end, and of all of them", () => {
  const logs = [{ name: "test", package: "access_log/test", config: {} }];
  const { cx, logged, send, answer } = begin({
    access_log: logs,
    proxy_access_log: logs,
    access_log_options: { access_log_flush_interval: 600 },
  });
  send("hello");
  answer(0, "hello hello");
  cx.clock.advance(1000);
  send("again", 2);
  cx.clusterMap.delete("dns");
  send("lost", 3);
  cx.dispose();
  expect(logged.map(({ logType }) => logType)).toEqual([
    ...["UdpPeriodic", "UdpSessionEnd", "UdpSessionEnd", "NotSet"],
  ]);
  expect(logged[1]!.info).toMatchObject({ bytesReceived: 5, bytesSent: 11, connectionId: 0 });
  expect([logged[1]!.info.downstreamWire, logged[1]!.info.upstreamWire]).toEqual([
    undefined,
    undefined,
  ]);
  expect(logged[1]!.metadata!.get("udp.proxy.session")).toEqual({
    cluster_name: "dns",
    ...{ bytes_received: 5, bytes_sent: 11, errors_sent: 0 },
    ...{ datagrams_received: 1, datagrams_sent: 1 },
  });
  expect(logged[3]!.metadata!.get("udp.proxy.proxy")).toEqual({
    ...{ bytes_received: 10, bytes_sent: 11, errors_sent: 0, errors_received: 0 },
    ...{ datagrams_received: 2, datagrams_sent: 1 },
    ...{ no_route: 1, session_total: 2, idle_timeout: 1 },
  });
});

test("per packet, every datagram asks for a host, and sessions are one a host", () => {
  const { cx, cluster, send } = begin({ use_per_packet_load_balancing: true });
  send("one");
  cluster.next = cluster.second;
  send("two");
  cluster.next = cluster.host;
  send("three");
  expect(cluster.asked).toHaveLength(3);
  expect(cx.udpSockets.map(({ sent }) => sent.length)).toEqual([2, 1]);
});

test.each([false, true])(
  "a reload of the config keeps the sessions of hosts that are still there (load balancing per packet: %s)",
  (use_per_packet_load_balancing) => {
    const { cx, cluster, send } = begin({ use_per_packet_load_balancing });
    send("one");
    const renewed = new UdpCluster("dns", cx.stats);
    cx.clusterMap.set("dns", renewed);
    send("two");
    expect(cx.udpSockets.map(({ sent, open }) => [sent.length, open])).toEqual([[2, true]]);
    expect([cluster.sessions, renewed.sessions]).toEqual([0, 1]);
  },
);

test.each([false, true])(
  "a reload of the config ends the sessions of hosts that are gone (load balancing per packet: %s)",
  (use_per_packet_load_balancing) => {
    const { cx, send } = begin({ use_per_packet_load_balancing });
    send("one");
    const renewed = new UdpCluster("dns", cx.stats);
    renewed.hosts.shift();
    renewed.next = renewed.second;
    cx.clusterMap.set("dns", renewed);
    send("two");
    expect(cx.udpSockets.map(({ sent, open }) => [sent.length, open])).toEqual(
      use_per_packet_load_balancing
        ? [
            [1, true],
            [1, true],
          ]
        : [
            [1, false],
            [1, true],
          ],
    );
  },
);

test("a session that its renewed cluster has no room for ends, and is counted once", () => {
  const { cx, cluster, send } = begin();
  send("one");
  const renewed = new UdpCluster("dns", cx.stats);
  renewed.room = 0;
  cx.clusterMap.set("dns", renewed);
  send("two");
  expect(cx.udpSockets.map(({ open }) => open)).toEqual([false]);
  expect([cluster.sessions, renewed.sessions]).toEqual([0, 0]);
});

test("hashes the client's address, or a fixed key", () => {
  const address = begin({ hash_policies: [{ source_ip: true }] });
  address.send("one");
  address.send("two", 2);
  const [a, b] = address.cluster.asked;
  expect(a!.hash).toBe(b!.hash);
  expect(a!.hash).not.toBeUndefined();
  const key = begin({ hash_policies: [{ key: "k" }] });
  key.send("one");
  expect(key.cluster.asked[0]!.hash).not.toBe(a!.hash);
});

test("without a cluster or a host the datagram is dropped and counted", () => {
  const { cx, cluster, send } = begin();
  cluster.next = undefined;
  send("one");
  cx.clusterMap.delete("dns");
  send("two");
  expect(cx.stats.value("udp.u.downstream_sess_no_route")).toBe(1);
  expect(cx.udpSockets).toHaveLength(0);
});

test("an answer beyond the largest datagram is dropped where each is read alone", () => {
  const { cx, listener, send, answer } = begin({ upstream_socket_config: { prefer_gro: false } });
  send("one");
  answer(0, "x".repeat(1501));
  expect(listener.sent).toHaveLength(0);
  expect(cx.stats.value("cluster.dns.udp.sess_rx_datagrams_dropped")).toBe(1);
});

test("the end of a generation ends its sessions", () => {
  const { cx, send } = begin();
  send("one");
  cx.dispose();
  expect(cx.udpSockets[0]!.open).toBe(false);
  expect(cx.stats.value("udp.u.downstream_sess_active")).toBe(0);
});
