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
import clusterManager from "./filter.ts";

// ---- a codec whose messages are words: `request`, answered by `ok`, `bye` (the last answer of a connection) or `bad`

export class WordCodec implements ClientCodec {
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
      this.#events.onRetire(true);
    }
    decoder.onResponseHeaders(true);
    if (words.length > 1) this.#giveUp("flush");
    else if (this.#decoder === decoder) {
      this.#decoder = undefined;
      this.#events.onIdle();
      if (words[0] === "bye") this.#giveUp("flush");
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

/** A balancer that takes hosts in the order of the list, so that tests can tell the next one. */
export const inTurn = defineBalancer({
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

/** A cluster type whose hosts are supplied by the test, through `updates`. */
class Discoverer {
  readonly updates: ((hosts: readonly HostSpec[], changes?: number, heard?: boolean) => void)[] =
    [];
  stopped = 0;
  readonly definition = defineCluster({
    name: "discovered",
    config: Type.Unsafe<object>({ type: "object" }),
    setup: () => ({
      initialHosts: [],
      discover: (update: Discoverer["updates"][number], _cx: SetupContext) => {
        this.updates.push(update);
        return () => void this.stopped++;
      },
    }),
  });
}

// ---- a caller that requests streams

export class Caller implements PoolCallbacks, ResponseDecoder {
  readonly decoder = this;
  readonly responseHeaders = new ResponseHeaders();
  encoder: RequestEncoder | undefined = undefined;
  connection: Connection | undefined = undefined;
  host: Host | undefined = undefined;
  failure: PoolFailure | undefined = undefined;
  responses = 0;
  errors = 0;
  resets = 0;
  /** Resets the exchange once it is answered. */
  givesUp = false;
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
    if (this.givesUp) this.encoder!.reset();
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

// ---- contexts, configs and events

export const remote: CloseEvent = {
  by: "remote",
  phase: "connected",
  timeout: false,
  error: undefined,
};
const local: CloseEvent = {
  by: "local",
  phase: "connected",
  timeout: false,
  error: undefined,
};
export const refused: CloseEvent = {
  by: "remote",
  phase: "connecting",
  timeout: false,
  error: "ECONNREFUSED",
};
export const timedOut: CloseEvent = {
  by: "local",
  phase: "connecting",
  timeout: true,
  error: undefined,
};

export const spec = (ip: string, more: Partial<HostSpec> = {}): HostSpec => ({
  ip,
  port: 80,
  hostname: "",
  weight: 1,
  priority: 0,
  healthStatus: "UNKNOWN",
  ...more,
});
export const listedCluster = (name: string, hosts: HostSpec[], more: object = {}) => ({
  name,
  type: "STATIC",
  lb_policy: "ROUND_ROBIN",
  connect_timeout: 1_000,
  hosts,
  ...more,
});
export const discoveredCluster = (name: string, more: object = {}) => ({
  name,
  type: "STRICT_DNS",
  lb_policy: "ROUND_ROBIN",
  connect_timeout: 1_000,
  ...more,
});

export let cx: TestContext;
export let discoverer: Discoverer;

export function equip(context: TestContext): TestContext {
  return context
    .define("codec/http1", wordCodec)
    .define("balancer/round_robin", inTurn)
    .define("cluster/static", listed)
    .define("cluster/strict_dns", discoverer.definition);
}

/** Makes `context`, or a new one with a new discoverer, current; called before each test, and by tests with several contexts. */
export function useContext(context?: TestContext): void {
  if (context === undefined) discoverer = new Discoverer();
  cx = context ?? equip(new TestContext());
}

export const start = (...clusters: object[]): Service => cx.setup(clusterManager, clusters);
export const cluster = (service: Service, name = "c"): Cluster => service.clusters!.get(name)!;
export const one = (more: object = {}): Cluster =>
  cluster(start(listedCluster("c", [spec("10.0.0.1")], more)));
export const ask = (from: Cluster): Caller => {
  const caller = new Caller();
  from.newStream(caller, {});
  return caller;
};
export const stat = (name: string, cluster = "c"): number =>
  cx.stats.value(`cluster.${cluster}.upstream_${name}`);
export const cell = (name: string, key = "10.0.0.1:80"): number =>
  cx.stats.value(`@host|c|${key}|${name}`);
export const connected = (n: number): void => cx.opened[n]!.handler.onConnected!();
export const say = (n: number, text: string): void => {
  const { connection, handler } = cx.opened[n]!;
  if (connection.open) handler.onData(new Chunk(latin1Encode(text), 0, text.length));
};
export const close = (n: number, event: CloseEvent): void => {
  const { connection, handler } = cx.opened[n]!;
  connection.open = false;
  handler.onClosed(event);
};
/** Connections closed on our side whose handlers have been told; like core, `endTurn` tells them at the end of a turn. */
const told = new WeakSet<object>();
export const endTurn = (context = cx): void => {
  for (const { connection, handler } of [...context.opened]) {
    if (connection.closed === undefined || told.has(connection)) continue;
    told.add(connection);
    handler.onClosed(local);
  }
};
export const gauges = (stats: TestStats = cx.stats): Record<string, number> =>
  Object.fromEntries(
    [...stats.values].filter(([name, value]) => value !== 0 && /_active$/.test(name)),
  );
