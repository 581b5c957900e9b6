import http from "node:http";
import { get } from "./client.ts";
import {
  bootstrap,
  cluster,
  http as httpFilter,
  type Json,
  listener,
  route,
  unlimited,
} from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

/** What a filter may do wrong, by the name of the filter and of its route: the members of its filter object. */
export const BAD_FILTERS = {
  spin: "onRequestHeaders() { while (true) {} }",
  hoard:
    "onRequestHeaders() { const kept = []; for (;;) kept.push(new Array(100_000).fill(kept.length)); }",
  backtrack: 'onRequestHeaders() { /^(([a-z])+.)+[A-Z]([a-z])+$/.test("a".repeat(5_000)); }',
  never: "onRequestHeaders() { return new Promise(() => {}); }",
  reject: 'onRequestHeaders() { return Promise.reject(new Error("no")); }',
  throw_request_headers: 'onRequestHeaders() { throw new Error("no"); }',
  throw_request_body: 'onRequestBody() { throw new Error("no"); }',
  throw_response_headers: 'onResponseHeaders() { throw new Error("no"); }',
  throw_response_body: 'onResponseBody() { throw new Error("no"); }',
  throw_end: 'onEnd() { throw new Error("no"); }',
  nonsense: 'onRequestHeaders() { return { type: "reply", status: "many", body: 7 }; }',
} as const;
export type BadFilter = keyof typeof BAD_FILTERS;
export const BAD_NAMES = Object.keys(BAD_FILTERS) as BadFilter[];

function source(name: BadFilter): string {
  return `import { defineHttpFilter, Type } from "@tsproxy/sdk";

export default defineHttpFilter({
  name: "${name}",
  config: Type.Object({}),
  setup: () => () => ({ ${BAD_FILTERS[name]} }),
});
`;
}

/** A route on which one of the bad filters runs, or none; the others are switched off. */
function routeWith(prefix: string, own?: BadFilter): Json {
  const off = { "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", disabled: true };
  const others = BAD_NAMES.filter((name) => name !== own).map((name) => [name, off]);
  return { ...route(prefix, "origin"), typed_per_filter_config: Object.fromEntries(others) };
}

/** One worker with every bad filter in the chain that also serves the healthy route. */
export async function openBadFilters(): Promise<{ proxy: Proxy; upstream: Upstream<http.Server> }> {
  const upstream = await httpUpstream((request, response) => {
    request.resume();
    request.on("end", () => response.end("healthy"));
  });
  const proxy = await Proxy.start({
    config: bootstrap(
      [
        listener(
          "main",
          httpFilter(
            [...BAD_NAMES.map((name) => routeWith(`/${name}`, name)), routeWith("/")],
            {},
            BAD_NAMES.map((name) => ({ name, config: {} })),
          ),
        ),
      ],
      [cluster("origin", [upstream.port], unlimited)],
    ),
    files: Object.fromEntries(BAD_NAMES.map((name) => [`filters/${name}.ts`, source(name)])),
    concurrency: 1,
  });
  return { proxy, upstream };
}

/** Clients on the healthy route, each on a connection that it keeps, for as long as it runs. */
export class Healthy {
  readonly tookMs: number[] = [];
  readonly failures: string[] = [];
  readonly #clients: Promise<void>[];
  #running = true;

  constructor(port: number, clients: number) {
    this.#clients = Array.from({ length: clients }, () => this.#run(port));
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#clients);
  }

  quantile(q: number): number {
    const sorted = this.tookMs.toSorted((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
  }

  async #run(port: number): Promise<void> {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    while (this.#running) {
      const started = performance.now();
      const answer = await get(port, "/", { agent }).catch((error: Error) => error.message);
      this.tookMs.push(performance.now() - started);
      if (typeof answer === "string") this.failures.push(answer);
      else if (answer.status !== 200 || answer.text !== "healthy")
        this.failures.push(`${answer.status} ${answer.text}`);
    }
    agent.destroy();
  }
}

/** One request to a bad filter's route: its status, or the word of a connection that was cut. */
export async function provoke(port: number, name: BadFilter): Promise<number | string> {
  const body = name === "throw_request_body" ? "a body" : undefined;
  const ask = { method: body === undefined ? "GET" : "POST", ...(body !== undefined && { body }) };
  return get(port, `/${name}`, ask).then(
    ({ status }) => status,
    (error: NodeJS.ErrnoException) => error.code ?? error.message,
  );
}
