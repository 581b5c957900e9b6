import type { NewFilterKind } from "./filter-new.ts";

/**
 * Kinds that take no part in requests: they run among the shipped packages, for which their package.json must call them trusted.
 */
const TRUSTED: ReadonlySet<NewFilterKind> = new Set(["service"]);

/** The files of a new package, by name: a small filter that works, and its test. */
export function filesOf(name: string, kind: NewFilterKind): Record<string, string> {
  const words = { name, Class: className(name), header: `x-${name.replaceAll("_", "-")}` };
  return {
    "package.json": `${JSON.stringify(manifest(name, kind), undefined, 2)}\n`,
    ...FILES[kind](words),
  };
}

const FILES: Readonly<Record<NewFilterKind, (words: Words) => Record<string, string>>> = {
  http: httpFiles,
  network: networkFiles,
  listener: listenerFiles,
  access_log: accessLogFiles,
  balancer: balancerFiles,
  service: serviceFiles,
};

interface Words {
  readonly name: string;
  readonly Class: string;
  readonly header: string;
}

function className(name: string): string {
  return name.replace(/(?:^|_)([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function manifest(name: string, kind: NewFilterKind): unknown {
  return {
    name: `${kind.replaceAll("_", "-")}-${name.replaceAll("_", "-")}`,
    version: "0.1.0",
    private: true,
    type: "module",
    exports: { ".": "./filter.ts" },
    ...(TRUSTED.has(kind) && { tsproxy: { trusted: true } }),
  };
}

function httpFiles({ name, Class, header }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** The value of the ${header} header. */
  value: Type.String({ default: "hello" }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import { type Counter, defineHttpFilter, type HttpFilter, type ResponseHeaders } from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Marks every response. */
class ${Class} implements HttpFilter {
  readonly #config: Config;
  readonly #marked: Counter;

  constructor(config: Config, marked: Counter) {
    this.#config = config;
    this.#marked = marked;
  }

  onResponseHeaders(headers: ResponseHeaders) {
    headers.set("${header}", this.#config.value);
    this.#marked.inc();
  }
}

export default defineHttpFilter({
  name: "${name}",
  config: Config,
  setup(config, cx) {
    const marked = cx.stats.counter("${name}.marked");
    return () => new ${Class}(config, marked);
  },
});
`,
    "filter.test.ts": `import { type HttpStream, ResponseHeaders } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

test("marks a response, and counts it", () => {
  const cx = new TestContext();
  const filter = ${camel(Class)}.setup({ value: "hello" }, cx)({} as HttpStream);
  const response = new ResponseHeaders();
  filter.onResponseHeaders?.(response, true);
  expect(response.get("${header}")).toBe("hello");
  expect(cx.stats.value("${name}.marked")).toBe(1);
});
`,
    "README.md": `# ${name}

Sets \`${header}\` on every response.

\`\`\`yaml
http_filters:
- name: ${name}
  config: { value: hello }
\`\`\`

Stats: \`${name}.marked\` counts responses.
`,
  };
}

function networkFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** A connection that sends more than this is closed. */
  max_bytes: UInt32({ default: 1048576 }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import {
  type Chunk,
  type Counter,
  defineNetworkFilter,
  type DownstreamConnection,
  type NetworkFilter,
  stop,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Closes a connection that has sent too much. */
class ${Class} implements NetworkFilter {
  readonly #config: Config;
  readonly #connection: DownstreamConnection;
  readonly #closed: Counter;
  #bytes = 0;

  constructor(config: Config, connection: DownstreamConnection, closed: Counter) {
    this.#config = config;
    this.#connection = connection;
    this.#closed = closed;
  }

  onData(chunk: Chunk) {
    this.#bytes += chunk.length;
    if (this.#bytes <= this.#config.max_bytes) return;
    this.#closed.inc();
    this.#connection.close("abort");
    return stop;
  }
}

export default defineNetworkFilter({
  name: "${name}",
  config: Config,
  setup(config, cx) {
    const closed = cx.stats.counter("${name}.closed");
    return { create: (connection) => new ${Class}(config, connection, closed) };
  },
});
`,
    "filter.test.ts": `import { Chunk, stop } from "@tsproxy/sdk";
import { TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

test("lets a connection send what it may, and closes it past that", () => {
  const cx = new TestContext();
  const connection = new TestConnection();
  const filter = ${camel(Class)}
    .setup({ max_bytes: 4 }, cx)
    .create(connection, connection.chain);
  expect(filter.onData?.(new Chunk(new Uint8Array(4), 0, 4), false)).toBeUndefined();
  expect(connection.closed).toBeUndefined();
  expect(filter.onData?.(new Chunk(new Uint8Array(1), 0, 1), false)).toBe(stop);
  expect(connection.closed).toBe("abort");
  expect(cx.stats.value("${name}.closed")).toBe(1);
});
`,
    "README.md": `# ${name}

Closes a connection that has sent more than \`max_bytes\`. Stands before the filter that serves the connection.

\`\`\`yaml
filters:
- name: ${name}
  config: { max_bytes: 1048576 }
- name: envoy.filters.network.tcp_proxy
\`\`\`

Stats: \`${name}.closed\` counts connections that it closed.
`,
  };
}

function camel(name: string): string {
  return name.charAt(0).toLowerCase() + name.slice(1);
}

function listenerFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** Connections from addresses that begin so are closed. */
  denied: Type.Array(Type.String(), { default: [] }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import {
  type AcceptedSocket,
  type Chunk,
  type Counter,
  defineListenerFilter,
  type ListenerFilter,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Turns clients away before a filter chain is chosen. */
class ${Class} implements ListenerFilter {
  readonly #config: Config;
  readonly #socket: AcceptedSocket;
  readonly #closed: Counter;

  constructor(config: Config, socket: AcceptedSocket, closed: Counter) {
    this.#config = config;
    this.#socket = socket;
    this.#closed = closed;
  }

  // Called at accept with no bytes; "more" would wait for some, a number takes so many of them.
  onBytes(_bytes: Chunk): number | "more" | "close" {
    const { ip } = this.#socket.remoteAddress;
    if (!this.#config.denied.some((prefix) => ip.startsWith(prefix))) return 0;
    this.#closed.inc();
    return "close";
  }
}

export default defineListenerFilter({
  name: "${name}",
  config: Config,
  setup(config, cx) {
    const closed = cx.stats.counter("${name}.closed");
    return (socket) => new ${Class}(config, socket, closed);
  },
});
`,
    "filter.test.ts": `import { type AcceptedSocket, Chunk } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

const NOTHING = new Chunk(new Uint8Array(0), 0, 0);

function from(ip: string): AcceptedSocket {
  const address = { ip, port: 1 };
  const protocols = { transportProtocol: "", serverName: "", applicationProtocols: [] };
  return { remoteAddress: address, localAddress: address, ...protocols };
}

test("closes connections from where it is told to, and lets the others pass", () => {
  const cx = new TestContext();
  const create = cx.setup(${camel(Class)}, { denied: ["10.1."] });
  expect(create(from("10.1.2.3")).onBytes(NOTHING)).toBe("close");
  expect(create(from("10.2.2.3")).onBytes(NOTHING)).toBe(0);
  expect(cx.stats.value("${name}.closed")).toBe(1);
});
`,
    "README.md": `# ${name}

Closes connections from addresses that begin with one of \`denied\`, before a filter chain is chosen.

\`\`\`yaml
listener_filters:
- name: ${name}
  config: { denied: ["10.1."] }
\`\`\`

Stats: \`${name}.closed\` counts connections that it closed.
`,
  };
}

function accessLogFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** Where lines go. */
  path: Type.String({ default: "/dev/stdout" }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import {
  type AccessLogger,
  type Counter,
  defineAccessLogger,
  type FileSink,
  type LogEntry,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** A line of JSON for each request. */
class ${Class} implements AccessLogger {
  readonly #file: FileSink;
  readonly #lines: Counter;

  constructor(file: FileSink, lines: Counter) {
    this.#file = file;
    this.#lines = lines;
  }

  // Called once, after the stream has ended; a connection without HTTP has no request.
  log({ info, request }: LogEntry) {
    const { responseCode, duration } = info;
    const line = { method: request?.method, path: request?.path, status: responseCode, ms: duration };
    this.#file.append(\`\${JSON.stringify(line)}\\n\`);
    this.#lines.inc();
  }
}

export default defineAccessLogger({
  name: "${name}",
  config: Config,
  setup: (config, cx) => new ${Class}(cx.file(config.path), cx.stats.counter("${name}.lines")),
});
`,
    "filter.test.ts": `import { type LogEntry, RequestHeaders } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

test("writes a line for each request", () => {
  const cx = new TestContext();
  const logger = cx.setup(${camel(Class)}, { path: "/tmp/log" });
  const request = new RequestHeaders();
  request.method = "GET";
  request.path = "/a";
  const info = { responseCode: 204, duration: 3 } as LogEntry["info"];
  logger.log({ info, request, response: undefined, trailers: undefined });
  expect(cx.files.get("/tmp/log")).toBe('{"method":"GET","path":"/a","status":204,"ms":3}\\n');
  expect(cx.stats.value("${name}.lines")).toBe(1);
});
`,
    "README.md": `# ${name}

Writes a line of JSON for each request.

\`\`\`yaml
access_log:
- name: ${name}
  config: { path: /dev/stdout }
\`\`\`

Stats: \`${name}.lines\` counts them.
`,
  };
}

function balancerFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** A host that serves so many requests is full. */
  max_active: UInt32({ default: 100, minimum: 1 }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import { type Balancer, defineBalancer, type Host } from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Fills one host before it begins with the next, so that the last ones stay idle. */
class ${Class} implements Balancer {
  readonly #hosts: readonly Host[];
  readonly #max: number;

  constructor(hosts: readonly Host[], max: number) {
    this.#hosts = hosts;
    this.#max = max;
  }

  // Called for each request: a loop, and nothing allocated.
  choose() {
    let least: Host | undefined;
    for (const host of this.#hosts) {
      if (host.activeRequests < this.#max) return host;
      if (least === undefined || host.activeRequests < least.activeRequests) least = host;
    }
    return least;
  }
}

export default defineBalancer({
  name: "${name}",
  config: Config,
  // Once for each set of hosts: a priority, or the healthy ones of it.
  setup: (config) => ({ create: ({ hosts }) => new ${Class}(hosts, config.max_active) }),
});
`,
    "filter.test.ts": `import { balancerFor, places, TestHost } from "@tsproxy/sdk/testing";
import { afterAll, describe, expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

// Beside the shipped packages and in a sandbox: the same comes of both.
describe.each(places(${camel(Class)}, new URL("./filter.ts", import.meta.url)))("in its $name", (place) => {
  afterAll(() => place.dispose());

  test("fills one host after the other, and then takes the one with the fewest requests", async () => {
    const hosts = [new TestHost({ ip: "a", port: 1 }), new TestHost({ ip: "b", port: 1 })];
    const { value: policy } = await place.use({ max_active: 2 });
    const balancer = balancerFor(policy, hosts);
    const chosen = [1, 2, 3, 4, 5].map(() => {
      const host = balancer.choose({}) as TestHost;
      host.activeRequests++;
      return host.address.ip;
    });
    expect(chosen).toEqual(["a", "a", "b", "b", "a"]);
  });

  test("has no host among none", async () => {
    const { value: policy } = await place.use({ max_active: 2 });
    expect(balancerFor(policy, []).choose({})).toBeUndefined();
  });
});
`,
    "README.md": `# ${name}

Fills one host with \`max_active\` requests before it begins with the next.

\`\`\`yaml
clusters:
- name: service
  load_balancing_policy:
    policies:
    - typed_extension_config:
        name: ${name}
        config: { max_active: 100 }
\`\`\`
`,
  };
}

function serviceFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { Duration, type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** From one beat to the next. */
  interval: Duration({ default: 1000 }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import { defineService } from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Runs beside all traffic, on the control thread, and counts its beats. */
export default defineService({
  name: "${name}",
  runs: "control",
  config: Config,
  setup(config, cx) {
    const beats = cx.stats.counter("${name}.beats");
    // Timers end with the generation: the next one has its own.
    const timer = cx.timer(() => {
      beats.inc();
      timer.arm(config.interval);
    });
    timer.arm(config.interval);
    return {};
  },
});
`,
    "filter.test.ts": `import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

test("beats once an interval", () => {
  const cx = new TestContext();
  cx.setup(${camel(Class)}, { interval: 1000 });
  cx.clock.advance(3500);
  expect(cx.stats.value("${name}.beats")).toBe(3);
});
`,
    "README.md": `# ${name}

Runs on the control thread as long as the package is there; no config names it.

Stats: \`${name}.beats\` counts.

A service runs among the shipped packages: \`"trusted": true\` in package.json says that it may.
`,
  };
}
