import { TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { TestRequest } from "./route-check.ts";
import { RouteConfig } from "./route-config.ts";
import { RouteTable } from "./route-table.ts";

const HOSTS = 200;

function table(
  role: TestContext["role"],
  last: object = {},
  { worker = 0, rehearsed = true }: { worker?: number; rehearsed?: boolean } = {},
) {
  const cx = Object.assign(new TestContext(), { role, worker, rehearsed });
  const config = withDefaults(RouteConfig, {
    name: "many",
    validate_clusters: false,
    virtual_hosts: Array.from({ length: HOSTS }, (_, v) => ({
      name: `host${v}`,
      domains: [`host${v}.test`],
      routes: [
        { name: `r${v}`, match: { prefix: "/a" }, route: { cluster: `c${v}` } },
        ...(v === HOSTS - 1 ? [{ match: { prefix: "/b" }, route: { cluster: "x" }, ...last }] : []),
      ],
    })),
  });
  const made = new RouteTable(config, "route_config", cx);
  const find = (host: string, path = "/a") =>
    made.find(new TestRequest({ input: { authority: host, path } }));
  return { cx, table: made, find };
}

/** The pattern is no regex. */
const broken = { match: { safe_regex: { regex: "(" } } };

describe("a table of many virtual hosts", () => {
  it("finds its routes", () => {
    const { find } = table("worker");
    for (const v of [0, 77, HOSTS - 1, 77])
      expect(find(`host${v}.test`)?.action).toMatchObject({ type: "route", cluster: `c${v}` });
    expect(find("other.test")).toBeUndefined();
  });

  it("is refused before it is used, where a worker would find out late", () => {
    expect(() => table("canary", broken)).toThrow(/missing|regex|unterminated/i);
    const { cx, find } = table("worker", broken);
    expect(find("host5.test")?.action).toMatchObject({ cluster: "c5" });
    expect(cx.logged).toEqual([]);
    expect(find(`host${HOSTS - 1}.test`)).toBeUndefined();
    expect(cx.logged.map(({ level }) => level)).toEqual(["error"]);
    // Once is enough.
    expect(find(`host${HOSTS - 1}.test`)).toBeUndefined();
    expect(cx.logged).toHaveLength(1);
  });

  it("is refused by one worker where no canary was before", () => {
    const first = { rehearsed: false };
    expect(() => table("worker", broken, first)).toThrow(/missing|regex|unterminated/i);
    expect(() => table("worker", broken, { ...first, worker: 1 })).not.toThrow();
    const { find } = table("worker", {}, first);
    expect(find(`host${HOSTS - 1}.test`)?.action).toMatchObject({ cluster: `c${HOSTS - 1}` });
  });

  it("knows at once how its routes configure filters", () => {
    const own = { config: { a: 1 } };
    const { table: made } = table("worker", { typed_per_filter_config: { "http/x": own } });
    expect([...made.filterConfigs.keys()]).toEqual([own.config]);
  });
});
