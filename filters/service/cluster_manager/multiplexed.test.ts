import {
  Chunk,
  type ClientCodec,
  type ClientEvents,
  type CloseEvent,
  type Cluster,
  type CodecFactory,
  defineBalancer,
  defineCluster,
  defineCodec,
  defineTransport,
  latin1Decode,
  latin1Encode,
  type PoolCallbacks,
  type PoolFailure,
  type RequestEncoder,
  type ResponseDecoder,
  ResponseHeaders,
  Type,
} from "@tsproxy/sdk";
import { requestHeaders, TestContext } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import clusterManager from "./filter.ts";

/** A codec of many exchanges: `ok 2` ends the second, `reset 2` loses it, `room 5` changes the capacity, `bye` retires the connection. */
class ManyCodec implements ClientCodec {
  capacity = 100;
  finished = false;
  #events: ClientEvents;
  readonly #decoders = new Map<number, ResponseDecoder>();
  #last = 0;

  constructor(events: ClientEvents) {
    this.#events = events;
  }
  get active(): boolean {
    return this.#decoders.size > 0;
  }
  newStream(decoder: ResponseDecoder): RequestEncoder {
    const id = ++this.#last;
    this.#decoders.set(id, decoder);
    return {
      protocol: "HTTP/2",
      encodeHeaders: () => {},
      encodeBody: () => {},
      encodeTrailers: () => {},
      reset: () => this.#end(id, false),
      pauseReading: () => {},
    };
  }
  #end(id: number, answered: boolean): void {
    if (this.#decoders.delete(id)) this.#events.onIdle(answered);
  }
  onData(chunk: Chunk): void {
    const [word, number] = latin1Decode(chunk.memory, chunk.at, chunk.end).split(" ");
    if (word === "bye") this.#events.onRetire();
    else if (word === "room") {
      this.capacity = Number(number);
      this.#events.onCapacity?.();
    } else if (word === "reset") {
      this.#decoders.get(Number(number))?.onUpstreamReset("remote", undefined);
      this.#end(Number(number), false);
    } else {
      this.#decoders.get(Number(number))?.onResponseHeaders(true);
      this.#end(Number(number), true);
    }
  }
  onEof(): void {}
  onBlocked(): void {}
  finish(): void {
    this.finished = true;
  }
  adopt(events: ClientEvents): void {
    this.#events = events;
  }
  onClosed(event: CloseEvent): void {
    for (const decoder of this.#decoders.values())
      decoder.onUpstreamReset("connection_closed", event);
    this.#decoders.clear();
  }
}

let codecs: ManyCodec[];
/** Limit of a response's head that each codec was given, in KiB. */
let limits: number[];
const manyCodec = (protocol: CodecFactory["protocol"]) =>
  defineCodec({
    name: protocol,
    config: Type.Object({}),
    setup: () => ({
      protocol,
      createServer: () => {
        throw new Error("these tests have no server side");
      },
      createClient: (_connection, events, { maxHeadBytes }) => {
        limits.push(maxHeadBytes / 1024);
        const codec = new ManyCodec(events);
        codecs.push(codec);
        return codec;
      },
    }),
  });

class Caller implements PoolCallbacks, ResponseDecoder {
  readonly responseHeaders = new ResponseHeaders();
  readonly decoder = this;
  encoder: RequestEncoder | undefined = undefined;
  failure: PoolFailure | undefined = undefined;
  responses = 0;
  resets = 0;

