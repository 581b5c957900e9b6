import type { BalancedCluster, Balancer, Host, HostHealth } from "@tsproxy/sdk";
import { defineBalancer, Type } from "@tsproxy/sdk";
import { TestContext, TestHost } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import type { Config } from "./config.ts";
import subset from "./filter.ts";

const DEFAULTS: Config = {
  fallback_policy: "NO_FALLBACK",
  default_subset: {},
  subset_selectors: [],
  allow_redundant_keys: false,
  locality_weight_aware: false,
  scale_locality_weight: false,
  panic_mode_any: false,
  list_as_any: false,
  metadata_fallback_policy: "METADATA_NO_FALLBACK",
  subset_lb_policy: {
    policies: [{ typed_extension_config: { name: "i", package: "balancer/i", config: {} } }],
  },
};
const selector = (keys: string[], more: object = {}) => ({
  keys,
  single_host_per_subset: false,
  fallback_policy: "NOT_DEFINED" as const,
  fallback_keys_subset: [],
  ...more,
});
const inner = defineBalancer({
  name: "i",
  config: Type.Object({}),
  setup: () => ({ create: ({ hosts }) => ({ choose: () => hosts[0] }) }),
});

let cx: TestContext;
let composed: ReturnType<typeof compose>;

/** Hosts by name: `a` has the address a:1. */
function host(name: string, lb: object | undefined, health: HostHealth = "healthy"): TestHost {
  const made = new TestHost({ ip: name, port: 1 });
  if (lb !== undefined) made.metadata = { filter_metadata: { "envoy.lb": lb } };
  made.health = health;
  return made;
}

/** A subset is all of its hosts' names, or none if all are unhealthy. */
function cluster(hosts: readonly TestHost[]): BalancedCluster {
  return {
    hosts,
    stats: cx.stats.scope("cluster.c."),
    find: () => undefined,
    spread: (_key, own): Balancer => {
      const healthy = own.filter((one) => one.healthy);
      const named = { key: own.map((one) => one.address.ip).join("") } as Host;
      return { choose: () => (healthy.length === 0 ? undefined : named) };
    },
  };
}

function compose(config: object) {
  const policy = cx.setup(subset, { ...DEFAULTS, ...config });
  if (!("compose" in policy)) throw new Error("stands above levels");
  let balancer: Balancer | undefined;
  return {
    update: (hosts: readonly TestHost[]) =>
      void (balancer = policy.compose(cluster(hosts), balancer)),
    ask: (criteria?: Record<string, unknown>): string => {
      const metadataMatch =
        criteria && Object.entries(criteria).map(([key, value]) => ({ key, value }));
      return balancer!.choose({ metadataMatch }, 0)?.key ?? "none";
    },
  };
}

const HOSTS = () => [
  host("a", { stage: "prod", version: "1" }),
  host("b", { stage: "prod", version: "2" }),
  host("c", { stage: "dev", version: "2" }),
  host("d", undefined),
];
const start = (config: object, hosts = HOSTS()) => {
  composed = compose(config);
  composed.update(hosts);
  return composed;
};
const stat = (name: string) => cx.stats.value(`cluster.c.lb_subsets_${name}`);

beforeEach(() => {
  cx = new TestContext().define("balancer/i", inner);
  cx.role = "control";
});

describe("subsets", () => {
  it("are the hosts with the values that a request asks for, all keys of a selector and no more", () => {
    const { ask } = start({
      subset_selectors: [selector(["version", "stage"]), selector(["stage"])],
    });
    expect(ask({ stage: "prod" })).toBe("ab");
    expect(ask({ stage: "prod", version: "2" })).toBe("b");
    expect(ask({ stage: "dev", version: "1" })).toBe("none");
    expect(ask({ version: "2" })).toBe("none");
    expect(ask()).toBe("none");
    expect(stat("selected")).toBe(2);
    expect([stat("active"), stat("created"), stat("removed")]).toEqual([5, 5, 0]);
  });

  it("tell types of values apart", () => {
    const hosts = [host("a", { v: 1 }), host("b", { v: "1" }), host("c", { v: { x: 1, y: [2] } })];
    const { ask } = start({ subset_selectors: [selector(["v"])] }, hosts);
    expect([ask({ v: 1 }), ask({ v: "1" }), ask({ v: { y: [2], x: 1 } })]).toEqual(["a", "b", "c"]);
  });

  it("come and go with their hosts", () => {
    const { update, ask } = start({ subset_selectors: [selector(["stage"])] });
    update([host("a", { stage: "prod" }), host("e", { stage: "test" })]);
    expect([ask({ stage: "dev" }), ask({ stage: "test" })]).toEqual(["none", "e"]);
    expect([stat("active"), stat("created"), stat("removed")]).toEqual([2, 3, 1]);
  });

  it("of lists are one for each value with list_as_any", () => {
    const hosts = [host("a", { v: ["1", "2"], s: "x" }), host("b", { v: "2", s: "x" })];
    const list = start({ subset_selectors: [selector(["v", "s"])], list_as_any: true }, hosts);
    expect([list.ask({ s: "x", v: "1" }), list.ask({ s: "x", v: "2" })]).toEqual(["a", "ab"]);
    const plain = start({ subset_selectors: [selector(["v", "s"])] }, hosts);
    expect([plain.ask({ s: "x", v: "2" }), plain.ask({ s: "x", v: ["1", "2"] })]).toEqual([
      "b",
      "a",
    ]);
  });

  it("of a single host take the first, whatever its health", () => {
    const hosts = [host("a", { v: "1" }, "unhealthy"), host("b", { v: "1" })];
    const single = selector(["v"], { single_host_per_subset: true });
    const { ask } = start({ subset_selectors: [single] }, hosts);
    expect(ask({ v: "1" })).toBe("a:1");
    expect(stat("single_host_per_subset_duplicate")).toBe(1);
  });

  it("may be asked for with more keys than they have, with allow_redundant_keys", () => {
    const config = { subset_selectors: [selector(["stage"])], allow_redundant_keys: true };
    expect(start(config).ask({ other: "x", stage: "dev" })).toBe("c");
    // Of several the one with the most keys, in whatever order they stand.
    const both = [selector(["stage"]), selector(["stage", "version"])];
    const { ask } = start({ ...config, subset_selectors: both });
    expect(ask({ other: "x", stage: "prod", version: "2" })).toBe("b");
  });
});

