import {
  Chunk,
  type ClientCodec,
  type ClientEvents,
  type CloseEvent,
  type Cluster,
  ConfigError,
  type Connection,
  defineBalancer,
  defineCluster,
  defineCodec,
  type Host,
  type HostSet,
  type HostSpec,
  latin1Decode,
  latin1Encode,
  type PoolCallbacks,
  type PoolFailure,
  type RequestEncoder,
  type ResponseDecoder,
  ResponseHeaders,
  type Service,
  type SetupContext,
  Type,
} from "@tsproxy/sdk";
import { TestContext, type TestStats } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import clusterManager from "./filter.ts";
import { FLAG } from "./health-flags.ts";
import type { UpstreamCluster } from "./upstream-cluster.ts";

// ---- a codec of one word a message: `request`, and `ok`, `bye` (the last answer of a connection) or `bad`

class WordCodec implements ClientCodec {
  readonly #connection: Connection;
  readonly #events: ClientEvents;
  #decoder: ResponseDecoder | undefined = undefined;

  constructor(connection: Connection, events: ClientEvents) {
    this.#connection = connection;
    this.#events = events;
  }
  get active(): boolean {
    return this.#decoder !== undefined;
  }
  newStream(decoder: ResponseDecoder): RequestEncoder {
    this.#decoder = decoder;
    return {
      encodeHeaders: () => this.#connection.write(latin1Encode("request "), 0, 8),
      encodeBody: () => {},
      encodeTrailers: () => {},
      reset: () => this.#giveUp("abort"),
      pauseReading: () => {},
    };
  }
  onData(chunk: Chunk): void {
    const words = latin1Decode(chunk.memory, chunk.at, chunk.end).trim().split(" ");
    const decoder = this.#decoder;
    if (decoder === undefined) return;
    if (words[0] === "bad") {
      this.#giveUp("abort");
      decoder.onDecodeError({ status: 502, body: "", details: "bad" });
      return;
    }
    if (words[0] === "bye") {
      decoder.responseHeaders.set("connection", "close");
      this.#events.onRetire();
    }
    decoder.onResponseHeaders(true);
    if (words.length > 1 || words[0] === "bye") this.#giveUp("flush");
    else if (this.#decoder === decoder) {
      this.#decoder = undefined;
      this.#events.onIdle();
    }
  }
  onEof(): void {
    const decoder = this.#decoder;
    this.#giveUp("abort");
    decoder?.onUpstreamReset("connection_closed", undefined);
  }
  onClosed(event: CloseEvent): void {
    this.#decoder?.onUpstreamReset("connection_closed", event);
    this.#decoder = undefined;
  }
  onBlocked(blocked: boolean): void {
    this.#decoder?.onUpstreamBlocked(blocked);
  }
  #giveUp(how: "flush" | "abort"): void {
    this.#decoder = undefined;
    this.#events.onRetire();
    this.#connection.close(how);
  }
}

const wordCodec = defineCodec({
  name: "words",
  config: Type.Object({}),
  setup: () => ({
    protocol: "HTTP/1.1" as const,
    createServer: () => {
      throw new Error("these tests have no server side");
    },
    createClient: (connection, events) => new WordCodec(connection, events),
  }),
});

/** Hosts in turn from the first, so that tests know who is next. */
const inTurn = defineBalancer({
  name: "in_turn",
  config: Type.Object({}),
  setup: () => ({
    create: ({ hosts }) => {
      let next = 0;
      const choose = () => hosts[next++ % hosts.length];
      return { choose, peek: choose };
    },
  }),
});

const listed = defineCluster({
  name: "listed",
  config: Type.Unsafe<{ hosts?: HostSpec[] }>({ type: "object" }),
  setup: (config) => {
    if (config.hosts?.some((h) => h.ip === "name"))
      throw new ConfigError("hosts[0]", "malformed IP address");
    return { initialHosts: config.hosts ?? [] };
  },
});

/** Hosts come when the test says so. */
class Discoverer {
  readonly updates: ((hosts: readonly HostSpec[]) => void)[] = [];
  stopped = 0;
  readonly definition = defineCluster({
    name: "discovered",
    config: Type.Unsafe<object>({ type: "object" }),
    setup: () => ({
      initialHosts: [],
      discover: (update: (hosts: readonly HostSpec[]) => void, _cx: SetupContext) => {
        this.updates.push(update);
        return () => void this.stopped++;
      },
    }),
  });
}

// ---- who asks for exchanges

class Caller implements PoolCallbacks, ResponseDecoder {
  readonly decoder = this;
  readonly responseHeaders = new ResponseHeaders();
  encoder: RequestEncoder | undefined = undefined;
  connection: Connection | undefined = undefined;
  host: Host | undefined = undefined;
  failure: PoolFailure | undefined = undefined;
  responses = 0;
  errors = 0;
  resets = 0;
  onFailed: () => void = () => {};

  onPoolReady(encoder: RequestEncoder, host: Host, connection: Connection): void {
    this.encoder = encoder;
    this.host = host;
    this.connection = connection;
    encoder.encodeHeaders(undefined as never, true, "");
  }
  onPoolFailure(failure: PoolFailure): void {
    this.failure = failure;
    this.onFailed();
  }
  onInformational(): void {}
  onResponseHeaders(): void {
    this.responses++;
  }
  onResponseBody(): void {}
  onResponseTrailers(): void {}
  onDecodeError(): void {
    this.errors++;
  }
  onUpstreamReset(): void {
    this.resets++;
  }
  onUpstreamBlocked(): void {}
}

// ---- the world around

