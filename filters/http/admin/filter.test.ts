import { describe, expect, it } from "vitest";
import { start } from "./test-admin.ts";

describe("requests", () => {
  it("answers with Envoy's headers", async () => {
    const { status, headers, body } = await start().ask("/ready");
    expect(status).toBe(200);
    expect(headers).toEqual({
      "content-type": "text/plain; charset=UTF-8",
      "cache-control": "no-cache, max-age=0",
      "x-content-type-options": "nosniff",
    });
    expect(body).toBe("LIVE\n");
  });

  it("is not ready while it drains", async () => {
    const { status, body } = await start({ state: "DRAINING" }).ask("/ready", "POST");
    expect([status, body]).toEqual([503, "DRAINING\n"]);
  });

  it("names the commands when it does not know one", async () => {
    const { status, body } = await start().ask("/nonsense?x");
    expect(status).toBe(404);
    expect(body).toMatch(/^invalid path\. admin commands are:\n {2}\/: Admin home page\n/);
  });

  it.each(["/quitquitquit", "/reset_counters"])("changes nothing for a GET of %s", async (path) => {
    const t = start();
    const { status, body } = await t.ask(path);
    expect([status, body]).toEqual([405, "Method GET not allowed, POST required."]);
    expect(t.ran).toEqual([]);
  });

  it("resets counters", async () => {
    const t = start();
    expect((await t.ask("/reset_counters", "POST")).body).toBe("OK\n");
    expect(t.ran).toEqual(["core.reset_counters"]);
  });

  it("quits once the answer has gone out", async () => {
    const t = start();
    const { filter, request, sent, hooks } = t.open("POST", "/quitquitquit");
    const ranWhenSent: string[][] = [];
    hooks.onSend = () => void ranWhenSent.push([...t.ran]);
    filter.onRequestHeaders!(request, true);
    await t.cx.turn();
    expect(sent.body).toBe("OK\n");
    expect(ranWhenSent).toEqual([[]]);
    expect(t.ran).toEqual(["core.quit"]);
  });

  it("waits for the end of a request's body, which it drops", async () => {
    const t = start();
    const { filter, request, sent } = t.open("POST", "/ready");
    filter.onRequestHeaders!(request, false);
    await t.cx.turn();
    expect(sent.status).toBe(0);
    filter.onRequestBody!(undefined as never, true);
    await t.cx.turn();
    expect(sent.body).toBe("LIVE\n");
  });

  it("sends no body to HEAD", async () => {
    const { status, body, ended } = await start().ask("/help", "HEAD");
    expect([status, body, ended]).toEqual([200, "", true]);
  });

  it("lists every command in the help and on the home page", async () => {
    const t = start();
    const { body } = await t.ask("/help");
    const home = await t.ask("/");
    expect(home.headers["content-type"]).toBe("text/html; charset=UTF-8");
    const paths = [...body.matchAll(/^ {2}(\/[a-z_/]+)/gm)].map((match) => match[1]!);
    expect(paths.length).toBeGreaterThan(8);
    for (const path of paths) expect(home.body).toContain(`>${path}<`);
    expect(home.body).toContain('<form action="/quitquitquit" method="post">');
  });

  it("answers 500 when core does", async () => {
    const t = start();
    t.cx.operations.set("core.stats", () => {
      throw new Error("no answer in 5 s");
    });
    const { status, body } = await t.ask("/stats");
    expect(status).toBe(500);
    expect(body).toContain("no answer in 5 s");
  });

  it("makes no more of the answer than the client takes", async () => {
    const counters = Array.from({ length: 5000 }, (_, k) => [`cluster.c${k}.x`, k] as const);
    const t = start({ stats: { counters } });
    const { filter, request, sent, hooks } = t.open("GET", "/stats");
    hooks.onSend = () => filter.onResponseBlocked!(true);
    filter.onRequestHeaders!(request, true);
    await t.cx.turn();
    expect(sent.pieces).toBe(1);
    expect(sent.body.length).toBeLessThan(20_000);
    hooks.onSend = () => {};
    filter.onResponseBlocked!(false);
    expect(sent.ended).toBe(true);
    expect(sent.body.split("\n")).toHaveLength(5001);
  });

  it("stops when the client leaves", async () => {
    const t = start();
    const { filter, request, sent } = t.open("GET", "/stats");
    filter.onRequestHeaders!(request, true);
    filter.onReset!();
    await t.cx.turn();
    expect(sent.status).toBe(0);
  });

  it("makes a bounded number of answers at a time", async () => {
    const t = start();
    const ask = () => {
      const opened = t.open("GET", "/listeners");
      opened.filter.onResponseBlocked!(true);
      opened.filter.onRequestHeaders!(opened.request, true);
      return opened;
    };
    const open = Array.from({ length: 65 }, ask);
    await t.cx.turn();
    expect(open.map(({ sent }) => sent.status)).toEqual([...Array(64).fill(200), 503]);
    for (const { filter } of open) filter.onReset!();
    expect((await t.ask("/listeners")).status).toBe(200);
  });
});