describe("a request that no subset fits", () => {
  const selectors = { subset_selectors: [selector(["stage"])] };

  it("gets any host with ANY_ENDPOINT", () => {
    const { ask } = start({ ...selectors, fallback_policy: "ANY_ENDPOINT" });
    expect([ask({ stage: "test" }), ask({ x: "y" }), ask()]).toEqual(["abcd", "abcd", "abcd"]);
    expect([stat("fallback"), stat("selected")]).toEqual([3, 0]);
  });

  it("gets a host of the default subset with DEFAULT_SUBSET", () => {
    const policy = { fallback_policy: "DEFAULT_SUBSET", default_subset: { version: "2" } };
    expect(start({ ...selectors, ...policy }).ask({ stage: "test" })).toBe("bc");
  });

  it("gets any host in panic when the default subset has none", () => {
    const policy = { fallback_policy: "DEFAULT_SUBSET", default_subset: { version: "9" } };
    const { ask } = start({ ...selectors, ...policy, panic_mode_any: true });
    expect(ask({ stage: "test" })).toBe("abcd");
    expect([stat("fallback"), stat("fallback_panic")]).toEqual([0, 1]);
    expect(start({ ...selectors, ...policy }).ask({ stage: "test" })).toBe("none");
  });

  it("does not fall back from a subset whose hosts are all unhealthy", () => {
    const hosts = [host("a", { stage: "prod" }, "unhealthy"), host("b", { stage: "dev" })];
    const { ask } = start({ ...selectors, fallback_policy: "ANY_ENDPOINT" }, hosts);
    expect(ask({ stage: "prod" })).toBe("none");
  });

  it("follows the fallback of the selector of its keys before that of the cluster", () => {
    const { ask } = start({
      fallback_policy: "ANY_ENDPOINT",
      default_subset: { version: "1" },
      subset_selectors: [
        selector(["stage"], { fallback_policy: "DEFAULT_SUBSET" }),
        selector(["version"], { fallback_policy: "NO_FALLBACK" }),
        selector(["stage", "version"], {
          fallback_policy: "KEYS_SUBSET",
          fallback_keys_subset: ["stage"],
        }),
      ],
    });
    expect(ask({ stage: "test" })).toBe("a");
    expect(ask({ version: "9" })).toBe("none");
    expect(ask({ stage: "prod", version: "9" })).toBe("ab");
    expect(ask({ other: "9" })).toBe("abcd");
    expect(stat("fallback")).toBe(1);
  });

  it("tries the entries of its fallback_list in turn", () => {
    const { ask } = start({ ...selectors, metadata_fallback_policy: "FALLBACK_LIST" });
    expect(ask({ fallback_list: [{ stage: "test" }, { stage: "dev" }], stage: "x" })).toBe("c");
    expect(ask({ fallback_list: [], stage: "prod" })).toBe("ab");
    expect(ask({ fallback_list: [{ stage: "test" }], stage: "prod" })).toBe("none");
  });
});

describe("a config", () => {
  it("is refused for a KEYS_SUBSET that would go round in circles", () => {
    const keys = (fallback_keys_subset: string[]) =>
      compose({
        subset_selectors: [
          selector(["a", "b"], { fallback_policy: "KEYS_SUBSET", fallback_keys_subset }),
        ],
      });
    expect(() => keys([])).toThrow("cannot be empty");
    expect(() => keys(["c"])).toThrow("subset of the selector's keys");
    expect(() => keys(["a", "b"])).toThrow("equal to the selector's keys");
    expect(() => keys(["a"])).not.toThrow();
  });
});
