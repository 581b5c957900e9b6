import { describe, expect, it } from "vitest";
import { start } from "./test-admin.ts";

describe("/logging", () => {
  it("lists loggers and changes one, several, or all", async () => {
    const t = start();
    expect((await t.ask("/logging", "POST")).body).toBe(
      "active loggers:\n  http/router: info\n  main: info\n  router: info\n\n",
    );
    const set: unknown[] = [];
    t.cx.operations.set("core.set_log_levels", (args) => {
      set.push((args as { changes: unknown }).changes);
      return [["main", "debug"]];
    });
    for (const query of ["level=debug", "main=trace", "paths=main:off,router:error"])
      expect((await t.ask(`/logging?${query}`, "POST")).body).toBe(
        "active loggers:\n  main: debug\n\n",
      );
    expect(set).toEqual([
      [["", "debug"]],
      [["main", "trace"]],
      [
        ["main", "off"],
        ["http/router", "error"],
      ],
    ]);
  });

  it.each([
    ["level=loud", "unknown logger level"],
    ["nobody=info", "unknown logger name"],
    ["paths=main", "unknown logger level"],
    ["level=info&main=debug", "invalid number of parameters"],
  ])("refuses %s", async (query, reason) => {
    const { status, body } = await start().ask(`/logging?${query}`, "POST");
    expect(status).toBe(400);
    expect(body).toMatch(new RegExp(`^error: ${reason}\n\nusage: /logging`));
  });
});
