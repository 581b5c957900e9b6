import { cpSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { eventually } from "./client.ts";
import {
  bootstrap,
  cluster,
  http as httpFilter,
  type Json,
  listener,
  route,
  unlimited,
} from "./config.ts";
import { Proxy, ROOT } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

/** What an answer tells of the code and config that made it. */
export interface Seen {
  readonly worker: number;
  /** Edit of the dropped-in filter, of the router, of the config. */
  readonly filter: number;
  readonly router: number;
  readonly config: number;
}
export type Edited = "filter" | "router" | "config";

export const FILTER = "filters/mark/filter.ts";

/** A dropped-in filter that marks each response with `version` and its worker. */
export function filterSource(version: number): string {
  return `import { defineHttpFilter, Type } from "@tsproxy/sdk";

const VERSION = "${version}";

export default defineHttpFilter({
  name: "mark",
  config: Type.Object({ header: Type.String() }),
  setup: (config, cx) => {
    const value = \`\${VERSION} \${cx.worker}\`;
    return () => ({ onResponseHeaders: (headers) => headers.set(config.header, value) });
  },
});
`;
}

/** The router as it is shipped, except that the upstream is told an edit's number. */
export function routerSource(version: number): string {
  return `import router from "./shipped.ts";

const VERSION = "${version}";

export default {
  ...router,
  setup(config, cx) {
    const create = router.setup(config, cx);
    return (stream) => {
      const filter = create(stream);
      // Not the object's own: the router may give the same object to another stream later.
      const { onRequestHeaders } = Object.getPrototypeOf(filter);
      filter.onRequestHeaders = function (headers, endStream) {
        headers.set("x-router", VERSION);
        return onRequestHeaders.call(filter, headers, endStream);
      };
      return filter;
    };
  },
};
`;
}

function configOf(version: number, upstreamPort: number, header = "x-filter"): Json {
  return bootstrap(
    [
      listener(
        "main",
        httpFilter(
          [
            {
              // A machine that stands still fails no request.
              ...route("/", "origin", { timeout: "0s" }),
              response_headers_to_add: [{ header: { key: "x-config", value: `${version}` } }],
            },
          ],
          {},
          [{ name: "mark", config: { header } }],
        ),
      ),
    ],
    [cluster("origin", [upstreamPort], unlimited)],
  );
}

/** A proxy whose router, dropped-in filter and config may be edited; the router is a copy, never the shipped one. */
export class Workbench {
  readonly proxy: Proxy;
  readonly upstream: Upstream;
  readonly #shipped: string;
  readonly #versions = { filter: 0, router: 0, config: 0 };

  private constructor(proxy: Proxy, upstream: Upstream, shipped: string) {
    this.proxy = proxy;
    this.upstream = upstream;
    this.#shipped = shipped;
  }

  static async open(workers: number): Promise<Workbench> {
    const shipped = mkdtempSync(path.join(os.tmpdir(), "tsproxy-shipped-"));
    cpSync(path.join(ROOT, "filters"), shipped, {
      recursive: true,
      filter: (source) => !source.endsWith("node_modules"),
    });
    const router = path.join(shipped, "http/router");
    renameSync(path.join(router, "filter.ts"), path.join(router, "shipped.ts"));
    writeFileSync(path.join(router, "filter.ts"), routerSource(0));
    const upstream = await httpUpstream((request, response) => {
      response.setHeader("x-router", String(request.headers["x-router"]));
      response.end("complete");
    });
    const proxy = await Proxy.start({
      config: configOf(0, upstream.port),
      files: { [FILTER]: filterSource(0) },
      concurrency: workers,
      env: { TSPROXY_SHIPPED_FILTERS: shipped },
    });
    return new Workbench(proxy, upstream, shipped);
  }

  async close(): Promise<void> {
    await this.proxy.stop();
    await this.upstream.close();
    rmSync(this.#shipped, { recursive: true, force: true });
  }

  get port(): number {
    return this.proxy.port("main");
  }
  get routerFile(): string {
    return path.join(this.#shipped, "http/router/filter.ts");
  }

  /** The file that an edit changes. */
  file(what: Edited): string {
    if (what === "router") return this.routerFile;
    return what === "filter" ? path.join(this.proxy.dir, FILTER) : this.proxy.configFile;
  }
  /** What it holds in that version. */
  text(what: Edited, version: number): string {
    if (what === "filter") return filterSource(version);
    if (what === "router") return routerSource(version);
    return JSON.stringify(configOf(version, this.upstream.port), undefined, 1);
  }

  /** Saves the next version of one of the three and tells its number. */
  edit(what: Edited): number {
    const version = this.next(what);
    writeFileSync(this.file(what), this.text(what, version));
    return version;
  }
  /** The number of the next version, for who saves it otherwise. */
  next(what: Edited): number {
    return ++this.#versions[what];
  }

  /** The last version that was saved. */
  version(what: Edited): number {
    return this.#versions[what];
  }
}

/** Clients that open a connection for each request, one after the other, for as long as the load runs. */
export class Load {
  readonly #port: number;
  readonly #onSeen = new Set<(seen: Seen) => void>();
  readonly #clients: Promise<void>[];
  readonly failures: string[] = [];
  /** What the last answer told. */
  last: Seen | undefined;
  #running = true;
  requests = 0;

  constructor(port: number, clients: number) {
    this.#port = port;
    this.#clients = Array.from({ length: clients }, () => this.#run());
  }

  /** Settles once answers of all workers satisfy `holds`; tells the milliseconds that took. */
  async untilAllWorkers(workers: number, holds: (seen: Seen) => boolean): Promise<number> {
    const started = performance.now();
    const done = new Set<number>();
    const onSeen = (seen: Seen) => void (holds(seen) && done.add(seen.worker));
    this.#onSeen.add(onSeen);
    try {
      await eventually(
        () => done.size,
        (size) => size === workers,
        "answers by the new code from all workers",
        1,
      );
    } finally {
      this.#onSeen.delete(onSeen);
    }
    return performance.now() - started;
  }

  /** Settles after so many further requests. */
  async pass(requests: number): Promise<void> {
    const wanted = this.requests + requests;
    await eventually(
      () => this.requests,
      (n) => n >= wanted,
      `${requests} further requests`,
    );
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#clients);
  }

  async #run(): Promise<void> {
    while (this.#running) {
      const text = await once(this.#port);
      this.requests++;
      const seen = seenIn(text);
      if (seen === undefined) {
        this.failures.push(text);
        continue;
      }
      this.last = seen;
      for (const onSeen of this.#onSeen) onSeen(seen);
    }
  }
}

function once(port: number): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = net.connect(port, "127.0.0.1");
    socket.setEncoding("latin1");
    socket.on("data", (piece: string) => (text += piece));
    socket.on("error", (error) => (text += `\n${error.message}`));
    socket.on("close", () => resolve(text));
    socket.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
  });
}

/** Undefined: not a complete answer of the upstream. */
function seenIn(text: string): Seen | undefined {
  if (!text.startsWith("HTTP/1.1 200 OK\r\n") || !text.endsWith("\r\n\r\ncomplete"))
    return undefined;
  const number = (name: string) => Number(new RegExp(`^${name}: (\\d+)`, "m").exec(text)?.[1]);
  const worker = Number(/^x-filter: \d+ (\d+)/m.exec(text)?.[1]);
  const seen = {
    worker,
    filter: number("x-filter"),
    router: number("x-router"),
    config: number("x-config"),
  };
  return Object.values(seen).some(Number.isNaN) ? undefined : seen;
}
