import http2 from "node:http2";
import net from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bootstrap, cluster, http, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { httpUpstream, type Upstream } from "./upstream.ts";

let origin: Upstream<import("node:http").Server>;
let proxy: Proxy;

beforeAll(async () => {
  origin = await httpUpstream((request, response) => {
    request.resume();
    if (request.url !== "/slow") response.end("ok");
  });
  proxy = await Proxy.start({
    config: bootstrap(
      [listener("main", http([route("/", "origin")], { codec_type: "HTTP2" }))],
      [cluster("origin", [origin.port])],
    ),
  });
});
afterAll(async () => {
  await proxy?.stop();
  await origin?.close();
});

function frame(type: number, flags: number, id: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}
const HELLO = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  frame(4, 0, 0, Buffer.alloc(0)),
]);
/** GET http://h/slow */
const GET = Buffer.concat([
  Buffer.from([0x82, 0x86, 0x01, 1]),
  Buffer.from("h"),
  Buffer.from([0x04, 5]),
  Buffer.from("/slow"),
]);
const CANCEL = Buffer.from([0, 0, 0, 8]);
const headers = (id: number) => frame(1, 5, id, GET);
const reset = (id: number) => frame(3, 0, id, CANCEL);
/** A stream that breaks a rule of its own, so that the server has to reset it: a window beyond the largest. */
const provoke = (id: number) => frame(8, 0, id, Buffer.from([0x7f, 0xff, 0xff, 0xff]));

/** Streams by the thousand, and the end of each at once, until the proxy hangs up. */
function attack(end: (id: number) => Buffer): Promise<void> {
  const streams = Array.from({ length: 5000 }, (_, k) => [headers(2 * k + 1), end(2 * k + 1)]);
  const bytes = Buffer.concat([HELLO, ...streams.flat()]);
  return new Promise((resolve) => {
    const socket = net.connect(proxy.port("main"), "127.0.0.1", () => socket.write(bytes));
    socket.on("error", () => {});
    socket.on("close", () => resolve());
    socket.resume();
  });
}

/** A polite client: a request every 10 ms for as long as the attack lasts. Answers how many failed. */
async function client(until: Promise<unknown>): Promise<{ asked: number; failed: number }> {
  const session = http2.connect(`http://127.0.0.1:${proxy.port("main")}`);
  let isOver = false;
  void until.then(() => (isOver = true));
  let asked = 0;
  let failed = 0;
  session.on("error", () => failed++);
  const pending: Promise<void>[] = [];
  while (!isOver) {
    asked++;
    pending.push(
      new Promise((resolve) => {
        const stream = session.request({ ":path": "/" });
        let status = 0;
        stream.on("response", (head) => (status = Number(head[":status"])));
        stream.on("error", () => {});
        stream.on("close", () => {
          if (status !== 200) failed++;
          resolve();
        });
        stream.resume();
      }),
    );
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await Promise.all(pending);
  session.close();
  return { asked, failed };
}

test.each([
  ["resets every stream that it opens", reset],
  ["makes the proxy reset every stream that it opens", provoke],
])("a client that %s is cut off early, and others lose nothing", async (_, end) => {
  const asked = () => proxy.stat("http.test.downstream_rq_total");
  const cut = () => proxy.stat("http.test.downstream_rq_too_many_premature_resets");
  const before = [await asked(), await cut()] as const;
  await attack(end);
  const each = (await asked()) - before[0];
  // Envoy's limit is 500, half of which have to be premature; the rest of a turn's streams may come with them.
  expect(each).toBeGreaterThanOrEqual(250);
  expect(each).toBeLessThanOrEqual(450);
  const rss = proxy.rss();
  const attacks = (async () => {
    for (let k = 0; k < 40; k++) await attack(end);
  })();
  const clients = await Promise.all(Array.from({ length: 10 }, () => client(attacks)));
  expect(clients.map(({ failed }) => failed)).toEqual(clients.map(() => 0));
  expect((await cut()) - before[1]).toBe(41);
  expect(proxy.rss() - rss).toBeLessThan(64 * 1024 * 1024);
  expect(await proxy.stat("http.test.downstream_rq_active")).toBe(0);
});

test("a connection whose close is delayed is closed by the client if that leaves first; its streams are lost by the proxy", async () => {
  const options = { codec_type: "HTTP2", delayed_close_timeout: "600s" };
  const patient = await Proxy.start({
    config: bootstrap(
      [listener("main", http([route("/", "origin")], options))],
      [cluster("origin", [origin.port])],
    ),
  });
  try {
    const malformed = frame(1, 5, 3, Buffer.concat([GET, Buffer.from("\0\x02te\x04gzip")]));
    const socket = net.connect(patient.port("main"), "127.0.0.1");
    socket.write(Buffer.concat([HELLO, headers(1), malformed]));
    socket.resume();
    await patient.untilStat("http.test.downstream_cx_protocol_error", 1);
    socket.end();
    await patient.untilStat("http.test.downstream_cx_destroy_remote", 1);
    const stats = await patient.stats();
    const destroyed = (kind: string) => stats(`http.test.downstream_cx_destroy_${kind}`);
    const kinds = ["local", "active_rq", "local_active_rq", "remote_active_rq"];
    expect(kinds.map(destroyed)).toEqual([0, 1, 1, 0]);
  } finally {
    await patient.stop();
  }
});
