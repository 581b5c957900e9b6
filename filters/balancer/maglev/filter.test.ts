import { type Balancer, type Host, xxHash64 } from "@tsproxy/sdk";
import { balancerFor, TestContext, TestHost } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import maglev from "./filter.ts";

function fiveHosts(weights: readonly number[] = [1, 1, 1, 1, 1]): TestHost[] {
  return weights.map((weight, k) => {
    const host = new TestHost({ ip: `127.1.0.${k + 1}`, port: 18473 });
    host.weight = weight;
    return host;
  });
}

function table(config: object, hosts: readonly Host[]) {
  const cx = new TestContext();
  cx.role = "control";
  const policy = cx.setup(maglev, { table_size: 65_537, stat_prefix: "cluster.c.", ...config });
  return {
    balancer: balancerFor(policy, hosts),
    stat: (name: string) => cx.stats.value(`cluster.c.maglev_lb.${name}_entries_per_host`),
  };
}

/** The number of the host that each of `key-0` to `key-99` goes to. */
function owners(balancer: Balancer): string {
  let text = "";
  for (let k = 0; k < 100; k++)
    text += balancer.choose({ hash: xxHash64(`key-${k}`) })!.address.ip.at(-1);
  return text;
}

// Each row was answered by Envoy 1.40.
describe("the table gives each key the host that Envoy's gives it", () => {
  it("with equal weights", () => {
    const { balancer, stat } = table({}, fiveHosts());
    expect(owners(balancer)).toBe(
      "2412144315131122531435213115211231211115515454155425352432555141322155334542241353154214131323234354",
    );
    expect([stat("min"), stat("max")]).toEqual([13_107, 13_108]);
  });

  it("with weights and another size", () => {
    const { balancer, stat } = table({ table_size: 1009 }, fiveHosts([1, 2, 3, 1, 5]));
    expect(owners(balancer)).toBe(
      "5552513425252325225323452155255545531353212355353532325235124521315555533353552354535333134522313331",
    );
    expect([stat("min"), stat("max")]).toEqual([84, 420]);
  });

  it("by the hash_key of metadata", () => {
    const hosts = fiveHosts();
    for (const [k, host] of hosts.entries())
      host.metadata = { filter_metadata: { "envoy.lb": { hash_key: `key-${k + 1}` } } };
    expect(owners(table({}, hosts).balancer)).toBe(
      "3123454221542224125214334313525241111112552312225222412342212452522141134435112111413455511351253434",
    );
  });
});

describe("maglev", () => {
  it("has one place for a host that is alone, as Envoy tells it", () => {
    const { balancer, stat } = table({}, fiveHosts().slice(0, 1));
    expect(new Set(owners(balancer)).size).toBe(1);
    expect([stat("min"), stat("max")]).toEqual([1, 1]);
  });

  it("moves few keys when a host goes", () => {
    const hosts = fiveHosts();
    const before = owners(table({}, hosts).balancer);
    const after = owners(table({}, hosts.slice(0, 4)).balancer);
    let moved = 0;
    for (let k = 0; k < 100; k++) if (before[k] !== "5" && before[k] !== after[k]) moved++;
    expect(moved).toBeLessThan(15);
  });

  it("turns to another host when one was turned down", () => {
    const { balancer } = table({}, fiveHosts());
    const hash = xxHash64("key");
    const tried = new Set(Array.from({ length: 40 }, (_, k) => balancer.choose({ hash }, k)!.key));
    expect(tried.size).toBeGreaterThan(1);
  });

  it("has no host among none, and refuses a size that is not prime", () => {
    expect(table({}, []).balancer.choose({ hash: 1n })).toBeUndefined();
    expect(() => table({ table_size: 65_536 }, [])).toThrow("must be prime number");
  });
});