  onPoolReady(encoder: RequestEncoder): void {
    this.encoder = encoder;
  }
  onPoolFailure(failure: PoolFailure): void {
    this.failure = failure;
  }
  onInformational(): void {}
  onResponseHeaders(): void {
    this.responses++;
  }
  onResponseBody(): void {}
  onResponseTrailers(): void {}
  onDecodeError(): void {}
  onUpstreamReset(): void {
    this.resets++;
  }
  onUpstreamBlocked(): void {}
}

const HOST = {
  ip: "10.0.0.1",
  port: 80,
  hostname: "",
  weight: 1,
  priority: 0,
  healthStatus: "UNKNOWN",
} as const;

const equip = (context: TestContext): TestContext =>
  context
    .define("codec/http1", manyCodec("HTTP/1.1"))
    .define("codec/http2", manyCodec("HTTP/2"))
    .define(
      "balancer/round_robin",
      defineBalancer({
        name: "first",
        config: Type.Object({}),
        setup: () => ({ create: ({ hosts }) => ({ choose: () => hosts[0] }) }),
      }),
    )
    .define(
      "cluster/static",
      defineCluster({
        name: "one",
        config: Type.Unsafe<object>({ type: "object" }),
        setup: () => ({
          initialHosts: [HOST],
        }),
      }),
    );

let cx: TestContext;

beforeEach(() => {
  codecs = [];
  limits = [];
  cx = equip(new TestContext());
});

const OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const speaks = (options: object) => ({ typed_extension_protocol_options: { [OPTIONS]: options } });

function start(more: object): Cluster {
  const config = { name: "c", type: "STATIC", lb_policy: "ROUND_ROBIN", connect_timeout: 1000 };
  return cx.setup(clusterManager, [{ ...config, ...more }]).clusters!.get("c")!;
}
const http2 = (options: object = {}, common: object = {}) =>
  start(
    speaks({
      explicit_http_config: { http2_protocol_options: options },
      common_http_protocol_options: common,
    }),
  );
const ask = (from: Cluster, context: object = {}): Caller => {
  const caller = new Caller();
  from.newStream(caller, context);
  return caller;
};
const stat = (name: string): number => cx.stats.value(`cluster.c.upstream_${name}`);
const connected = (n: number): void => cx.opened[n]!.handler.onConnected!();
const say = (n: number, text: string): void =>
  cx.opened[n]!.handler.onData(new Chunk(latin1Encode(text), 0, text.length));

it("takes response heads of 60 KiB over HTTP/2 and 80 over HTTP/1.1, or what the config says", () => {
  const given = (from: Cluster): number | undefined => {
    ask(from);
    connected(cx.opened.length - 1);
    return limits.at(-1);
  };
  expect(given(http2())).toBe(60);
  expect(given(start({}))).toBe(80);
  expect(given(http2({}, { max_response_headers_kb: 70 }))).toBe(70);
});

describe("a pool of HTTP/2 connections", () => {
  it("gives all exchanges to one connection, and opens no other for those that wait for it", () => {
    const c = http2();
    const callers = Array.from({ length: 50 }, () => ask(c));
    expect(cx.opened).toHaveLength(1);
    connected(0);
    expect(callers.every((caller) => caller.encoder !== undefined)).toBe(true);
    for (let k = 1; k <= 50; k++) say(0, `ok ${k}`);
    expect(callers.every((caller) => caller.responses === 1)).toBe(true);
    expect([stat("rq_total"), stat("rq_active"), stat("cx_http2_total")]).toEqual([50, 0, 1]);
    expect(ask(c).encoder).toBeDefined();
  });

  it("opens as many connections as those who wait need places", () => {
    const c = http2({ max_concurrent_streams: 2 });
    for (let k = 0; k < 5; k++) ask(c);
    expect(cx.opened).toHaveLength(3);
  });

  it("opens another when the first is full, and goes on with it when there is room", () => {
    const c = http2();
    ask(c);
    connected(0);
    say(0, "room 2");
    ask(c);
    const third = ask(c);
    expect(third.encoder).toBeUndefined();
    expect(cx.opened).toHaveLength(2);
    say(0, "room 3");
    expect(third.encoder).toBeDefined();
  });

  it("takes a connection whose peer says goodbye out, and closes it after its last exchange", () => {
    const c = http2();
    const first = ask(c);
    connected(0);
    say(0, "bye");
    expect(stat("cx_close_notify")).toBe(1);
    ask(c);
    expect(cx.opened).toHaveLength(2);
    expect(cx.opened[0]!.connection.closed).toBeUndefined();
    say(0, "ok 1");
    expect(first.responses).toBe(1);
    expect(codecs[0]!.finished).toBe(true);
    expect(cx.opened[0]!.connection.closed).toBe("flush");
  });

  it("counts a protocol error, as Envoy does, where the response that it closes after is read to its end", () => {
    for (const [word, errors] of [
      ["reset 1", 0],
      ["ok 1", 1],
    ] as const) {
      const caller = ask(http2());
      const at = cx.opened.length - 1;
      connected(at);
      say(at, "bye");
      say(at, word);
      expect([caller.responses, caller.resets]).toEqual([errors, 1 - errors]);
      expect(cx.opened[at]!.connection.closed).toBe("flush");
      expect(stat("cx_protocol_error")).toBe(errors);
    }
  });

  it("counts exchanges against max_requests_per_connection", () => {
    const c = http2({}, { max_requests_per_connection: 2 });
    for (let k = 0; k < 3; k++) ask(c);
    expect(cx.opened).toHaveLength(2);
    connected(0);
    expect(stat("cx_max_requests")).toBe(1);
    say(0, "ok 1");
    say(0, "ok 2");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    expect(stat("cx_protocol_error")).toBe(1);
  });

  it("loses all exchanges with their connection, and every gauge returns to zero", () => {
    const c = http2();
    const callers = [ask(c), ask(c)];
    connected(0);
    cx.opened[0]!.connection.open = false;
    cx.opened[0]!.handler.onClosed({
      by: "remote",
      phase: "connected",
      timeout: false,
      error: undefined,
    });
    expect(callers.map((caller) => caller.resets)).toEqual([1, 1]);
    expect([stat("rq_active"), stat("cx_active"), c.hosts[0]!.activeRequests]).toEqual([0, 0, 0]);
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });

  it("lets streams end on codec code that has been replaced, and begins the next on the new", () => {
    const c = http2();
    ask(c);
    connected(0);
    const slot = cx.slots.find((s) => s.ref.package === "codec/http2")!;
    slot.replace(slot.current.value);
    ask(c);
    expect(cx.opened).toHaveLength(2);
    say(0, "ok 1");
    expect(cx.opened[0]!.connection.closed).toBe("flush");
  });

  it("closes what has been idle too long", () => {
    const c = http2({}, { idle_timeout: 1000 });
    ask(c);
    connected(0);
    cx.clock.advance(5000);
    expect(cx.opened[0]!.connection.closed).toBeUndefined();
    say(0, "ok 1");
    cx.clock.advance(2500);
    expect(cx.opened[0]!.connection.closed).toBe("flush");
    expect(stat("cx_idle_timeout")).toBe(1);
  });
});

describe("a new generation", () => {
  const config = {
    name: "c",
    type: "STATIC",
    lb_policy: "ROUND_ROBIN",
    connect_timeout: 1000,
    ...speaks({ explicit_http_config: { http2_protocol_options: {} } }),
  };
  const begin = (): Cluster => cx.setup(clusterManager, [config]).clusters!.get("c")!;
  const follow = (old: TestContext): Cluster => {
    const next = equip(new TestContext());
    next.previous = old.handover!();
    Object.assign(next, { stats: old.stats });
    cx = next;
    const cluster = begin();
    old.dispose();
    return cluster;
  };

  it("goes on with an idle connection and its codec", () => {
    const before = cx;
    ask(begin());
    connected(0);
    say(0, "ok 1");
    const c = follow(before);
    const caller = ask(c);
    expect(caller.encoder).toBeDefined();
    expect([codecs.length, cx.opened.length, stat("cx_total")]).toEqual([1, 1, 1]);
    say(0, "ok 2");
    expect(caller.responses).toBe(1);
    expect([stat("rq_active"), stat("cx_active")]).toEqual([0, 1]);
  });

  it("lets streams end on the generation that began them, and then has their connection", () => {
    const before = cx;
    const busy = ask(begin());
    connected(0);
    const c = follow(before);
    say(0, "ok 1");
    expect(busy.responses).toBe(1);
    expect(ask(c).encoder).toBeDefined();
    expect(codecs).toHaveLength(1);
  });

  it("closes an idle connection when new codec code comes", () => {
    const before = cx;
    ask(begin());
    connected(0);
    say(0, "ok 1");
    const c = follow(before);
    const slot = cx.slots.find((s) => s.ref.package === "codec/http2")!;
    slot.replace(slot.current.value);
    ask(c);
    expect(cx.opened).toHaveLength(2);
  });
});

describe("connections for names", () => {
  const named = (options: object) =>
    start({
      ...speaks({ explicit_http_config: {}, upstream_http_protocol_options: options }),
      transport_socket: { name: "tls", package: "transport/tls", config: {} },
    });
  const head = (host: string, ...lines: string[]) => ({
    head: requestHeaders("GET", "/", "host", host, ...lines),
  });
  const offered = () =>
    cx.opened.map(({ transportOptions }) => {
      const { serverName, subjectAltNames } = transportOptions ?? {};
      return [serverName, subjectAltNames?.join()];
    });

  beforeEach(() => {
    const setup = () => ({ secure: true });
    cx.define("transport/tls", defineTransport({ name: "tls", config: Type.Object({}), setup }));
  });

  it("ask for the host of their requests, and serve no other", () => {
    const c = named({ auto_sni: true });
    for (const host of ["a.test", "A.test:443", "b.test", "10.0.0.1:80", "[::1]:80", "a b"])
      ask(c, head(host));
    expect(offered()).toEqual([
      ["a.test", undefined],
      ["a.test", undefined],
      ["b.test", undefined],
      [undefined, undefined],
      [undefined, undefined],
      [undefined, undefined],
    ]);
    connected(0);
    say(0, "ok 1");
    expect(ask(c, head("a.test")).encoder).toBeDefined();
    expect(ask(c, head("b.test")).encoder).toBeUndefined();
  });

  it("verify it, addresses too, and whatever header the config names", () => {
    const c = named({
      auto_sni: true,
      auto_san_validation: true,
      override_auto_sni_header: "x-name",
    });
    ask(c, head("a.test", "x-name", "b.test"));
    ask(c, head("a.test", "x-name", ""));
    ask(c, head("10.0.0.1:80"));
    ask(c);
    expect(offered()).toEqual([
      ["b.test", "b.test"],
      ["a.test", "a.test"],
      [undefined, "10.0.0.1"],
      [undefined, ""],
    ]);
  });

  it("are held to them where requests name the hosts, unless the config says that they need not be", () => {
    let peerNames: "verified" | "any" = "verified";
    const config = Type.Object({});
    const setup = () => ({ initialHosts: [HOST], peerNames });
    cx.define("cluster/by_name", defineCluster({ name: "by_name", config, setup }));
    const cluster = (more: object) =>
      start({
        cluster_type: { name: "t", package: "cluster/by_name", config: {} },
        transport_socket: { name: "tls", package: "transport/tls", config: {} },
        ...more,
      });
    const options = (upstream_http_protocol_options: object) => ({
      upstream_http_protocol_options,
    });
    ask(cluster({}), head("a.test"));
    expect(offered()).toEqual([["a.test", "a.test"]]);
    for (const half of [{ auto_sni: true }, { auto_san_validation: true }]) {
      expect(() => cluster(options(half))).toThrow(/requests name the hosts/);
      expect(() => cluster(speaks({ explicit_http_config: {}, ...options(half) }))).toThrow();
    }
    peerNames = "any";
    ask(cluster(options({ auto_sni: true })), head("b.test"));
    expect(offered().at(-1)).toEqual(["b.test", undefined]);
  });

  it("of names that nobody asks for any more make room for others", () => {
    const c = named({ auto_sni: true });
    for (let k = 0; k < 256; k++) ask(c, head(`${k}.test`));
    expect(ask(c, head("one-more.test")).failure?.reason).toBe("overflow");
    connected(7);
    say(7, "ok 1");
    expect(ask(c, head("one-more.test")).failure).toBeUndefined();
    expect(cx.opened[7]!.connection.closed).toBe("flush");
    expect(cx.opened.at(-1)!.transportOptions?.serverName).toBe("one-more.test");
  });
});

describe("the protocol of a cluster", () => {
  it("is HTTP/2 with the older field, too", () => {
    ask(start({ http2_protocol_options: {} }));
    expect(stat("cx_http2_total")).toBe(1);
  });

  it("can be that of the request", () => {
    for (const more of [
      speaks({ use_downstream_protocol_config: {} }),
      { protocol_selection: "USE_DOWNSTREAM_PROTOCOL" },
    ]) {
      const c = start(more);
      const before = [stat("cx_http1_total"), stat("cx_http2_total")];
      ask(c, { downstreamProtocol: "HTTP/2" });
      ask(c, { downstreamProtocol: "HTTP/1.1" });
      expect([stat("cx_http1_total"), stat("cx_http2_total")]).toEqual(before.map((n) => n + 1));
    }
  });

  it("can be what TLS has agreed on, HTTP/1.1 without: cx_total counts the connection and its protocol", () => {
    const c = start(speaks({ auto_config: {} }));
    ask(c);
    expect(stat("cx_total")).toBe(1);
    connected(0);
    expect([stat("cx_http1_total"), stat("cx_http2_total")]).toEqual([1, 0]);
    expect([stat("cx_total"), stat("cx_active")]).toEqual([2, 1]);
  });
});
