import {
  defineHttpFilter,
  type ExtensionRef,
  type HttpFilterFactory,
  type NetworkFilter,
  type NetworkFilterFactory,
  type StreamInfo,
  Type,
} from "@tsproxy/sdk";
import {
  LentChunk,
  TestCluster,
  TestConnection,
  TestContext,
  withDefaults,
} from "@tsproxy/sdk/testing";
import { Config } from "./config.ts";
import definition from "./filter.ts";

/** The packages that the tests bring along: filters meet by name, so this file imports none. */
export interface Packages {
  readonly codec: unknown;
  /** Tests that speak HTTP/1 alone need none. */
  readonly http2?: unknown;
  readonly router: unknown;
}

export const routeTo = (cluster: string, more: object = {}) => ({
  match: { prefix: "/" },
  route: { cluster, ...more },
});

/** A config with one virtual host for everything. */
export const oneHost = (...routes: object[]) => ({
  name: "local",
  virtual_hosts: [{ name: "all", domains: ["*"], routes }],
});

/** Clients of 192.0.2.0/24 are internal. */
export const INTERNAL = {
  use_remote_address: true,
  internal_address_config: { cidr_ranges: [{ address_prefix: "192.0.2.0", prefix_len: 24 }] },
};

/** A connection manager between a client and an upstream that the test plays. */
export class TestProxy {
  readonly cx = new TestContext();
  readonly up: TestCluster;
  factory!: NetworkFilterFactory;
  readonly #filters: { readonly name: string; readonly factory: HttpFilterFactory }[] = [];

  constructor(packages: Packages) {
    this.cx.define("codec/codec/http1", packages.codec);
    this.cx.define("codec/http1", packages.codec);
    this.cx.define("codec/http2", packages.http2 ?? packages.codec);
    this.cx.define("http/router", packages.router);
    this.up = this.cluster("up");
  }

  cluster(name: string): TestCluster {
    const cluster = new TestCluster(name, this.cx.stats);
    this.cx.clusterMap.set(name, cluster);
    return cluster;
  }

  /** One more HTTP filter, before the router. */
  filter(name: string, factory: HttpFilterFactory): this {
    const setup = () => factory;
    this.cx.define(`http/${name}`, defineHttpFilter({ name, config: Type.Object({}), setup }));
    this.#filters.push({ name, factory });
    return this;
  }

  /** `router`: fields of its filter. */
  config(config: object, router: object = {}): Config {
    const ref = (name: string, more: object = {}): ExtensionRef => ({
      name,
      package: `http/${name}`,
      config: more,
    });
    return withDefaults(Config, {
      stat_prefix: "test",
      route_config: oneHost(routeTo("up")),
      http_filters: [
        ...this.#filters.map((f) => ref(f.name)),
        ref("router", {
          dynamic_stats: true,
          suppress_envoy_headers: false,
          strict_check_headers: [],
          respect_expected_rq_timeout: false,
          suppress_grpc_request_failure_code_stats: false,
          ...router,
        }),
      ],
      ...config,
    });
  }

  start(config: object = {}, router: object = {}): this {
    this.factory = this.cx.setup(definition, this.config(config, router));
    return this;
  }

  connect(prepare: (connection: TestConnection) => void = () => {}): TestClient {
    const connection = new TestConnection();
    prepare(connection);
    return new TestClient(this.factory, connection);
  }
}

export class TestClient {
  readonly connection: TestConnection;
  readonly filter: NetworkFilter;
  #gone = false;

  constructor(factory: NetworkFilterFactory, connection: TestConnection) {
    this.connection = connection;
    this.filter = factory.create(connection, connection.chain);
    this.filter.onConnect?.();
  }

  send(text: string): this {
    const chunk = new LentChunk(text);
    this.connection.bytesReceived += text.length;
    this.filter.onData?.(chunk, false);
    chunk.used();
    return this;
  }
  get(path: string, ...lines: string[]): this {
    return this.send([`GET ${path} HTTP/1.1`, "host: h.test", ...lines, "", ""].join("\r\n"));
  }
  post(path: string, body: string, ...lines: string[]): this {
    const head = [`POST ${path} HTTP/1.1`, "host: h.test", `content-length: ${body.length}`];
    return this.send([...head, ...lines, "", body].join("\r\n"));
  }
  /** The socket is gone: the client left, or the close of our own is through. */
  leave(): void {
    if (this.#gone) return;
    this.#gone = true;
    const by = this.connection.closed === undefined ? "remote" : "local";
    this.connection.open = false;
    const event = { by, phase: "connected", timeout: false, error: undefined } as const;
    this.filter.onClose?.(event);
  }
  /** What was written since the last call, without the date that it was written. */
  take(): string {
    return this.connection
      .take()
      .replace(/date: [^\r]*\r\n/g, "")
      .replaceAll("\r\n", "\n");
  }
  /** The status of the only response written since the last call. */
  status(): number {
    return Number(/^HTTP\/1\.[01] (\d+)/.exec(this.connection.take())?.[1]);
  }
}

/**
 * Makes proxies whose only route leads to `up` and has this retry policy. Their access log keeps code, flags, details and attempts.
 * The clusters of mirrors are made by the tests.
 */
export function proxies(packages: Packages) {
  return (retry_policy: object, route: object = {}, host: object = {}, config: object = {}) => {
    const lines: string[] = [];
    const p = new TestProxy(packages);
    p.cx.define("access_log/lines", {
      kind: "access_log",
      setup: () => ({
        log: ({ info }: { info: StreamInfo }) =>
          void lines.push(
            `${info.responseCode} ${info.flags.join(",") || "-"} ${info.responseCodeDetails} ${info.attempts}`,
          ),
      }),
    });
    const access_log = [{ name: "l", package: "access_log/lines", config: {} }];
    const table = oneHost(routeTo("up", { retry_policy, ...route }));
    Object.assign(table.virtual_hosts[0]!, host);
    p.start({ access_log, route_config: { ...table, validate_clusters: false }, ...config });
    const stat = (name: string) => p.cx.stats.value(`cluster.up.upstream_rq_${name}`);
    /** Long enough for every back-off. */
    const wait = (ms = 250) => p.cx.clock.advance(ms);
    return Object.assign(p, { lines, stat, wait });
  };
}
