import {
  type AcceptedSocket,
  Chunk,
  HeaderMap,
  type ListenerAnswer,
  type LogEntry,
  RequestHeaders,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { TestContext, testStreamInfo } from "@tsproxy/sdk/testing";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HeadGuard } from "../inside/head-guard.ts";
import { ParkedLogger } from "../inside/parked-log.ts";
import { parkedListenerFactory } from "../inside/parked-peek.ts";
import { FakeWorker } from "./fake-worker.ts";
import type { Sandbox } from "./sandbox.ts";

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

const useOf = (sandbox: Sandbox) => ({ box: worker.boxes.indexOf(sandbox), use: 1, hooks: 0 });

describe("a sandboxed access log", () => {
  const source = (body: string): string => `
    import { compileFormat, defineAccessLogger, Type } from "@tsproxy/sdk";
    export default defineAccessLogger({ name: "test", config: Type.Object({}), setup(config, cx) {
      const file = cx.file("/log"); const seen = cx.stats.counter("seen");
      return { log(entry) { seen.inc(); ${body} } };
    } });`;

  let dropped = 0;
  const cx = new TestContext();
  const lines: string[] = [];
  beforeEach(() => {
    dropped = 0;
    lines.length = 0;
  });
  async function loggerOf(body: string, more: object = {}): Promise<ParkedLogger> {
    const onLines = (path: string, text: string) => lines.push(`${path} ${text}`);
    const sandbox = await worker.sandbox(source(body), [{}], { onLines });
    return new ParkedLogger({ ...useOf(sandbox), ...more }, worker.table, cx, (count) => {
      dropped += count;
    });
  }

  function entry(path = "/p"): LogEntry {
    const request = new RequestHeaders();
    request.method = "GET";
    request.path = path;
    request.append("host", "a.test");
    request.append("x-tenant", "gr\u00fcn");
    const response = new ResponseHeaders();
    response.status = 404;
    response.append("server", "s");
    const trailers = new HeaderMap();
    trailers.append("x-t", "1");
    return {
      info: testStreamInfo({ responseCode: 404, duration: 7, flags: ["NR"] }),
      request,
      response,
      trailers,
      metadata: new Map([["ns", { k: [1] }]]),
      filterState: new Map<string, unknown>([
        ["tenant", "blue"],
        ["lost", () => 1],
      ]),
      routeMetadata: { a: 1 },
      traceId: "4711",
    };
  }

  it("gets all of an entry that is a value, and writes lines of Envoy's language", async () => {
    const logger = await loggerOf(`
      const { info, request, response, trailers, metadata, filterState, routeMetadata, traceId } = entry;
      file.append([info.flags, request.method, request.path, request.get("x-tenant"), request.authority, response.status, response.get("server"), trailers.get("x-t"), JSON.stringify([...metadata, ...filterState, routeMetadata]), traceId].join(" ") + "\\n");
      file.append(compileFormat("%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %DURATION%\\n").format(entry));`);
    logger.log(entry());
    cx.clock.advance(20);
    await worker.until(() => lines.length > 0);
    expect(lines.join("")).toBe(
      '/log NR GET /p gr\u00fcn a.test 404 s 1 [["ns",{"k":[1]}],["tenant","blue"],{"a":1}] 4711\n/p 404 NR 7\n',
    );
  });

  it("is told in batches, one at a time, and what it throws costs one entry", async () => {
    const logger = await loggerOf(
      `if (entry.request.path === "/bad") throw new Error("on purpose"); file.append(entry.request.path);`,
    );
    const paths = Array.from({ length: 500 }, (_, k) => `/${k}`);
    const before = worker.records;
    for (const path of [...paths, "/bad", "/last"]) logger.log(entry(path));
    cx.clock.advance(20);
    await worker.until(() => worker.faults.length > 0 && lines.join("").endsWith("/last"));
    expect(lines.map((line) => line.slice("/log ".length)).join("")).toBe(`${paths.join("")}/last`);
    expect(worker.records - before).toBeLessThan(12);
    expect([worker.faults[0]?.reason, dropped]).toEqual(["log threw: on purpose", 0]);
  });

  it("drops what finds no place, and what a sandbox has not taken, and counts it", async () => {
    const logger = await loggerOf("for (;;);");
    for (let k = 0; k < 5000; k++) logger.log(entry());
    const tooMany = dropped;
    expect(tooMany).toBeGreaterThan(1000);
    logger.log(entry(`/${"x".repeat(70_000)}`));
    expect(dropped).toBe(tooMany + 1);
    await worker.until(() => dropped > tooMany + 10);
  });

  it("hands over what it has before it ends", async () => {
    const logger = await loggerOf("file.append(entry.request.path);");
    let ended = false;
    logger.log(entry("/one"));
    logger.end(() => {
      ended = true;
    });
    await worker.until(() => ended);
    expect(lines).toEqual(["/log /one"]);
  });

  it("sees the headers that its manifest names", async () => {
    const logger = await loggerOf("file.append(JSON.stringify([...entry.request]));", {
      guard: new HeadGuard({ read: ["host"] }),
    });
    logger.log(entry());
    cx.clock.advance(20);
    await worker.until(() => lines.length > 0);
    expect(lines).toEqual(['/log [["host","a.test"]]']);
  });
});

