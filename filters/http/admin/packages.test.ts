import { describe, expect, it } from "vitest";
import type { PackageSnapshot } from "./core-data.ts";
import { start } from "./test-admin.ts";

describe("/filters", () => {
  const good: PackageSnapshot = {
    package: "http/router",
    kind: "http",
    name: "envoy.filters.http.router",
    origin: "shipped",
    group: "builtin",
    generation: 1,
    state: "active",
    builtAt: "2026-11-20T09:30:50.219Z",
    uses: 1,
  };
  const bad: PackageSnapshot = {
    ...good,
    package: "http/mine",
    name: "mine",
    origin: "dropped-in",
    group: "mine",
    generation: 4,
    state: "failed",
    uses: 2,
    errors: [
      { message: "the process before ended inside it" },
      {
        message: "unexpected }",
        file: "mine/filter.ts",
        line: 3,
        column: 22,
        frame: "3 | }\n    ^",
      },
    ],
  };

  it("prints each package, and all that is wrong with it", async () => {
    const { body } = await start({ packages: [good, bad] }).ask("/filters");
    expect(body).toBe(
      "http/mine    mine                       failed  generation 4, 2 uses, dropped-in, group mine\n" +
        "    the process before ended inside it\n" +
        "    mine/filter.ts:3:22: unexpected }\n" +
        "    3 | }\n" +
        "        ^\n" +
        "http/router  envoy.filters.http.router  active  generation 1, 1 use, shipped, group builtin\n",
    );
  });

  it("tells machines the same", async () => {
    const { body } = await start({ packages: [good, bad] }).ask("/filters?format=json&filter=mine");
    expect(JSON.parse(body).filters).toEqual([
      {
        package: "http/mine",
        kind: "http",
        name: "mine",
        origin: "dropped-in",
        group: "mine",
        generation: 4,
        state: "failed",
        uses: 2,
        built_at: good.builtAt,
        errors: bad.errors,
      },
    ]);
  });
});