const remote: CloseEvent = { by: "remote", phase: "connected", timeout: false, error: undefined };
const local: CloseEvent = { by: "local", phase: "connected", timeout: false, error: undefined };
const refused: CloseEvent = {
  by: "remote",
  phase: "connecting",
  timeout: false,
  error: "ECONNREFUSED",
};
const timedOut: CloseEvent = { by: "local", phase: "connecting", timeout: true, error: undefined };

const spec = (ip: string, more: Partial<HostSpec> = {}): HostSpec => ({
  ip,
  port: 80,
  hostname: "",
  weight: 1,
  priority: 0,
  healthStatus: "UNKNOWN",
  ...more,
});
const listedCluster = (name: string, hosts: HostSpec[], more: object = {}) => ({
  name,
  type: "STATIC",
  lb_policy: "ROUND_ROBIN",
  connect_timeout: 1_000,
  hosts,
  ...more,
});
const discoveredCluster = (name: string, more: object = {}) => ({
  name,
  type: "STRICT_DNS",
  lb_policy: "ROUND_ROBIN",
  connect_timeout: 1_000,
  ...more,
});

let cx: TestContext;
let discoverer: Discoverer;

function equip(context: TestContext): TestContext {
  return context
    .define("codec/http1", wordCodec)
    .define("balancer/round_robin", inTurn)
    .define("cluster/static", listed)
    .define("cluster/strict_dns", discoverer.definition);
}

beforeEach(() => {
  discoverer = new Discoverer();
  cx = equip(new TestContext());
});

const start = (...clusters: object[]): Service => cx.setup(clusterManager, clusters);
const cluster = (service: Service, name = "c"): Cluster => service.clusters!.get(name)!;
const one = (more: object = {}): Cluster =>
  cluster(start(listedCluster("c", [spec("10.0.0.1")], more)));
const ask = (from: Cluster): Caller => {
  const caller = new Caller();
  from.newStream(caller, {});
  return caller;
};
const stat = (name: string, cluster = "c"): number =>
  cx.stats.value(`cluster.${cluster}.upstream_${name}`);
const cell = (name: string, key = "10.0.0.1:80"): number =>
  cx.stats.value(`@host|c|${key}|${name}`);
const connected = (n: number): void => cx.opened[n]!.handler.onConnected!();
const say = (n: number, text: string): void => {
  const { connection, handler } = cx.opened[n]!;
  if (connection.open) handler.onData(new Chunk(latin1Encode(text), 0, text.length));
};
const close = (n: number, event: CloseEvent): void => {
  const { connection, handler } = cx.opened[n]!;
  connection.open = false;
  handler.onClosed(event);
};
/** Core tells handlers of what they have closed at the end of a turn. */
const told = new WeakSet<object>();
const endTurn = (context = cx): void => {
  for (const { connection, handler } of [...context.opened]) {
    if (connection.closed === undefined || told.has(connection)) continue;
    told.add(connection);
    handler.onClosed(local);
  }
};
const gauges = (stats: TestStats = cx.stats): Record<string, number> =>
  Object.fromEntries(
    [...stats.values].filter(([name, value]) => value !== 0 && /_active$/.test(name)),
  );

