import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { HttpStream, StreamInfo } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import type { ConnectionManager } from "./manager.ts";
import { TestProxy } from "./test-proxy.ts";

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;
setFlagsFromString("--no-expose-gc");

/** Notes the stream of each request. */
function proxy() {
  const streams: HttpStream[] = [];
  const note = (stream: HttpStream) => {
    streams.push(stream);
    return {};
  };
  const p = new TestProxy({ codec, router }).filter("note", note);
  // Its own timers are kept until its end, and with them what they call.
  p.cx.timer = (onFired) => p.cx.clock.timer(onFired);
  return { p: p.start(), streams };
}

/** Whether nothing keeps it alive. What a WeakRef has answered lives until the end of the turn. */
async function isGone(ref: WeakRef<object>): Promise<boolean> {
  await new Promise((resolve) => setImmediate(resolve));
  gc();
  return ref.deref() === undefined;
}

describe("a stream that has ended", () => {
  it("is not kept alive by its filters, one of them a router that waits for the next request", async () => {
    const { p, streams } = proxy();
    const infoOf = (): WeakRef<StreamInfo> => {
      const client = p.connect().send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nab");
      const info = new WeakRef(streams[0]!.info);
      client.leave();
      return info;
    };
    const info = infoOf();
    expect(p.up.exchanges.length).toBe(1);
    expect(await isGone(info)).toBe(true);
    expect(streams.length).toBe(1);
  });

  it("lets go of its cluster and of its exchange with the upstream, while its object waits for another one", () => {
    const { p, streams } = proxy();
    const client = p.connect().get("/");
    const { info } = streams[0]!;
    p.up.last.respond(200, {}, "");
    expect(info).toMatchObject({ cluster: p.up, upstreamWire: p.up.last });
    client.filter.onAgain?.();
    expect(info).toMatchObject({ cluster: undefined, host: undefined, upstreamWire: undefined });
  });
});

describe("a config that has been replaced", () => {
  const manager = (p: TestProxy) => p.factory as ConnectionManager;
  const replace = (p: TestProxy) => p.factory.reconfigure!(p.config({}), p.cx)!();

  it.each(["before", "after"])(
    "is not kept alive by streams that have ended %s that",
    async (when) => {
      const { p } = proxy();
      const runtimeOf = (): WeakRef<object> => {
        const runtime = new WeakRef(manager(p).runtime);
        const client = p.connect().get("/");
        if (when === "after") replace(p);
        p.up.last.respond(200, {}, "");
        client.filter.onAgain?.();
        client.leave();
        if (when === "before") replace(p);
        return runtime;
      };
      expect(await isGone(runtimeOf())).toBe(true);
    },
  );
});
