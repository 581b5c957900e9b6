import { describe, expect, it } from "vitest";
import { start } from "./test-admin.ts";

describe("commands that change something", () => {
  it.each([
    ["/healthcheck/fail", "core.healthcheck"],
    ["/healthcheck/ok", "core.healthcheck"],
    ["/drain_listeners?graceful&inboundonly", "core.drain_listeners"],
    ["/drain_listeners?skip_exit", "core.drain_listeners"],
    ["/reopen_logs", "core.reopen_logs"],
    ["/stats/recentlookups/enable", "core.change_lookups"],
    ["/runtime_modify?a=1", "core.runtime_modify"],
  ])("%s wants POST, and answers OK", async (path, operation) => {
    const t = start();
    expect((await t.ask(path)).status).toBe(405);
    expect(t.ran).toEqual([]);
    expect(await t.ask(path, "POST")).toMatchObject({ status: 200, body: "OK\n" });
    expect(t.ran).toEqual([operation]);
  });

  it("takes the values of a form", async () => {
    const t = start();
    const told: unknown[] = [];
    t.cx.operations.set("core.runtime_modify", (args) => told.push(args));
    await t.ask("/runtime_modify", "POST", { form: "b=2%20x&c=" });
    // As in Envoy, a form counts only where the query is empty.
    await t.ask("/runtime_modify?a=1", "POST", { form: "b=2" });
    expect(told).toEqual([{ b: "2 x", c: "" }, { a: "1" }]);
    expect((await t.ask("/runtime_modify", "POST")).status).toBe(400);
  });

  it("says so when no layer of the runtime takes changes", async () => {
    const t = start();
    t.cx.operations.set("core.runtime_modify", () => false);
    expect(await t.ask("/runtime_modify?a=1", "POST")).toMatchObject({
      status: 503,
      body: "No admin layer specified",
    });
  });
});

describe("what Envoy has beside", () => {
  it("answers memory in decimal strings", async () => {
    const body = JSON.parse((await start().ask("/memory")).body);
    expect(Object.keys(body)).toEqual([
      "allocated",
      "heap_size",
      "pageheap_unmapped",
      "pageheap_free",
      "total_thread_cache",
      "total_physical_bytes",
    ]);
    expect(body.allocated).toBe("1");
  });

  it.each([
    ["/memory/tcmalloc", "GET", "The current build does not support TCMalloc stats"],
    ["/heapprofiler?enable=y", "POST", "The current build does not support heap profiler"],
  ])("says that %s is not there", async (path, method, body) => {
    expect(await start().ask(path, method)).toMatchObject({ status: 501, body });
  });

  it("hands a heap dump on as core makes it, and pauses while the client takes no more", async () => {
    const t = start();
    const asked: unknown[] = [];
    const pieces = ["{", "}", ""];
    t.cx.operations.set("core.heap_dump", (args) => {
      asked.push(args);
      return { dump: 1 };
    });
    t.cx.operations.set("core.heap_dump_piece", () => pieces.shift());
    t.cx.operations.set("core.heap_dump_end", (args) => asked.push(args));
    const { filter, request, sent, hooks } = t.open("GET", "/heap_dump?filter=http/router");
    hooks.onSend = () => filter.onResponseBlocked!(true);
    filter.onRequestHeaders!(request, true);
    for (const body of ["{", "{}"]) {
      await t.cx.turn();
      expect(sent).toMatchObject({ status: 200, body, ended: false });
      filter.onResponseBlocked!(false);
    }
    await t.cx.turn();
    expect(sent.ended).toBe(true);
    expect(asked).toEqual([{ filter: "http/router" }, { dump: 1 }]);
  });

  it("says why there is no heap dump", async () => {
    const t = start();
    t.cx.operations.set("core.heap_dump", () => ({ error: 'there is no thread "x"' }));
    const body = 'there is no thread "x"\n';
    expect(await t.ask("/heap_dump?thread=x")).toMatchObject({ status: 500, body });
  });

  it("prints the names of stats that were looked up", async () => {
    const t = start();
    expect((await t.ask("/stats/recentlookups")).body).toBe(
      "Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n\ntotal: 7\n",
    );
    t.cx.operations.set("core.recent_lookups", () => ({ recent: [["a.b", 2]], total: 9 }));
    expect((await t.ask("/stats/recentlookups")).body).toBe(
      "   Count Lookup\n       2 a.b\n\ntotal: 9\n",
    );
  });
});
