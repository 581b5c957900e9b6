import { done, type HttpFilter, hold, reply, type Verdict } from "@tsproxy/sdk";
import type { TestExchange } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { type TestClient, TestProxy } from "./test-proxy.ts";

/** A small generator of its own (mulberry32), so that a seed always tells the same story. */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** A filter that at each hook goes on, thinks, holds, replies, throws or is done. */
function anything(
  pick: (below: number) => number,
  open: ((verdict: Verdict) => void)[],
  ends: { n: number },
): HttpFilter {
  const verdict = (): Verdict => {
    const roll = pick(40);
    if (roll === 0) return reply(403, { body: "no" });
    if (roll === 1) return done;
    if (roll < 5) return hold({ body: roll < 3 ? "buffer" : "stream", max: 20 });
    return undefined;
  };
  const hook = () => {
    const roll = pick(12);
    if (roll === 0) return new Promise<Verdict>((resolve) => open.push(resolve));
    if (roll === 1 && pick(8) === 0) throw new Error("by chance");
    if (roll === 2 && pick(8) === 0) return Promise.reject(new Error("by chance"));
    return verdict();
  };
  return {
    onRequestHeaders: hook,
    onRequestBody: hook,
    onRequestTrailers: hook,
    onResponseHeaders: hook,
    onResponseBody: hook,
    onResponseTrailers: hook,
    onEnd: () => void ends.n++,
  };
}

const REQUESTS = [
  "GET /a HTTP/1.1\r\nhost: h\r\n\r\n",
  "HEAD /b HTTP/1.1\r\nhost: h\r\n\r\n",
  "POST /c HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n0123456789",
  "POST /d HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
  "GET /e HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
  "BAD\r\n\r\n",
];

async function play(seed: number) {
  const pick = chance(seed);
  const open: ((verdict: Verdict) => void)[] = [];
  const ends = { n: 0 };
  let made = 0;
  const filter = () => {
    made++;
    return anything(pick, open, ends);
  };
  const p = new TestProxy({ codec, router })
    .filter("one", filter)
    .filter("two", filter)
    .start({
      stream_idle_timeout: 5000,
      upgrade_configs: [{ upgrade_type: "websocket" }],
      http_protocol_options: { enable_trailers: true },
    });
  const clients: { client: TestClient; text: string }[] = [];
  const answered = new Map<TestExchange, number>();
  for (let step = 0; step < 150; step++) {
    const roll = pick(10);
    const mine = clients[pick(clients.length + 1)];
    if (mine === undefined) {
      const text = Array.from({ length: 1 + pick(3) }, () => REQUESTS[pick(6)]).join("");
      clients.push({ client: p.connect(), text });
    } else if (roll < 5 && mine.text !== "" && mine.client.connection.open) {
      const size = 1 + pick(60);
      mine.client.send(mine.text.slice(0, size));
      mine.text = mine.text.slice(size);
    } else if (roll === 5 && pick(4) === 0 && mine.client.connection.open) mine.client.leave();
    else if (roll === 6) open.splice(pick(open.length + 1), 1)[0]?.(undefined);
    else if (roll === 7) {
      p.up.answer = (["ready", "ready", "pending"] as const)[pick(3)]!;
      if (pick(20) === 0) p.cx.clock.advance(pick(6000));
    } else upstream(p, pick, answered);
    await Promise.resolve();
  }
  for (const { client } of clients) client.leave();
  for (const resolve of open) resolve(undefined);
  for (let k = 0; k < 5; k++) await Promise.resolve();
  return { p, made, ends: ends.n };
}

/** Moves one exchange that is not over by a step. */
function upstream(
  p: TestProxy,
  pick: (below: number) => number,
  answered: Map<TestExchange, number>,
): void {
  const living = p.up.exchanges.filter((e) => !e.wasReset && !e.cancelled && answered.get(e) !== 9);
  const exchange = living[pick(living.length + 1)];
  if (exchange === undefined) return;
  const at = answered.get(exchange) ?? 0;
  if (!exchange.sent) {
    answered.set(exchange, pick(5) === 0 ? 9 : 0);
    if (answered.get(exchange) === 9) exchange.fail({});
    else exchange.connect();
  } else if (pick(10) === 0) {
    answered.set(exchange, 9);
    exchange.break("connection_closed");
  } else if (at === 0) {
    const status = exchange.upgrade === "" ? 200 : 101;
    const alone = status === 200 && (exchange.method === "HEAD" || pick(3) === 0);
    answered.set(exchange, alone ? 9 : 1);
    exchange.respond(
      status,
      status === 101 ? { upgrade: "websocket" } : {},
      alone ? "" : undefined,
    );
  } else {
    const last = pick(3) === 0;
    if (last) answered.set(exchange, 9);
    exchange.send("x".repeat(pick(9)), last);
  }
}

describe("whatever clients, filters and upstreams do", () => {
  it("every stream ends once, and nothing is left of it", async () => {
    for (let seed = 1; seed <= 200; seed++) {
      const { p, made, ends } = await play(seed);
      const { stats } = p.cx;
      const left = {
        seed,
        filters: made - ends,
        streams: stats.value("http.test.downstream_rq_active"),
        connections: stats.value("http.test.downstream_cx_active"),
        upgrades: stats.value("http.test.downstream_cx_upgrades_active"),
        timers: p.cx.clock.armed,
        uses: p.cx.slots.reduce((sum, slot) => sum + slot.current.uses, 0),
      };
      expect(left).toEqual({
        seed,
        filters: 0,
        streams: 0,
        connections: 0,
        upgrades: 0,
        timers: 0,
        uses: 0,
      });
    }
  });
});
