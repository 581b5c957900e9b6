import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HOOK } from "../inside/sandbox/layout.ts";
import { Exchange, FakeWorker, linesOf, stubs } from "./fake-worker.ts";

const HEAD = "GET /a HTTP/1.1\r\nhost: x\r\n";

/** A package whose filter has these members. */
const filter = (members: string): string => `
  import { defineHttpFilter, hold, reply, Type } from "@tsproxy/sdk";
  export default defineHttpFilter({ name: "test", config: Type.Object({}), setup(config, cx) {
    return (stream) => ({ ${members} });
  } });`;

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

async function exchange(...members: readonly string[]): Promise<Exchange> {
  const factories = [];
  for (const one of members) factories.push(stubs(worker, await worker.sandbox(filter(one))));
  return new Exchange(worker, factories, HEAD);
}

/** Shows a value to the test through the head. */
const show = (expression: string): string =>
  `h.set("x-saw", JSON.stringify(${expression} ?? null));`;
const saw = (e: Exchange): unknown => JSON.parse(e.request.get("x-saw") ?? "null");

describe("what is known of the stream", () => {
  it("is figures where the chain has objects of its own", async () => {
    const e = await exchange(`onRequestHeaders(h) { ${show("stream.info.downstreamWire")} }`);
    const codecStream = { wireReceived: 80, wireSent: 0, connection: {} };
    codecStream.connection = { stream: codecStream };
    e.stream.info.downstreamWire = codecStream;
    await e.requestHeaders().settled();
    const counted = { headerReceived: 0, headerSent: 0, fieldsReceived: 0, fieldsSent: 0 };
    expect(saw(e)).toEqual({ wireReceived: 80, wireSent: 0, ...counted });
  });
});

describe("dynamic metadata", () => {
  it("comes from filters before and goes to those behind", async () => {
    const e = await exchange(
      `onRequestHeaders(h) {
        ${show(`[...stream.metadata]`)}
        stream.metadata.get("auth").user = "zoë";
        stream.metadata.set("mine", { n: 1, list: [true, null] });
        stream.metadata.delete("gone");
      }`,
      `onRequestHeaders(h) { h.set("x-behind", String(stream.metadata.get("mine").n)); }`,
    );
    e.stream.metadata.set("auth", { user: "eve" }).set("gone", {});
    await e.requestHeaders().settled();
    expect(saw(e)).toEqual([
      ["auth", { user: "eve" }],
      ["gone", {}],
    ]);
    expect([...e.stream.metadata]).toEqual([
      ["auth", { user: "zoë" }],
      ["mine", { n: 1, list: [true, null] }],
    ]);
    expect(e.request.get("x-behind")).toBe("1");
  });

  it("is told again where it has changed, before heads and before bodies", async () => {
    const e = await exchange(
      `seen: [], onRequestHeaders() { this.seen.push([...stream.metadata.keys()]); },
       onRequestBody() { this.seen.push([...stream.metadata.keys()]); },
       onResponseHeaders(h) { this.seen.push(stream.metadata.get("b")); h.set("x-saw", JSON.stringify(this.seen)); }`,
    );
    await e.requestHeaders(false).settled();
    e.stream.metadata.set("b", { k: 1 });
    e.requestBody("hello");
    await e.settled();
    e.stream.metadata.get("b")!["k"] = 2;
    const response = e.responseHeaders(200, "");
    await e.settled();
    expect(JSON.parse(response.get("x-saw")!)).toEqual([[], ["b"], { k: 2 }]);
  });

  it("is set by a promise that settles later, and by a hook that replies", async () => {
    const e = await exchange(
      `async onRequestHeaders() { await Promise.resolve(); stream.metadata.set("late", { ok: true }); return reply(403); }`,
    );
    await e.requestHeaders().settled();
    expect([e.reply?.status, e.stream.metadata.get("late")]).toEqual([403, { ok: true }]);
  });

  it("takes a namespace called __proto__ as any other, and no value that is no object", async () => {
    const e = await exchange(
      `onRequestHeaders() { stream.metadata.set("__proto__", { polluted: 1 }); stream.metadata.set("ok", {}); }`,
      `onRequestHeaders() { stream.metadata.set("bad", 7); }`,
    );
    await e.requestHeaders().settled();
    expect(e.stream.metadata.get("__proto__")).toEqual({ polluted: 1 });
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
    expect([e.reply?.status, e.stream.metadata.has("bad")]).toEqual([500, false]);
  });

  it("costs nothing where nobody names it", async () => {
    const e = await exchange(`onRequestHeaders() {}`);
    e.stream.metadata.set("a", { x: "y".repeat(5000) });
    let asked = 0;
    Object.defineProperty(e.stream, "metadata", { get: () => asked++ });
    await e.requestHeaders().settled();
    expect(asked).toBe(0);
  });
});

