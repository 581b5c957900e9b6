import { describe, expect, it } from "vitest";
import { start } from "./test-admin.ts";

describe("/logging", () => {
  it("lists loggers and changes one, several, or all", async () => {
    const t = start();
    const { body } = await t.ask("/logging", "POST");
    expect(body).toMatch(/^active loggers:\n {2}http\/router: info\n {2}main: info\n/);
    // Envoy's names of the same loggers.
    expect(body).toMatch(/\n {2}config: info\n(.*\n)* {2}router: info\n/);
    const set: unknown[] = [];
    t.cx.operations.set("core.set_log_levels", (args) => {
      set.push((args as { changes: unknown }).changes);
      return [["main", "debug"]];
    });
    for (const query of ["level=debug", "main=trace", "paths=main:off,router:error"])
      expect((await t.ask(`/logging?${query}`, "POST")).body).toMatch(
        /^active loggers:\n {2}main: debug\n/,
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

  it.each(["level=", "paths=", "nobody="])("changes nothing by %s", async (query) => {
    const { status, body } = await start().ask(`/logging?${query}`, "POST");
    expect(status).toBe(200);
    expect(body).toContain("main: info");
  });

  it.each([
    ["level=loud", "unknown logger level"],
    ["nobody=info", "unknown logger name"],
    ["paths=main", "empty logger name or empty logger level"],
    ["paths=main:loud", "unknown logger level"],
    ["level=info&main=debug", "invalid number of parameters"],
  ])("refuses %s", async (query, reason) => {
    const { status, body } = await start().ask(`/logging?${query}`, "POST");
    expect(status).toBe(400);
    expect(body).toMatch(new RegExp(`^error: ${reason}\n\nusage: /logging`));
  });
});
