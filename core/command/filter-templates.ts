export const NEW_FILTER_KINDS = [
  "http",
  "network",
  "listener",
  "access_log",
  "balancer",
  "service",
] as const;
export type NewFilterKind = (typeof NEW_FILTER_KINDS)[number];

/** Kinds that cannot live in a sandbox: their package.json says that they are trusted to run among the shipped packages. */
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

/** The last paragraph of a README. */
function more(kind: NewFilterKind): string {
  return `
\`npx tsproxy filter dev\` runs it in front of an upstream that echoes, \`npx tsproxy filter test\` runs its tests. What such a package can
do stands in \`sdk/docs/${kind}.md\` of tsproxy.
`;
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
  /** The value that the response header ${header} gets. */
  value: Type.String({ default: "hello" }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import { type Counter, defineHttpFilter, type HttpFilter, type ResponseHeaders } from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Sets a header on every response. The proxy makes one of these for each request. */
class ${Class} implements HttpFilter {
  readonly #config: Config;
  readonly #marked: Counter;

  constructor(config: Config, marked: Counter) {
    this.#config = config;
    this.#marked = marked;
  }

  // Called when the head of the response has arrived, before it goes to the client.
  onResponseHeaders(headers: ResponseHeaders) {
    headers.set("${header}", this.#config.value);
    this.#marked.inc();
  }
}

export default defineHttpFilter({
  name: "${name}",
  config: Config,
  // Called once for each place in the config that names this filter; the function that it returns, for each request.
  setup(config, cx) {
    const marked = cx.stats.counter("${name}.marked");
    return () => new ${Class}(config, marked);
  },
});
`,
    "filter.test.ts": `import { TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

test("sets a header on a response, and counts it", () => {
  const cx = new TestContext();
  const stream = new TestStream(cx, cx.setup(${camel(Class)}, { value: "hello" }));
  // A request to the upstream, and its answer. TestStream calls the hooks as a proxy does.
  stream.requestHeaders("GET", "/").responseHeaders(200);
  expect(stream.downstream.header("${header}")).toBe("hello");
  expect(cx.stats.value("${name}.marked")).toBe(1);
});
`,
    "README.md": `# ${name}

Sets the header \`${header}\` on every response.

\`\`\`yaml
http_filters:
- name: ${name}
  config: { value: hello }
- name: http/router
\`\`\`

The stat \`${name}.marked\` counts the responses.
${more("http")}`,
  };
}

function networkFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** A connection that sends more bytes than this is closed. */
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

/** Closes a connection whose client has sent too much. The proxy makes one of these for each connection. */
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

  // Called with the bytes of each read. Without an answer they go on to the next filter; \`stop\` keeps them from it.
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

Closes a connection whose client has sent more than \`max_bytes\`. In the config it stands before the filter that serves the connection.

\`\`\`yaml
filters:
- name: ${name}
  config: { max_bytes: 1048576 }
- name: network/tcp_proxy
  config: { stat_prefix: tcp, cluster: some_cluster }
\`\`\`

The stat \`${name}.closed\` counts the connections that it has closed.
${more("network")}`,
  };
}

function camel(name: string): string {
  return name.charAt(0).toLowerCase() + name.slice(1);
}

function listenerFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** Connections from addresses that begin with one of these are closed. */
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

/** Closes connections from some addresses. The proxy makes one of these for each connection, before it chooses a filter chain. */
class ${Class} implements ListenerFilter {
  readonly #config: Config;
  readonly #socket: AcceptedSocket;
  readonly #closed: Counter;

  constructor(config: Config, socket: AcceptedSocket, closed: Counter) {
    this.#config = config;
    this.#socket = socket;
    this.#closed = closed;
  }

  // Called when the connection is accepted, with no bytes yet. 0 lets it go on; "more" would wait for the client's first bytes.
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

Closes connections from addresses that begin with one of \`denied\`, before a filter chain is chosen for them.

\`\`\`yaml
listener_filters:
- name: ${name}
  config: { denied: ["10.1."] }
\`\`\`

The stat \`${name}.closed\` counts the connections that it has closed.
${more("listener")}`,
  };
}

function accessLogFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** The file that lines are appended to. */
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

/** Writes a line of JSON for each request. */
class ${Class} implements AccessLogger {
  readonly #file: FileSink;
  readonly #lines: Counter;

  constructor(file: FileSink, lines: Counter) {
    this.#file = file;
    this.#lines = lines;
  }

  // Called when a request has ended. Where the log is one of TCP connections, there is no \`request\`.
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
    "filter.test.ts": `import { logEntry, requestHeaders, TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

test("writes a line for each request", () => {
  const cx = new TestContext();
  const logger = cx.setup(${camel(Class)}, { path: "/tmp/log" });
  logger.log(logEntry({ responseCode: 204, duration: 3 }, requestHeaders("GET", "/a")));
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

The stat \`${name}.lines\` counts the lines.
${more("access_log")}`,
  };
}

function balancerFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** A host that serves this many requests at a time gets no more, as long as another one has room. */
  max_active: UInt32({ default: 100, minimum: 1 }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import { type Balancer, defineBalancer, type Host } from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Gives one host all requests that it has room for before it begins with the next, so that the last hosts stay idle. */
class ${Class} implements Balancer {
  readonly #hosts: readonly Host[];
  readonly #max: number;

  constructor(hosts: readonly Host[], max: number) {
    this.#hosts = hosts;
    this.#max = max;
  }

  // Called for each request, so it is a plain loop that allocates nothing.
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
  // \`create\` is called for each set of hosts to choose from (the healthy ones, say), and again when that set changes.
  setup: (config) => ({ create: ({ hosts }) => new ${Class}(hosts, config.max_active) }),
});
`,
    "filter.test.ts": `import { balancerFor, places, TestHost } from "@tsproxy/sdk/testing";
import { afterAll, describe, expect, test } from "vitest";
import ${camel(Class)} from "./filter.ts";

// The tests run twice: in the isolate of the test, and in a sandbox as in a proxy.
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

Gives one host \`max_active\` requests at a time before it begins with the next.

\`\`\`yaml
clusters:
- name: service
  load_balancing_policy:
    policies:
    - typed_extension_config:
        name: ${name}
        config: { max_active: 100 }
\`\`\`
${more("balancer")}`,
  };
}

function serviceFiles({ name, Class }: Words): Record<string, string> {
  return {
    "config.ts": `import { Duration, type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** Time from one beat to the next. */
  interval: Duration({ default: 1000 }),
});
export type Config = Static<typeof Config>;
`,
    "filter.ts": `import { defineService } from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Counts beats. It runs on the control thread, beside all traffic. */
export default defineService({
  name: "${name}",
  runs: "control",
  config: Config,
  setup(config, cx) {
    const beats = cx.stats.counter("${name}.beats");
    // When the code is replaced, this timer ends; \`setup\` of the new code makes its own.
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

Counts beats on the control thread. No config names a service: it runs for as long as its package is there, with the defaults of its schema.

The stat \`${name}.beats\` counts the beats.

A service cannot live in a sandbox. It runs among the shipped packages because its package.json says \`"trusted": true\`.
${more("service")}`,
  };
}