describe("filter state", () => {
  it("goes both ways as far as JSON carries it, and what it cannot carry stays", async () => {
    const e = await exchange(
      `onRequestHeaders(h) { ${show(`[...stream.filterState]`)} stream.filterState.set("tenant", "blue"); }`,
    );
    const own = new Map();
    e.stream.filterState.set("count", 3).set("object", own);
    await e.requestHeaders().settled();
    expect(saw(e)).toEqual([["count", 3]]);
    expect([...e.stream.filterState]).toEqual([
      ["count", 3],
      ["object", own],
      ["tenant", "blue"],
    ]);
  });

  it("keeps values for the streams of a connection, apart from those of other packages", async () => {
    const code = `onRequestHeaders(h) {
      const n = (stream.connectionState.get("n") ?? 0) + 1; stream.connectionState.set("n", n); h.set("x-saw", String(n)); }`;
    const first = await exchange(code);
    first.stream.connectionState.set("n", new Set());
    await first.requestHeaders().settled();
    const second = new Exchange(worker, [stubs(worker, worker.boxes[0]!)], HEAD);
    Object.assign(second.stream, { connectionState: first.stream.connectionState });
    await second.requestHeaders().settled();
    expect([saw(first), saw(second)]).toEqual([1, 2]);
    expect(first.stream.connectionState.get("n")).toBeInstanceOf(Set);
  });
});

describe("what is known of a stream", () => {
  it("tells the route, its virtual host and their metadata", async () => {
    const e = await exchange(
      `onRequestHeaders(h) { const r = stream.route; ${show(`[r.name, r.virtualHostName, r.action.cluster, r.routeMetadata, r.virtualHostMetadata]`)} }`,
    );
    Object.assign(e.stream, {
      route: {
        name: "r",
        virtualHostName: "v",
        action: { type: "route", cluster: "c", rewrite: () => {} },
        routeMetadata: { ns: { a: 1 } },
        virtualHostMetadata: { ns: { b: 2 } },
      },
    });
    await e.requestHeaders().settled();
    expect(saw(e)).toEqual(["r", "v", "c", { ns: { a: 1 } }, { ns: { b: 2 } }]);
  });

  it("tells of a new route after the old one was cleared, and of none", async () => {
    const e = await exchange(
      `onRequestHeaders() { stream.clearRoute(); }, onResponseHeaders(h) { h.set("x-route", stream.route?.name ?? "none"); }`,
    );
    Object.assign(e.stream, { route: { name: "one", action: { type: "direct_response" } } });
    await e.requestHeaders().settled();
    Object.assign(e.stream, { route: undefined });
    const response = e.responseHeaders(200, "");
    await e.settled();
    expect([e.cleared, linesOf(response)]).toEqual([1, ["x-route: none"]]);
  });

  it("tells what the client's connection is, its certificate too", async () => {
    const e = await exchange(
      `onRequestHeaders(h) { const c = stream.downstreamConnection; ${show(`[c.remoteAddress.ip, c.ja4Fingerprint, c.serverName, c.listener.name, c.tls.version, c.tls.peer.subject, c.metadata.get("pp"), Object.keys(c.listener)]`)} }`,
    );
    Object.assign(e.stream, {
      downstreamConnection: {
        remoteAddress: { ip: "192.0.2.9", port: 4000 },
        ja4Fingerprint: "t13",
        serverName: "a.test",
        // As core has it, with all of its config.
        listener: { name: "main", filterChains: ["x".repeat(50_000)] },
        tls: {
          version: "TLSv1.3",
          peer: { subject: "CN=müller" },
          peerChain: ["x".repeat(50_000)],
        },
        metadata: new Map([["pp", { tlv: "1" }]]),
      },
    });
    await e.requestHeaders().settled();
    expect(saw(e)).toEqual([
      "192.0.2.9",
      "t13",
      "a.test",
      "main",
      "TLSv1.3",
      "CN=müller",
      { tlv: "1" },
      ["name"],
    ]);
  });

  it("tells counts as they are at a hook, and at the end", async () => {
    const e = await exchange(
      `onRequestHeaders() { this.first = stream.info.bytesReceived; }, onEnd() { cx.log.warn("end", { first: this.first, sent: stream.info.bytesSent, flags: stream.info.flags.join() }); }`,
    );
    // An object of the cluster manager's, which no JSON could carry.
    const cluster: Record<string, unknown> = { metadata: { filter_metadata: {} } };
    cluster["self"] = cluster;
    Object.assign(e.stream.info, { bytesReceived: 5, cluster });
    await e.requestHeaders().settled();
    Object.assign(e.stream.info, { bytesSent: 9, flags: ["UF"] });
    e.end();
    await worker.until(() => worker.logged.length > 0);
    expect(worker.logged[0]?.fields).toEqual({ first: 5, sent: 9, flags: "UF" });
  });
});

it("tells a stub that found no room what it could not tell then", async () => {
  const e = await exchange(
    `onRequestHeaders() { }, onResponseHeaders(h) { h.set("x-saw", JSON.stringify([...stream.metadata])); }`,
  );
  await e.requestHeaders().settled();
  e.stream.metadata.set("a", { b: 1 });
  worker.rooms = 0;
  const response = e.responseHeaders(200, "");
  worker.flush();
  worker.rooms = -1;
  await e.settled();
  expect(response.get("x-saw")).toBe('[["a",{"b":1}]]');
});

it("hears from setup which parts a use reads", async () => {
  const code = filter("").replace(
    "return (stream) => ({  });",
    `
    return Object.assign((stream) => ({ onRequestHeaders(h) { stream.metadata; stream.info; } }), { reads: ["info"] });`,
  );
  const told: unknown[] = [];
  await worker.sandbox(code, [{}, {}], { onReads: (use, mask) => told.push([use, mask]) });
  expect(told).toEqual([1, 2].map((use) => [use, HOOK.INFO]));
});