describe("a sandboxed listener filter", () => {
  const source = (members: string): string => `
    import { defineListenerFilter, Type } from "@tsproxy/sdk";
    export default defineListenerFilter({ name: "test", config: Type.Object({}), setup: (config, cx) => {
      const abandoned = cx.stats.counter("abandoned");
      return (socket) => ({ ${members} });
    } });`;

  const socketOf = (): AcceptedSocket & { metadata: unknown[] } => ({
    remoteAddress: { ip: "192.0.2.1", port: 4000 },
    localAddress: { ip: "127.0.0.1", port: 80 },
    transportProtocol: "raw_buffer",
    serverName: "",
    applicationProtocols: [],
    metadata: [],
    setMetadata(namespace, values) {
      this.metadata.push([namespace, values]);
    },
  });

  async function open(members: string, socket: AcceptedSocket, more: object = {}) {
    const sandbox = await worker.sandbox(source(members));
    const filter = parkedListenerFactory({ ...useOf(sandbox), ...more }, worker.table)(socket);
    const look = async (text: string): Promise<ListenerAnswer> => {
      const bytes = Buffer.from(text, "latin1");
      return filter.onBytes(new Chunk(bytes, 0, bytes.length));
    };
    return { filter, look, sandbox };
  }

  it("looks at bytes, waits for more, and says what the connection is", async () => {
    const socket = socketOf();
    const { look, sandbox } = await open(
      `async onBytes(bytes) {
         if (bytes.length < 5) return "more";
         await null;
         socket.serverName = bytes.text().slice(1) + "." + socket.remoteAddress.ip;
         socket.applicationProtocols = ["h2"];
         socket.localAddress = { ip: "2001:db8::1", port: 443 };
         socket.setMetadata("ns", { seen: bytes.length });
         return 1;
       }`,
      socket,
    );
    expect([await look(""), await look("\x01a"), await look("\x01name")]).toEqual([
      "more",
      "more",
      1,
    ]);
    expect(socket).toMatchObject({
      serverName: "name.192.0.2.1",
      applicationProtocols: ["h2"],
      localAddress: { ip: "2001:db8::1", port: 443 },
      metadata: [["ns", { seen: 5 }]],
    });
    await worker.until(() => sandbox.live === 0);
  });

  it.each([
    ["socket.remoteAddress = { ip: 'nowhere', port: 1 }; return 0;"],
    ["socket.remoteAddress = { ip: '192.0.2.9', port: 99999 }; return 0;"],
    ["socket.serverName = 'x'.repeat(300); return 0;"],
    ["socket.applicationProtocols = [7]; return 0;"],
    ["socket.setMetadata('ns', 7); return 0;"],
  ])("may not answer so: %s", async (body) => {
    const socket = socketOf();
    const { look } = await open(`onBytes() { ${body} }`, socket);
    expect(await look("abc")).toBe("close");
    expect(worker.malformations).toHaveLength(1);
    expect({ ...socket, setMetadata: 0 }).toEqual({ ...socketOf(), setMetadata: 0 });
  });

  it.each([
    ["99", "99"],
    ["-1", "-1"],
    ["null", "null"],
    ["'perhaps'", '"perhaps"'],
    ["Promise.resolve(2.5)", "2.5"],
  ])("that answers %s is told so, with the line of its hook", async (code, named) => {
    const { look } = await open(`onBytes() { return ${code}; }`, socketOf());
    expect(await look("abc")).toBe("close");
    expect(worker.faults[0]!.reason).toBe(
      `onBytes: it returned ${named}; return "more", "close" or how many of the 3 bytes it takes`,
    );
    expect(worker.faults[0]!.stack).toMatch(/^test\.js:\d+:\d+$/);
  });

  it("closes what it fails at, or lets it pass, as its policy says", async () => {
    const members = `onBytes() { throw new Error("on purpose"); }`;
    const closed = await open(members, socketOf());
    const passing = await open(members, socketOf(), { failsOpen: true });
    expect([await closed.look("a"), await passing.look("a")]).toEqual(["close", 0]);
  });

  it("hears that a connection went while it waited", async () => {
    const { filter, look } = await open(
      `onBytes() { return "more"; }, onAbandoned() { abandoned.inc(); }`,
      socketOf(),
    );
    expect(await look("a")).toBe("more");
    filter.onAbandoned?.();
    worker.boxes[0]!.expire(0);
    await worker.until(() => worker.stat("abandoned") === 1);
  });
});