describe("an HTTP/1 pool", () => {
  it("opens a connection for the first request and sends it when connected", () => {
    const caller = ask(one());
    expect(cx.opened.map((o) => [o.address.ip, o.timeoutMs])).toEqual([["10.0.0.1", 1_000]]);
    expect(caller.encoder).toBeUndefined();
    expect([stat("rq_pending_total"), stat("rq_pending_active"), stat("rq_total")]).toEqual([
      1, 1, 0,
    ]);
    connected(0);
    expect(caller.connection).toBe(cx.opened[0]!.connection);
    expect(cx.opened[0]!.connection.take()).toBe("request ");
    expect([stat("rq_pending_active"), stat("rq_total"), stat("rq_active")]).toEqual([0, 1, 1]);
    expect([cell("rq_total"), cell("rq_active"), cell("cx_total"), cell("cx_active")]).toEqual([
      1, 1, 1, 1,
    ]);
    say(0, "ok");
    expect(caller.responses).toBe(1);
    expect([stat("rq_active"), cell("rq_active"), stat("cx_active")]).toEqual([0, 0, 1]);
  });

  it("may be each client's own", () => {
    const c = one({ connection_pool_per_downstream_connection: true });
    const from = (connectionId: number) => {
      const caller = new Caller();
      const stream = { info: { connectionId } } as never;
      c.newStream(caller, { stream });
      return caller;
    };
    from(1);
    connected(0);
    say(0, "ok");
    from(2);
    expect(cx.opened).toHaveLength(2);
    expect(from(1).connection).toBe(cx.opened[0]!.connection);
    expect([stat("cx_total"), stat("rq_total")]).toEqual([2, 2]);
  });

  it("carries ten thousand exchanges over one connection, and every gauge returns to zero", () => {
    const c = one();
    ask(c);
    connected(0);
    say(0, "ok");
    const caller = new Caller();
    for (let k = 0; k < 9_999; k++) {
      expect(c.newStream(caller, {})).toBeUndefined();
      say(0, "ok");
    }
    expect(caller.responses).toBe(9_999);
    expect(cx.opened).toHaveLength(1);
    expect([stat("cx_total"), stat("rq_total"), stat("rq_pending_total")]).toEqual([1, 10_000, 1]);
    close(0, remote);
    expect(gauges()).toEqual({});
    expect(c.hosts[0]!.activeRequests).toBe(0);
    expect(cx.stats.recorded.get("cluster.c.upstream_rq_per_cx")).toEqual([10_000]);
    expect([
      stat("cx_destroy"),
      stat("cx_destroy_remote"),
      stat("cx_destroy_with_active_rq"),
    ]).toEqual([1, 1, 0]);
    expect(stat("cx_tx_bytes_total")).toBe(80_000);
    expect(stat("cx_rx_bytes_total")).toBe(20_000);
  });

  it("takes the connection that was used last", () => {
    const c = one();
    for (let k = 0; k < 3; k++) ask(c);
    for (let k = 0; k < 3; k++) connected(k);
    say(0, "ok");
    say(2, "ok");
    say(1, "ok");
    expect(ask(c).connection).toBe(cx.opened[1]!.connection);
    expect(ask(c).connection).toBe(cx.opened[2]!.connection);
    expect(cx.opened).toHaveLength(3);
  });

  it("gives a connection that becomes free to whoever waits longest", () => {
    const c = one();
    const first = ask(c);
    connected(0);
    const second = ask(c);
    const third = ask(c);
    expect(cx.opened).toHaveLength(3);
    say(0, "ok");
    expect(first.responses).toBe(1);
    expect(second.connection).toBe(cx.opened[0]!.connection);
    connected(1);
    expect(third.connection).toBe(cx.opened[1]!.connection);
    // The third connection finds nobody waiting and rests for the next.
    connected(2);
    expect(ask(c).connection).toBe(cx.opened[2]!.connection);
  });

  it("fails all three who wait when the attempt fails, naming the host and the reason", () => {
    const callers = [one()].flatMap((c) => [ask(c), ask(c), ask(c)]);
    close(0, refused);
    for (const caller of callers) {
      expect(caller.failure).toMatchObject({
        reason: "connection_failed",
        transportFailure: "delayed_connect_error: Connection refused",
      });
      expect(caller.failure!.host!.key).toBe("10.0.0.1:80");
    }
    expect([
      stat("rq_pending_failure_eject"),
      stat("cx_connect_fail"),
      cell("cx_connect_fail"),
    ]).toEqual([3, 1, 1]);
    close(1, refused);
    close(2, refused);
    expect(gauges()).toEqual({});
    expect(stat("rq_total")).toBe(0);
  });

  it("does not fail a retry together with the attempt that caused it", () => {
    const c = one();
    const caller = ask(c);
    const retry = new Caller();
    caller.onFailed = () => void c.newStream(retry, {});
    close(0, refused);
    expect(caller.failure).toBeDefined();
    expect(retry.failure).toBeUndefined();
    expect(cx.opened).toHaveLength(2);
    connected(1);
    expect(retry.connection).toBe(cx.opened[1]!.connection);
  });

  it("spares a waiting request that another cancels while all are failed", () => {
    const c = one();
    const first = ask(c);
    const second = new Caller();
    const handle = c.newStream(second, {})!;
    first.onFailed = () => handle.cancel();
    close(0, refused);
    expect(second.failure).toBeUndefined();
    expect(stat("rq_cancelled")).toBe(1);
    close(1, refused);
    expect(gauges()).toEqual({});
  });

  it("says that an attempt took too long", () => {
    const caller = ask(one());
    close(0, timedOut);
    expect(caller.failure).toMatchObject({ reason: "connection_timeout", transportFailure: "" });
    expect([stat("cx_connect_timeout"), stat("cx_connect_fail"), stat("cx_destroy_local")]).toEqual(
      [1, 1, 1],
    );
  });

  it("keeps the connection that a cancelled request was waiting for, for the next", () => {
    const c = one();
    const caller = new Caller();
    c.newStream(caller, {})!.cancel();
    expect([stat("rq_cancelled"), stat("rq_pending_active"), stat("cx_active")]).toEqual([1, 0, 1]);
    const next = ask(c);
    expect(cx.opened).toHaveLength(1);
    connected(0);
    expect(caller.connection).toBeUndefined();
    expect(next.connection).toBe(cx.opened[0]!.connection);
  });

  it("takes no notice of a handle that is cancelled late or twice", () => {
    const c = one();
    const caller = new Caller();
    const handle = c.newStream(caller, {})!;
    connected(0);
    handle.cancel();
    handle.cancel();
    expect([stat("rq_cancelled"), stat("rq_active")]).toEqual([0, 1]);
  });

  it("resets the exchange that took an idle connection in the very turn in which the peer closes it", () => {
    const c = one();
    ask(c);
    connected(0);
    say(0, "ok");
    const unlucky = ask(c);
    close(0, remote);
    expect([unlucky.resets, unlucky.responses]).toEqual([1, 0]);
    expect([
      stat("cx_destroy_remote_with_active_rq"),
      stat("rq_active"),
      c.hosts[0]!.activeRequests,
    ]).toEqual([1, 0, 0]);
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });

  it("does not choose an idle connection that has closed, or whose peer has ended it", () => {
    const c = one();
    for (let k = 0; k < 3; k++) ask(c);
    for (let k = 0; k < 3; k++) connected(k);
    for (let k = 0; k < 3; k++) say(k, "ok");
    close(2, remote);
    cx.opened[1]!.handler.onEof();
    expect(cx.opened[1]!.connection.closed).toBe("flush");
    expect(ask(c).connection).toBe(cx.opened[0]!.connection);
    endTurn();
    expect([stat("cx_destroy_remote"), stat("cx_destroy_local")]).toEqual([2, 0]);
  });

  it("drops an idle connection whose peer speaks unasked", () => {
    const c = one();
    ask(c);
    connected(0);
    say(0, "ok");
    say(0, "ok");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    expect(stat("cx_protocol_error")).toBe(1);
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });

  it("takes a 408 on an idle connection for a goodbye", () => {
    ask(one());
    connected(0);
    say(0, "ok");
    say(0, "HTTP/1.1 408 Request Timeout");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    expect(stat("cx_protocol_error")).toBe(0);
  });

  it("gives nobody the bytes that follow a response", () => {
    const c = one();
    ask(c);
    const waiting = ask(c);
    connected(0);
    say(0, "ok ok");
    expect(waiting.responses).toBe(0);
    endTurn();
    expect(stat("cx_active")).toBe(1);
    connected(1);
    expect(waiting.connection).toBe(cx.opened[1]!.connection);
  });

  it("closes the connection of an exchange that is given up half-way", () => {
    const c = one();
    const caller = ask(c);
    connected(0);
    caller.encoder!.reset();
    expect(cx.opened[0]!.connection.closed).toBe("abort");
    endTurn();
    expect([stat("cx_destroy_local_with_active_rq"), stat("rq_active"), stat("cx_active")]).toEqual(
      [1, 0, 0],
    );
    expect(caller.resets).toBe(0);
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });

  it("lets a connection go whose peer announces that it closes", () => {
    const c = one();
    const caller = ask(c);
    connected(0);
    say(0, "bye");
    endTurn();
    expect(caller.responses).toBe(1);
    expect([
      stat("cx_close_notify"),
      stat("cx_destroy_local"),
      stat("cx_destroy_with_active_rq"),
    ]).toEqual([1, 1, 0]);
    expect(gauges()).toEqual({});
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });

  it("counts a malformed answer as an exchange that did not end", () => {
    const caller = ask(one());
    connected(0);
    say(0, "bad");
    endTurn();
    expect(caller.errors).toBe(1);
    expect([
      stat("cx_destroy_local_with_active_rq"),
      stat("cx_close_notify"),
      stat("rq_active"),
    ]).toEqual([1, 0, 0]);
  });

  it("makes connections for requests to come: per_upstream_preconnect_ratio", () => {
    const c = one({ preconnect_policy: { per_upstream_preconnect_ratio: 2 } });
    ask(c);
    expect(cx.opened).toHaveLength(2);
    connected(0);
    connected(1);
    expect(ask(c).connection).toBe(cx.opened[1]!.connection);
    // Two run: there is to be room for four in all.
    expect(cx.opened).toHaveLength(4);
    say(0, "ok");
    say(1, "ok");
    ask(c);
    expect(cx.opened).toHaveLength(4);
  });

  it("makes connections to the hosts of requests to come: predictive_preconnect_ratio", () => {
    const preconnect_policy = { predictive_preconnect_ratio: 1.5 };
    const hosts = [spec("10.0.0.1"), spec("10.0.0.2"), spec("10.0.0.3")];
    const c = cluster(start(listedCluster("c", hosts, { preconnect_policy })));
    const to = () => cx.opened.map(({ address }) => address.ip.at(-1)).join("");
    const first = ask(c);
    // One comes and room for one and a half is wanted: at the two hosts that are next. The request's own connection is the third.
    expect(to()).toBe("231");
    connected(2);
    expect(first.connection).toBe(cx.opened[2]!.connection);
    connected(0);
    connected(1);
    expect(ask(c).connection).toBe(cx.opened[0]!.connection);
    // (1 + 1) × 1.5 are no more than the one in progress and the two of room; (2 + 1) × 1.5 are.
    expect(to()).toBe("231");
    expect(ask(c).connection).toBe(cx.opened[1]!.connection);
    expect(to()).toBe("23112");
    for (const k of [2, 0, 1]) say(k, "ok");
    for (const k of [3, 4]) connected(k);
    ask(c);
    expect(to()).toBe("23112");
  });

  it("looks ahead by what all clusters have room for, and to healthy hosts alone", () => {
    const preconnect_policy = { predictive_preconnect_ratio: 3 };
    const [ahead, other] = [
      listedCluster("c", [spec("10.0.0.1")], { preconnect_policy }),
      listedCluster("o", [spec("10.0.0.9")]),
    ];
    const service = start(ahead, other);
    const idle = [1, 2, 3].map(() => ask(cluster(service, "o")));
    for (const [k] of idle.entries()) connected(k);
    for (const [k] of idle.entries()) say(k, "ok");
    ask(cluster(service, "c"));
    expect(cx.opened).toHaveLength(4);
    const ill = { ...spec("10.0.0.1"), healthStatus: "UNHEALTHY" };
    const c = cluster(start(listedCluster("c", [ill], { preconnect_policy })));
    ask(c);
    expect(cx.opened).toHaveLength(5);
  });

  it("preconnects no further than the breaker allows", () => {
    const thresholds = [{ priority: "DEFAULT", max_connections: 2 }];
    const circuit_breakers = { thresholds, per_host_thresholds: [] };
    const preconnect_policy = { per_upstream_preconnect_ratio: 3 };
    const c = one({ preconnect_policy, circuit_breakers });
    ask(c);
    expect([cx.opened.length, stat("cx_overflow")]).toEqual([2, 1]);
  });

  it("closes a connection after max_requests_per_connection exchanges", () => {
    const c = one({ common_http_protocol_options: { max_requests_per_connection: 2 } });
    for (let k = 0; k < 4; k++) {
      ask(c);
      if (k % 2 === 0) connected(k / 2);
      say(Math.floor(k / 2), "ok");
      endTurn();
    }
    expect(cx.opened).toHaveLength(2);
    expect([stat("cx_max_requests"), stat("cx_destroy_local"), stat("cx_active")]).toEqual([
      2, 2, 0,
    ]);
  });

  it("counts the exchanges that the cluster itself allows, where its options say nothing", () => {
    const c = one({ max_requests_per_connection: 1 });
    ask(c);
    connected(0);
    say(0, "ok");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
  });

  it("closes an idle connection after max_connection_duration, and a busy one after its exchange", () => {
    const c = one({ common_http_protocol_options: { max_connection_duration: 5_000 } });
    ask(c);
    ask(c);
    connected(0);
    connected(1);
    say(0, "ok");
    cx.clock.advance(5_100);
    expect(cx.opened.map(({ connection }) => connection.closed)).toEqual(["flush", undefined]);
    expect(stat("cx_max_duration_reached")).toBe(2);
    say(1, "ok");
    expect(cx.opened[1]!.connection.closed).toBe("flush");
    ask(c);
    expect(cx.opened).toHaveLength(3);
  });

  it("reads the same options from typed_extension_protocol_options", () => {
    const c = one({
      typed_extension_protocol_options: {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
          common_http_protocol_options: { max_requests_per_connection: 1 },
          explicit_http_config: { http_protocol_options: {} },
        },
      },
    });
    ask(c);
    connected(0);
    say(0, "ok");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
  });

  it("closes what has been idle for the idle timeout, longest first", () => {
    const c = one({ common_http_protocol_options: { idle_timeout: 10_000 } });
    ask(c);
    ask(c);
    connected(0);
    connected(1);
    say(0, "ok");
    cx.clock.advance(6_000);
    say(1, "ok");
    cx.clock.advance(4_000);
    expect([cx.opened[0]!.connection.closed, cx.opened[1]!.connection.closed]).toEqual([
      "flush",
      undefined,
    ]);
    cx.clock.advance(6_000);
    expect(cx.opened[1]!.connection.closed).toBe("flush");
    expect(stat("cx_idle_timeout")).toBe(2);
    endTurn();
    expect(stat("cx_active")).toBe(0);
  });

  it("keeps idle connections for an hour when the config does not say", () => {
    ask(one());
    connected(0);
    say(0, "ok");
    cx.clock.advance(3_599_000);
    expect(cx.opened[0]!.connection.closed).toBeUndefined();
    cx.clock.advance(1_000);
    expect(cx.opened[0]!.connection.closed).toBe("flush");
  });

  it("lets 1,024 requests wait and turns the next away", () => {
    const c = one();
    for (let k = 0; k < 1_024; k++) ask(c);
    const late = ask(c);
    expect(late.failure).toEqual({ reason: "overflow", host: undefined, transportFailure: "" });
    expect([stat("rq_pending_overflow"), stat("rq_pending_active")]).toEqual([1, 1_024]);
    connected(0);
    expect(ask(c).failure).toBeUndefined();
  });

  it("counts what a host answered", () => {
    const host = one().hosts[0]!;
    host.onResponse(200);
    host.onResponse(404);
    host.onResponse(503);
    host.onReset();
    host.onTimeout();
    host.onResponse(409, true);
    expect([cell("rq_success"), cell("rq_error"), cell("rq_timeout")]).toEqual([2, 4, 1]);
  });

  it("tells the exchange when the upstream does not take what is sent", () => {
    const blocked: boolean[] = [];
    const caller = new Caller();
    caller.onUpstreamBlocked = (b?: boolean) => void blocked.push(b!);
    one().newStream(caller, {});
    connected(0);
    cx.opened[0]!.handler.onBlocked!();
    cx.opened[0]!.handler.onDrained!();
    expect(blocked).toEqual([true, false]);
    expect([stat("flow_control_backed_up_total"), stat("flow_control_drained_total")]).toEqual([
      1, 1,
    ]);
  });
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
    opened.connection.write(latin1Encode("ping"), 0, 4);
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
    discoverer.updates[0]!([spec("10.0.0.1"), spec("10.0.0.2", { healthStatus: "DEGRADED" })]);
    discoverer.updates[0]!([spec("10.0.0.1", { weight: 3 }), spec("10.0.0.2")]);
    expect([
      value("cluster.c.membership_total"),
      value("cluster.c.membership_degraded"),
      value("cluster.c.membership_change"),
    ]).toEqual([2, 0, 1]);
  });

  it("publishes what admin shows of clusters and hosts", () => {
    const locality = { region: "r", zone: "z" };
    const metadata = { filter_metadata: { "envoy.lb": { canary: true } } };
    start(
      listedCluster(
        "c",
        [spec("::1", { locality, metadata, weight: 3, hostname: "h", healthStatus: "DRAINING" })],
        {
          alt_stat_name: "other",
        },
      ),
    );
    expect(cx.published.get("cluster_manager/status")).toMatchObject({
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

  it("gathers many changes into one status", () => {
    start(discoveredCluster("c"));
    discoverer.updates[0]!([spec("10.0.0.1")]);
    discoverer.updates[0]!([spec("10.0.0.2")]);
    expect(cx.published.get("cluster_manager/status")).toMatchObject({ clusters: [{ hosts: [] }] });
    cx.clock.advance(50);
    expect(cx.published.get("cluster_manager/status")).toMatchObject({
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

describe("workers and the canary", () => {
  it("discover nothing", () => {
    start(discoveredCluster("c"));
    cx = equip(new TestContext());
    cx.role = "canary";
    start(discoveredCluster("c"));
    expect(discoverer.updates).toEqual([]);
    expect(cx.waits).toEqual([]);
  });

  it("leave the gauges that everybody would count to the control thread", () => {
    start(listedCluster("c", [spec("10.0.0.1")]));
    expect(cx.stats.value("cluster.c.membership_total")).toBe(0);
    expect(cx.stats.value("cluster_manager.active_clusters")).toBe(0);
    expect(cx.published.has("cluster_manager/status")).toBe(false);
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

  it("is refused for a type or a policy that nobody brings", () => {
    expect(refusal(listedCluster("c", [], { type: "EDS" })).path).toBe("[0].type");
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

describe("a new generation", () => {
  /** The next generation beside the old one, as core prepares it. */
  const prepare = (old: TestContext): TestContext => {
    const next = equip(new TestContext());
    next.role = old.role;
    next.previous = old.handover!();
    return next;
  };
  /** Core ends the old one; what the tests see of sockets goes on under the new context. */
  const commit = (old: TestContext, next: TestContext): void => {
    old.dispose();
    cx = next;
  };
  const config = listedCluster("c", [spec("10.0.0.1")]);
  const at = (context: TestContext, n: number) => context.opened[n]!;

  it("goes on with idle connections: it opens none by itself", () => {
    const before = cx;
    const c = cluster(start(config));
    ask(c);
    connected(0);
    say(0, "ok");
    const socket = at(before, 0).connection;
    const next = prepare(before);
    const service = next.setup(clusterManager, [config] as never);
    commit(before, next);
    expect(socket.closed).toBeUndefined();
    const caller = ask(cluster(service));
    expect(caller.connection).toBe(socket);
    say(0, "ok");
    expect(caller.responses).toBe(1);
    expect(ask(cluster(service)).connection).toBe(socket);
  });

  it("counts a connection that goes over once, in the same cells", () => {
    const before = cx;
    ask(cluster(start(config)));
    connected(0);
    say(0, "ok");
    const next = prepare(before);
    Object.assign(next, { stats: before.stats });
    next.setup(clusterManager, [config] as never);
    commit(before, next);
    expect([stat("cx_active"), stat("cx_total")]).toEqual([1, 1]);
    close(0, remote);
    expect([stat("cx_active"), stat("cx_destroy"), cell("cx_active")]).toEqual([0, 1, 0]);
  });

  it("lets exchanges in progress end on the old code, and then takes their connections", () => {
    const before = cx;
    const busy = ask(cluster(start(config)));
    connected(0);
    const socket = at(before, 0).connection;
    const next = prepare(before);
    Object.assign(next, { stats: before.stats });
    const service = next.setup(clusterManager, [config] as never);
    commit(before, next);
    expect(cluster(service).hosts[0]!.activeRequests).toBe(1);
    say(0, "ok");
    expect(busy.responses).toBe(1);
    expect(cluster(service).hosts[0]!.activeRequests).toBe(0);
    expect(ask(cluster(service)).connection).toBe(socket);
    say(0, "ok");
    close(0, remote);
    expect(gauges()).toEqual({});
  });

  it("takes a connection that was still connecting once it has served who waited for it", () => {
    const before = cx;
    const waiting = ask(cluster(start(config)));
    const next = prepare(before);
    const service = next.setup(clusterManager, [config] as never);
    commit(before, next);
    connected(0);
    expect(waiting.connection).toBe(at(next, 0).connection);
    say(0, "ok");
    expect(ask(cluster(service)).connection).toBe(at(next, 0).connection);
  });

  it("passes connections of two generations back on to the third", () => {
    const first = cx;
    ask(cluster(start(config)));
    connected(0);
    const socket = at(first, 0).connection;
    const second = prepare(first);
    second.setup(clusterManager, [config] as never);
    commit(first, second);
    const third = prepare(second);
    const service = third.setup(clusterManager, [config] as never);
    commit(second, third);
    expect(third.opened.map((o) => o.connection)).toEqual([socket]);
    say(0, "ok");
    expect(ask(cluster(service)).connection).toBe(socket);
  });

  it("closes the connections of a cluster whose config has changed", () => {
    const before = cx;
    ask(cluster(start(config)));
    connected(0);
    say(0, "ok");
    const socket = at(before, 0).connection;
    const next = prepare(before);
    const service = next.setup(clusterManager, [{ ...config, connect_timeout: 9 }] as never);
    commit(before, next);
    expect(socket.closed).toBe("flush");
    ask(cluster(service));
    expect(next.opened.map((o) => o.timeoutMs)).toEqual([0, 9]);
  });

  it("lets a removed cluster finish what it has begun", () => {
    const before = cx;
    const busy = ask(cluster(start(config)));
    connected(0);
    const next = prepare(before);
    next.setup(clusterManager, [] as never);
    commit(before, next);
    say(0, "ok");
    expect(busy.responses).toBe(1);
    expect(at(next, 0).connection.closed).toBe("flush");
  });

  it("answers for an old Cluster object that somebody still holds", () => {
    const before = cx;
    const stale = cluster(start(config));
    const next = prepare(before);
    next.setup(clusterManager, [config] as never);
    commit(before, next);
    ask(stale);
    expect(next.opened).toHaveLength(1);
    expect(ask(stale).failure).toBeUndefined();
  });

  it("that is dropped before it was in service leaves everything as it was", () => {
    const before = cx;
    before.role = "control";
    const c = cluster(start(config, discoveredCluster("d")));
    discoverer.updates[0]!([spec("10.0.0.7")]);
    ask(c);
    connected(0);
    say(0, "ok");
    const next = prepare(before);
    next.setup(clusterManager, [config, discoveredCluster("d", { connect_timeout: 5 })] as never);
    before.published.clear();
    next.dispose();
    // Its hosts may have been published over those of the generation that goes on.
    expect(before.published.get("cluster/d/hosts")).toMatchObject({ hosts: [spec("10.0.0.7")] });
    expect(before.stats.value("cluster_manager.active_clusters")).toBe(2);
    expect(ask(c).connection).toBe(at(before, 0).connection);
    before.dispose();
    expect(before.stats.value("cluster_manager.active_clusters")).toBe(0);
  });

  it("counts clusters that were added, modified and removed, and no member twice", () => {
    const before = cx;
    before.role = "control";
    start(config, listedCluster("gone", []), listedCluster("edited", []));
    const next = prepare(before);
    Object.assign(next, { stats: before.stats });
    next.setup(clusterManager, [
      config,
      listedCluster("edited", [], { connect_timeout: 7 }),
      listedCluster("new", []),
    ] as never);
    const value = (name: string) => before.stats.value(`cluster_manager.${name}`);
    expect([value("cluster_added"), value("active_clusters")]).toEqual([3, 3]);
    commit(before, next);
    expect([value("cluster_added"), value("cluster_modified"), value("cluster_removed")]).toEqual([
      4, 1, 1,
    ]);
    expect(value("active_clusters")).toBe(3);
    expect(before.stats.value("cluster.c.membership_change")).toBe(1);
    expect(before.stats.value("cluster.c.membership_total")).toBe(1);
  });

  it("forgets the generations before once their last exchange has ended", () => {
    const before = cx;
    ask(cluster(start(config)));
    connected(0);
    const estate = before.handover!() as { open(): number; load(c: string, h: string): unknown };
    const next = prepare(before);
    next.setup(clusterManager, [config] as never);
    commit(before, next);
    next.clock.advance(1_000);
    expect(estate.open()).toBe(1);
    expect(estate.load("c", "10.0.0.1:80")).toEqual({ active: 1 });
    close(0, remote);
    next.clock.advance(1_000);
    expect(estate.open()).toBe(0);
    expect(estate.load("c", "10.0.0.1:80")).toBeUndefined();
  });

  it("does not trust what another version of this package left", () => {
    const before = cx;
    start(config);
    const next = equip(new TestContext());
    next.previous = { ...(before.handover!() as object), version: 0 };
    const service = next.setup(clusterManager, [config] as never);
    before.dispose();
    cx = next;
    ask(cluster(service));
    expect(next.opened).toHaveLength(1);
  });
});

describe("new code of the packages inside", () => {
  const slot = (packageName: string) => cx.slots.find((s) => s.ref.package === packageName)!;
  const uses = () => cx.slots.map((s) => s.current.uses);

  it("of a balancer chooses the next host, over the connections that are open", () => {
    const c = cluster(start(listedCluster("c", [spec("10.0.0.1"), spec("10.0.0.2")])));
    ask(c);
    const before = slot("balancer/round_robin").current;
    slot("balancer/round_robin").replace({
      create: ({ hosts }: HostSet) => ({ choose: () => hosts[1] }),
    });
    ask(c);
    ask(c);
    expect(cx.opened.map((o) => o.address.ip)).toEqual(["10.0.0.1", "10.0.0.2", "10.0.0.2"]);
    expect(before.uses).toBe(0);
  });

  it("of the codec serves the next exchange on a connection that is open", () => {
    const c = one();
    ask(c);
    connected(0);
    say(0, "ok");
    const made: Connection[] = [];
    const before = slot("codec/http1").current;
    slot("codec/http1").replace({
      protocol: "HTTP/1.1",
      createClient: (connection: Connection, events: ClientEvents) => {
        made.push(connection);
        return new WordCodec(connection, events);
      },
    });
    expect(before.uses).toBe(1);
    expect(ask(c).connection).toBe(cx.opened[0]!.connection);
    expect(made).toEqual([cx.opened[0]!.connection]);
    expect([before.uses, slot("codec/http1").current.uses]).toEqual([0, 1]);
    say(0, "ok");
    expect(cx.opened).toHaveLength(1);
  });

  it("of a cluster package goes on discovering where the old one stopped", () => {
    cx.role = "control";
    const c = cluster(start(discoveredCluster("c")));
    discoverer.updates[0]!([spec("10.0.0.1")]);
    const host = c.hosts[0];
    slot("cluster/strict_dns").replace(discoverer.definition.setup({}, cx));
    cx.clock.advance(1_000);
    expect([discoverer.stopped, discoverer.updates.length]).toEqual([1, 2]);
    discoverer.updates[0]!([spec("10.0.0.9")]);
    expect(c.hosts[0]).toBe(host);
    discoverer.updates[1]!([spec("10.0.0.1"), spec("10.0.0.2")]);
    expect(c.hosts.map((h) => h.key)).toEqual(["10.0.0.1:80", "10.0.0.2:80"]);
    expect(c.hosts[0]).toBe(host);
  });

  it("is given back when the generation has ended and the last connection has closed", () => {
    const c = one();
    ask(c);
    connected(0);
    cx.dispose();
    expect(uses()).toEqual([1, 0, 0]);
    say(0, "ok");
    endTurn();
    expect(uses()).toEqual([0, 0, 0]);
  });
});

describe("circuit breakers", () => {
  const limited = (limits: object, more: object = {}): Cluster =>
    one({
      circuit_breakers: {
        thresholds: [{ ...THRESHOLDS, ...limits }],
        per_host_thresholds: [],
        ...more,
      },
    });
  const THRESHOLDS = { priority: "DEFAULT", track_remaining: false };
  const count = (what: string): number =>
    cx.sharedCount(`circuit_breakers|c|default|${what}`).value;

  it("let no more requests wait than they may", () => {
    const c = limited({ max_pending_requests: 1 });
    ask(c);
    expect(ask(c).failure?.reason).toBe("overflow");
    expect(stat("rq_pending_overflow")).toBe(1);
    connected(0);
    expect(count("pending_requests")).toBe(0);
    expect(
      limited({ max_pending_requests: 0 }) && ask(limited({ max_pending_requests: 0 })).failure,
    ).toMatchObject({ reason: "overflow" });
  });

  it("let no more requests run than they may, and keep the connection for the next", () => {
    const c = limited({ max_requests: 1 });
    const first = ask(c);
    const second = ask(c);
    connected(0);
    connected(1);
    expect(first.encoder).toBeDefined();
    expect(second.failure?.reason).toBe("overflow");
    expect(cell("rq_error")).toBe(1);
    say(0, "ok");
    const third = ask(c);
    expect(third.encoder).toBeDefined();
    expect([count("requests"), stat("rq_active_overflow")]).toEqual([1, 1]);
    say(0, "ok");
    say(1, "ok");
    expect(count("requests")).toBe(0);
  });

  it("let requests wait for a connection when no more may be opened", () => {
    const c = limited({ max_connections: 1 });
    const first = ask(c);
    const second = ask(c);
    expect([cx.opened.length, stat("cx_overflow")]).toEqual([1, 1]);
    connected(0);
    say(0, "ok");
    expect([first.responses, second.encoder !== undefined]).toEqual([1, true]);
    close(0, remote);
    expect([count("connections"), count("starving")]).toEqual([0, 0]);
    expect(gauges()).toEqual({});
  });

  it("let a host without any connection have one, as Envoy does", () => {
    const c = cluster(
      start(
        listedCluster("c", [spec("10.0.0.1"), spec("10.0.0.2")], {
          circuit_breakers: {
            thresholds: [{ ...THRESHOLDS, max_connections: 1 }],
            per_host_thresholds: [],
          },
        }),
      ),
    );
    ask(c);
    ask(c);
    expect(cx.opened).toHaveLength(2);
    expect([count("connections"), stat("cx_overflow")]).toEqual([2, 1]);
  });

  it("hold across workers: one waits until the other closes what it does not use", () => {
    const here = limited({ max_connections: 1 });
    ask(here);
    connected(0);
    say(0, "ok");
    const elsewhere = equip(new TestContext());
    elsewhere.sharedCount = (name) => cx.sharedCount(name);
    elsewhere.publish = (topic, value) => cx.publish(topic, value);
    const there = cluster(
      elsewhere.setup(clusterManager, [
        listedCluster("c", [spec("10.0.0.1")], {
          circuit_breakers: {
            thresholds: [{ ...THRESHOLDS, max_connections: 1 }],
            per_host_thresholds: [],
          },
        }),
      ]),
    );
    ask(there);
    expect(elsewhere.opened).toHaveLength(0);
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    expect(count("connections")).toBe(1);
    endTurn();
    elsewhere.clock.advance(20);
    expect(elsewhere.opened).toHaveLength(1);
    expect([count("connections"), count("starving")]).toEqual([1, 0]);
  });

  it("of one host hold for it alone", () => {
    const c = one({
      circuit_breakers: {
        thresholds: [],
        per_host_thresholds: [{ priority: "DEFAULT", max_connections: 2 }],
      },
    });
    for (let k = 0; k < 4; k++) ask(c);
    expect([cx.opened.length, stat("cx_overflow") > 0]).toEqual([2, true]);
  });

  it("are each priority's own, and so are its connections", () => {
    const c = limited({ max_pending_requests: 0 });
    const caller = new Caller();
    c.newStream(caller, { priority: "high" });
    connected(0);
    expect(caller.encoder).toBeDefined();
    expect(ask(c).failure?.reason).toBe("overflow");
  });

  it("bound retries, by number or by a share of what is in progress", () => {
    const c = limited({ max_retries: 1 });
    expect([c.beginRetry("default"), c.beginRetry("default")]).toEqual([true, false]);
    c.endRetry("default");
    expect(c.beginRetry("default")).toBe(true);
    c.endRetry("default");
    const budget = { budget_percent: { value: 50 }, min_retry_concurrency: 1 };
    const b = limited({ max_retries: 0, retry_budget: budget });
    for (let k = 0; k < 4; k++) ask(b);
    expect([1, 2, 3].map(() => b.beginRetry("default"))).toEqual([true, true, false]);
  });

  it("are shown by the control thread, and counted for tcp_proxy as well", () => {
    cx.role = "control";
    const c = limited({ max_connections: 1, track_remaining: true });
    const shown = (name: string) => cx.stats.value(`cluster.c.circuit_breakers.default.${name}`);
    expect(shown("remaining_cx")).toBe(1);
    expect(typeof c.connect({ onData: () => {}, onEof: () => {}, onClosed: () => {} }, {})).toBe(
      "object",
    );
    expect(c.connect({ onData: () => {}, onEof: () => {}, onClosed: () => {} }, {})).toBe(
      "overflow",
    );
    cx.clock.advance(50);
    expect([shown("cx_open"), shown("remaining_cx"), shown("rq_open")]).toEqual([1, 0, 0]);
    expect(shown("remaining_cx_pools")).toBe(-1);
    close(0, remote);
    cx.clock.advance(50);
    expect([shown("cx_open"), shown("remaining_cx")]).toEqual([0, 1]);
  });

  it("answer for runtime keys", () => {
    const c = limited({ max_pending_requests: 0 });
    cx.runtime.replace([["circuit_breakers.c.default.max_pending_requests", 5]]);
    ask(c);
    connected(0);
    expect(stat("rq_total")).toBe(1);
  });
});
