import net from "node:net";
import { expect } from "vitest";
import { deferred, eventually } from "./client.ts";
import { bootstrap, cluster, INTERNAL_LISTENERS, type Json, listener, tcpProxy } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { tcpUpstream } from "./upstream.ts";

/** Proxies with internal listeners, for one test file. */
export class InternalProxies {
  readonly #ends: (() => unknown)[] = [];

  /** Has `end` called after the test. */
  endsWith(end: () => unknown): void {
    this.#ends.push(end);
  }

  /** Called after each test. */
  async end(): Promise<void> {
    for (const end of this.#ends.splice(0).reverse()) await end();
  }

  async start(listeners: readonly Json[], clusters: readonly Json[]): Promise<Proxy> {
    const proxy = await Proxy.start({ config: withInternal(listeners, clusters) });
    this.endsWith(() => proxy.stop());
    return proxy;
  }

  /** A client of `main` that does not read lets the upstream of `origin` wait, and gets all of the body in the end. */
  async readSlowly(proxy: Proxy, bodyBytes: number): Promise<void> {
    const slow = net.connect(proxy.port("main"), "127.0.0.1");
    this.endsWith(() => slow.destroy());
    slow.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    await new Promise((resolve) => slow.once("readable", resolve));
    // Each hop holds what its watermarks allow, and the upstream is told to wait before it has sent all.
    await eventually(
      () => proxy.stat("cluster.origin.upstream_flow_control_paused_reading_total"),
      (paused) => paused > 0,
      "the upstream is paused",
    );
    let bytes = 0;
    slow.on("data", (piece: Buffer) => (bytes += piece.length));
    await eventually(
      async () => bytes,
      (n) => n > bodyBytes,
      "all of it in the end",
    );
  }

  /** The ends of both directions and a reset pass the listener `inner`, which `inside` leads to and which leads to `origin`. */
  async passEnds(inner: Json, inside: Json): Promise<void> {
    const seen = deferred<string>();
    const closed = deferred<void>();
    const upstream = await tcpUpstream((socket) => {
      let text = "";
      socket.on("data", (piece: Buffer) => (text += piece));
      socket.on("end", () => {
        seen.resolve(text);
        socket.end("after your end\n");
      });
      socket.on("close", () => closed.resolve());
    });
    this.endsWith(() => upstream.close());
    const proxy = await this.start(
      [listener("main", tcpProxy("inside")), inner],
      [inside, cluster("origin", [upstream.port])],
    );
    const gone = async () => {
      await proxy.untilStat("listener.envoy_internal_inner.downstream_cx_active", 0);
      await proxy.untilStat("cluster.inside.upstream_cx_active", 0);
      await proxy.untilStat("cluster.origin.upstream_cx_active", 0);
    };
    const port = proxy.port("main");
    const client = net.connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    client.end("before\n");
    expect(await seen.promise).toBe("before\n");
    let answer = "";
    for await (const piece of client) answer += piece;
    expect(answer).toBe("after your end\n");
    await closed.promise;
    await gone();

    const other = net.connect(port, "127.0.0.1");
    await proxy.untilStat("cluster.origin.upstream_cx_active", 1);
    other.resetAndDestroy();
    await gone();
  }
}

export function withInternal(listeners: readonly Json[], clusters: readonly Json[]): Json {
  return { bootstrap_extensions: [INTERNAL_LISTENERS], ...bootstrap(listeners, clusters) };
}
