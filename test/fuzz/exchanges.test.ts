import {
  Chunk,
  type CloseEvent,
  defineBalancer,
  defineHttpFilter,
  type HttpFilterFactory,
  hold,
  latin1Encode,
  reply,
  Type,
} from "@tsproxy/sdk";
import type { Opened, TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import listed from "../../filters/cluster/static/filter.ts";
import http1 from "../../filters/codec/http1/filter.ts";
import http2 from "../../filters/codec/http2/filter.ts";
import { FLAG, PREFACE, SETTING, TYPE } from "../../filters/codec/http2/frame.ts";
import {
  frame,
  framesOf,
  literal,
  setting,
  uint32,
} from "../../filters/codec/http2/test-frames.ts";
import router from "../../filters/http/router/filter.ts";
import upstreamCodec from "../../filters/http/upstream_codec/filter.ts";
import {
  oneHost,
  routeTo,
  type TestClient,
  TestProxy,
} from "../../filters/network/http_connection_manager/test-proxy.ts";
import clusterManager from "../../filters/service/cluster_manager/filter.ts";
import { Random } from "./random.ts";

// Clients, upstreams and filters that do anything at any time, around the connection manager, the router, the cluster manager and
// both codecs. Whatever they do, nothing throws, and once all have left every gauge and every shared count is back at 0.

const ROUNDS = Number(process.env["FUZZ_ROUNDS"] ?? 60);
const FROM = Number(process.env["FUZZ_FROM"] ?? 1);
const STEPS = 80;
const HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

class Dice extends Random {
  often(share: number): boolean {
    return this.next() < share;
  }
  /** Some of the fields, each with this chance. */
  some<T extends object>(share: number, fields: T): Partial<T> {
    return Object.fromEntries(Object.entries(fields).filter(() => this.often(share))) as Partial<T>;
  }
}

// ---- what is in between

/** A filter that now and then waits, holds, answers, throws, or wants to see no more. */
function moody(dice: Dice): HttpFilterFactory {
  return (stream) => {
    const act = (isHead: boolean) => {
      if (dice.often(0.7)) return undefined;
      switch (dice.below(8)) {
        case 0:
          return isHead
            ? hold({ body: dice.pick(["buffer", "stream"]), max: dice.pick([2, 9999]) })
            : undefined;
        case 1:
          return stream.sleep(dice.pick([0, 5, 50, 5000])).then(() => undefined);
        case 2:
          return stream.sleep(10).then(() => reply(418, { body: "teapot" }));
        case 3:
          return reply(dice.pick([200, 429, 503]), { body: dice.pick(["", "no"]) });
        case 4:
          return Promise.reject(new Error("a filter fails"));
        case 5:
          return new Promise<undefined>(() => {});
        case 6:
          if (dice.often(0.3)) throw new Error("a filter fails");
          return undefined;
        default:
          return undefined;
      }
    };
    return {
      onRequestHeaders: () => act(true),
      onRequestBody: () => act(false) as never,
      onRequestTrailers: () => act(false) as never,
      onResponseHeaders: () => act(true),
      onResponseBody: () => act(false) as never,
      onResponseTrailers: () => act(false) as never,
    };
  };
}

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

function clusterConfig(dice: Dice, name: string, speaksHttp2: boolean) {
  const endpoint = (n: number) => ({
    endpoint: { address: { socket_address: { address: `10.0.0.${n}`, port_value: 80 } } },
  });
  return {
    name,
    type: "STATIC",
    lb_policy: "ROUND_ROBIN",
    connect_timeout: 1000,
    load_assignment: {
      cluster_name: name,
      endpoints: [{ lb_endpoints: [endpoint(1), endpoint(2)] }],
    },
    circuit_breakers: {
      thresholds: [
        {
          priority: "DEFAULT",
          ...dice.some(0.2, {
            max_connections: dice.pick([1, 2]),
            max_pending_requests: dice.pick([0, 1]),
            max_requests: dice.pick([1, 3]),
            max_retries: dice.pick([0, 1]),
          }),
        },
      ],
      per_host_thresholds: [],
    },
    typed_extension_protocol_options: {
      [HTTP_OPTIONS]: {
        explicit_http_config: speaksHttp2
          ? { http2_protocol_options: dice.some(0.3, { max_concurrent_streams: 2 }) }
          : { http_protocol_options: {} },
        common_http_protocol_options: dice.some(0.2, {
          max_requests_per_connection: dice.pick([1, 3]),
          max_connection_duration: 500,
          max_stream_duration: 400,
          idle_timeout: 300,
        }),
      },
    },
  };
}

function routeConfig(dice: Dice): object {
  const retry_policy = {
    retry_on: dice.pick(["5xx", "reset,connect-failure,retriable-4xx", "5xx,reset-before-request"]),
    num_retries: dice.pick([1, 3]),
    ...dice.some(0.4, { per_try_timeout: 50, per_try_idle_timeout: 40 }),
  };
  return dice.some(0.35, {
    retry_policy,
    hedge_policy: { hedge_on_per_try_timeout: true },
    request_mirror_policies: [{ cluster: "mirror" }],
    internal_redirect_policy: { max_internal_redirects: 2, redirect_response_codes: [302] },
    timeout: dice.pick([100, 1000]),
    max_stream_duration: { max_stream_duration: 700 },
    idle_timeout: 300,
    request_body_buffer_limit: 4,
  });
}

/** A proxy with a random config. */
function proxy(dice: Dice): {
  readonly p: TestProxy;
  readonly downstream2: boolean;
  readonly upstream2: boolean;
} {
  const [downstream2, upstream2] = [dice.often(0.5), dice.often(0.5)];
  const p = new TestProxy({ codec: http1, http2, router });
  p.cx.define("balancer/round_robin", inTurn).define("cluster/static", listed);
  p.cx.define("http/upstream_codec", upstreamCodec);
  const clusters = ["up", "mirror"].map((name) => clusterConfig(dice, name, upstream2));
  const service = p.cx.setup(clusterManager, clusters);
  for (const { name } of clusters) p.cx.clusterMap.set(name, service.clusters!.get(name)!);
  for (let k = dice.below(3); k > 0; k--) p.filter(`moody${k}`, moody(dice));
  const passes = { name: "codec", package: "http/upstream_codec", config: {}, disabled: false };
  const inner = { name: "inner", package: "http/inner", config: {}, disabled: false };
  const setup = () => moody(dice);
  p.cx.define("http/inner", defineHttpFilter({ name: "inner", config: Type.Object({}), setup }));
  const upstream_http_filters = dice.often(0.5) ? [inner, passes] : undefined;
  const config = dice.some(0.2, {
    stream_idle_timeout: 200,
    request_timeout: 150,
    request_headers_timeout: 100,
    proxy_100_continue: true,
    access_log_options: { access_log_flush_interval: 60 },
  });
  p.start(
    {
      ...config,
      ...(downstream2 && { codec_type: "HTTP2" }),
      route_config: oneHost(routeTo("up", routeConfig(dice))),
      upgrade_configs: [{ upgrade_type: "websocket" }],
    },
    { upstream_http_filters },
  );
  return { p, downstream2, upstream2 };
}

// ---- clients

const REQUESTS = [
  "GET /a HTTP/1.1\r\nhost: h\r\n\r\n",
  "POST /b HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabcdef",
  "POST /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
  "POST /d HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
  "GET /w HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello",
  "HEAD /e HTTP/1.1\r\nhost: h\r\n\r\n",
  "POST /g HTTP/1.1\r\nhost: h\r\ncontent-type: application/grpc\r\ncontent-length: 3\r\n\r\nabc",
  "GET /0 HTTP/1.0\r\nhost: h\r\n\r\n",
  "no request\r\n\r\n",
];

class Client {
  readonly #dice: Dice;
  readonly #client: TestClient;
  readonly #speaksHttp2: boolean;
  #rest = "";
  #lastId = -1;
  /** Requests that are not complete, over HTTP/2. */
  readonly #open = new Set<number>();
  #gone = false;

  constructor(dice: Dice, p: TestProxy, speaksHttp2: boolean) {
    this.#dice = dice;
    this.#client = p.connect();
    this.#speaksHttp2 = speaksHttp2;
    const windows = [setting(SETTING.INITIAL_WINDOW_SIZE, dice.pick([0, 5, 100]))];
    const settings = dice.often(0.3) ? windows.join("") : "";
    if (speaksHttp2) this.#client.send(PREFACE + frame(TYPE.SETTINGS, 0, 0, settings));
  }

  step(): void {
    const { connection, filter } = this.#client;
    const dice = this.#dice;
    if (this.#gone) return;
    if (dice.often(0.05)) this.leave();
    else if (dice.often(0.06) && connection.open)
      filter.onData?.(new Chunk(new Uint8Array(0), 0, 0), true);
    else if (dice.often(0.08)) {
      connection.blocked = !connection.blocked;
      if (connection.blocked) filter.onBlocked?.();
      else filter.onDrained?.();
    } else if (connection.agains > 0 && dice.often(0.5)) {
      connection.agains = 0;
      filter.onAgain?.();
    } else if (connection.open && connection.pauses === 0)
      this.#client.send(this.#speaksHttp2 ? this.#frame() : this.#piece());
  }

  /** A request, or the next part of one. */
  #piece(): string {
    const text = this.#rest === "" ? this.#dice.pick(REQUESTS) : this.#rest;
    const cut = this.#dice.often(0.5) ? text.length : 1 + this.#dice.below(text.length - 1);
    this.#rest = text.slice(cut);
    return text.slice(0, cut);
  }

  #frame(): string {
    const dice = this.#dice;
    const id = dice.pick([...this.#open, 0]);
    if (id === 0 || dice.often(0.4)) return this.#request();
    switch (dice.below(5)) {
      case 0:
        this.#open.delete(id);
        return frame(TYPE.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, id, literal("x-t", "1"));
      case 1:
        this.#open.delete(id);
        return frame(TYPE.RST_STREAM, 0, id, uint32(dice.pick([0, 8])));
      case 2:
        return frame(TYPE.WINDOW_UPDATE, 0, dice.pick([0, id]), uint32(1000));
      default: {
        const ends = dice.often(0.5);
        if (ends) this.#open.delete(id);
        return frame(TYPE.DATA, ends ? FLAG.END_STREAM : 0, id, "abc");
      }
    }
  }

  #request(): string {
    const dice = this.#dice;
    this.#lastId += 2;
    const hasBody = dice.often(0.6);
    if (hasBody) this.#open.add(this.#lastId);
    const more = dice.pick([
      "",
      "",
      literal("content-type", "application/grpc"),
      literal("expect", "100-continue"),
    ]);
    const block = `${hasBody ? "\x83" : "\x82"}\x86\x84\x01\x01h${more}`;
    return frame(
      TYPE.HEADERS,
      FLAG.END_HEADERS | (hasBody ? 0 : FLAG.END_STREAM),
      this.#lastId,
      block,
    );
  }

  leave(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#client.leave();
  }
}

// ---- upstreams

const ANSWERS = [
  "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
  "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
  "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
  "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
  "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
  "HTTP/1.1 302 Found\r\nlocation: http://h/new\r\ncontent-length: 0\r\n\r\n",
  "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi",
  "HTTP/1.1 200 OK\r\n\r\nuntil the end",
  "not HTTP\r\n\r\n",
];
/** Header blocks: 200, 503, 302 with a location, 204, 100. */
const BLOCKS = [
  "\x88",
  "\x48\x03503",
  `\x48\x03302${literal("location", "http://h/new")}`,
  "\x89",
  "\x48\x03100",
];

const event = (by: "local" | "remote", connected: boolean, timeout = false): CloseEvent => ({
  by,
  phase: connected ? "connected" : "connecting",
  timeout,
  error: connected || timeout ? undefined : "ECONNREFUSED",
});

/** The far end of a connection that the proxy has opened. */
class Upstream {
  readonly #dice: Dice;
  readonly #opened: Opened;
  readonly #speaksHttp2: boolean;
  #connected = false;
  #closed = false;
  #ended = false;
  #greeted = false;
  /** Over HTTP/2: streams without an end. Over HTTP/1: an entry a request. */
  readonly #asked: number[] = [];
  #rest = "";

  constructor(dice: Dice, opened: Opened, speaksHttp2: boolean) {
    this.#dice = dice;
    this.#opened = opened;
    this.#speaksHttp2 = speaksHttp2;
  }

  get #connection(): TestConnection {
    return this.#opened.connection;
  }

  /** Core tells of a close by the proxy at the end of the turn. */
  endTurn(): void {
    if (this.#connection.closed !== undefined) this.close("local");
  }
  close(by: "local" | "remote", timeout = false): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.open = false;
    this.#opened.handler.onClosed(event(by, this.#connected, timeout));
  }

  /** Reads all that is waiting: requests are complete only when they are on the wire. */
  drain(): void {
    if (!this.#connected || this.#closed || !this.#connection.blocked) return;
    this.#connection.blocked = false;
    this.#opened.handler.onDrained?.();
  }

  step(): void {
    const dice = this.#dice;
    const { handler } = this.#opened;
    if (this.#closed || this.#connection.closed !== undefined) return;
    if (!this.#connected) {
      if (dice.often(0.2)) this.close(dice.pick(["local", "remote"]), dice.often(0.3));
      else {
        this.#connected = true;
        handler.onConnected?.();
      }
    } else if (dice.often(0.04)) this.close("remote");
    else if (this.#ended) return;
    else if (dice.often(0.03)) {
      this.#ended = true;
      handler.onEof();
    } else if (dice.often(0.05)) handler.onAgain?.();
    else if (dice.often(0.08)) {
      this.#connection.blocked = !this.#connection.blocked;
      if (this.#connection.blocked) handler.onBlocked?.();
      else handler.onDrained?.();
    } else this.#say(this.#speaksHttp2 ? this.#frame() : this.#piece());
  }

  #say(text: string): void {
    const bytes = latin1Encode(text);
    if (bytes.length > 0) this.#opened.handler.onData(new Chunk(bytes, 0, bytes.length));
  }

  #piece(): string {
    const requests = this.#connection.take().split("HTTP/1.1\r\n").length - 1;
    for (let k = 0; k < requests; k++) this.#asked.push(k);
    if (this.#rest === "" && this.#asked.pop() === undefined) return "";
    const text = this.#rest === "" ? this.#dice.pick(ANSWERS) : this.#rest;
    const cut = this.#dice.often(0.6) ? text.length : 1 + this.#dice.below(text.length - 1);
    this.#rest = text.slice(cut);
    return text.slice(0, cut);
  }

  #frame(): string {
    const dice = this.#dice;
    for (const { type, id } of framesOf(this.#connection.take())) {
      if (type === TYPE.HEADERS && !this.#asked.includes(id)) this.#asked.push(id);
    }
    if (!this.#greeted) {
      this.#greeted = true;
      const few = setting(SETTING.MAX_CONCURRENT_STREAMS, dice.pick([0, 1, 2]));
      return frame(TYPE.SETTINGS, 0, 0, dice.often(0.3) ? few : "");
    }
    switch (dice.below(20)) {
      case 0:
        return frame(TYPE.GOAWAY, 0, 0, uint32(dice.pick([0, 1, 100])) + uint32(0));
      case 1:
        return frame(TYPE.DATA, 0, 0, "on no stream");
      case 2:
        return frame(TYPE.SETTINGS, 0, 0, setting(SETTING.MAX_CONCURRENT_STREAMS, 3));
    }
    if (this.#asked.length === 0) return "";
    const [id = 0] = this.#asked.splice(dice.below(this.#asked.length), 1);
    if (dice.often(0.2)) return frame(TYPE.RST_STREAM, 0, id, uint32(dice.pick([0, 7, 8])));
    const block = dice.pick(BLOCKS);
    if (dice.often(0.4)) return frame(TYPE.HEADERS, FLAG.END_HEADERS | FLAG.END_STREAM, id, block);
    const head = frame(TYPE.HEADERS, FLAG.END_HEADERS, id, block);
    return dice.often(0.6) ? head + frame(TYPE.DATA, FLAG.END_STREAM, id, "ok") : head;
  }
}

// ---- a round

async function round(seed: number): Promise<readonly string[]> {
  const dice = new Dice(seed);
  const { p, downstream2, upstream2 } = proxy(dice);
  const { cx } = p;
  const armed = cx.clock.armed;
  const clients: Client[] = [];
  const upstreams: Upstream[] = [];
  const meetUpstreams = (): void => {
    for (const opened of cx.opened.slice(upstreams.length))
      upstreams.push(new Upstream(dice, opened, upstream2));
    for (const upstream of upstreams) upstream.endTurn();
  };
  for (let k = 0; k < STEPS; k++) {
    if (dice.often(0.1) || clients.length === 0) clients.push(new Client(dice, p, downstream2));
    else if (dice.often(0.12)) cx.clock.advance(dice.pick([1, 10, 60, 200, 1000]));
    else if (dice.often(0.5) || upstreams.length === 0) dice.pick(clients).step();
    else dice.pick(upstreams).step();
    if (dice.often(0.6)) meetUpstreams();
    if (dice.often(0.3)) await cx.turn();
  }
  for (const client of clients) client.leave();
  await cx.turn();
  for (let k = 0; k < 5; k++) {
    meetUpstreams();
    for (const upstream of upstreams) upstream.drain();
    cx.clock.advance(1);
  }
  // Mirrored requests outlive their clients, and as in Envoy may have no timeout.
  const running = leftovers(
    cx,
    /^(?:http\.|cluster\.up\.).*_(?:rq|rq_pending|upgrades|cx_http[12])_active$/,
    ["up requests", "up pending_requests", "up retries"],
  );
  for (let k = 0; k < 5; k++) {
    meetUpstreams();
    for (const upstream of upstreams) upstream.close("remote");
    cx.clock.advance(1);
  }
  await cx.turn();
  cx.dispose();
  const held = cx.slots.filter((slot) => slot.current.uses !== 0).map((slot) => slot.ref.package);
  const timers = Math.max(0, cx.clock.armed - armed);
  return [
    ...running.map((what) => `${what} with connections open`),
    ...leftovers(cx, /_active$|pending_send_bytes$/, COUNTS),
    ...held.map((name) => `code of ${name}`),
    ...(timers > 0 ? [`${timers} timers`] : []),
  ].map((what) => `seed ${seed}: ${what}`);
}

/** The limits of circuit breakers whose counts all workers share. */
const LIMITS = [
  "connections",
  "connection_pools",
  "pending_requests",
  "requests",
  "retries",
  "starving",
];
const COUNTS = ["up", "mirror"].flatMap((cluster) => LIMITS.map((what) => `${cluster} ${what}`));

/** The stats with such names, and the shared counts, that are not 0. */
function leftovers(cx: TestContext, names: RegExp, counts: readonly string[]): string[] {
  const stats = [...cx.stats.values].filter(([name]) => names.test(name));
  const shared = counts.map((name) => {
    const [cluster, what] = name.split(" ");
    return [name, cx.sharedCount(`circuit_breakers|${cluster}|default|${what}`).value] as const;
  });
  return [...stats, ...shared]
    .filter(([, value]) => value !== 0)
    .map(([name, value]) => `${name} ${value}`);
}

it("leaves nothing behind, whatever clients, upstreams and filters do", async () => {
  const left: string[] = [];
  for (let k = 0; k < ROUNDS; k++) left.push(...(await round(FROM + k)));
  expect(left).toEqual([]);
}, 600_000);
