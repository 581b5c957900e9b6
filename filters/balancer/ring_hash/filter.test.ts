import { type Balancer, type DownstreamConnection, type Host, xxHash64 } from "@tsproxy/sdk";
import { balancerFor, TestContext, TestHost, TestStream } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import ringHash from "./filter.ts";
import { murmurHash2 } from "./murmur-hash2.ts";

const DEFAULTS = {
  hash_function: "XX_HASH",
  minimum_ring_size: 1024,
  maximum_ring_size: 8 * 1024 * 1024,
};

/** 127.1.0.1:18473 to 127.1.0.5:18473, named host-1.test and so on. */
function fiveHosts(weights: readonly number[] = [1, 1, 1, 1, 1]): TestHost[] {
  return weights.map((weight, k) => {
    const host = new TestHost({ ip: `127.1.0.${k + 1}`, port: 18473 });
    host.hostname = `host-${k + 1}.test`;
    host.weight = weight;
    return host;
  });
}

function ring(config: object, hosts: readonly Host[], shares?: readonly number[]) {
  const cx = new TestContext();
  cx.role = "control";
  const policy = cx.setup(ringHash, { ...DEFAULTS, stat_prefix: "cluster.c.", ...config });
  const balancer = balancerFor(policy, hosts, shares === undefined ? {} : { shares });
  return { balancer, stat: (name: string) => cx.stats.value(`cluster.c.ring_hash_lb.${name}`) };
}

/** The number of the host that each of `key-0` to `key-99` goes to. */
function owners(balancer: Balancer): string {
  let text = "";
  for (let k = 0; k < 100; k++)
    text += balancer.choose({ hash: xxHash64(`key-${k}`) })!.address.ip.at(-1);
  return text;
}

// Each row was answered by Envoy 1.40.
describe("the ring gives each key the host that Envoy's gives it", () => {
  it("with xxHash64", () => {
    const { balancer, stat } = ring({}, fiveHosts());
    expect(owners(balancer)).toBe(
      "2215311325343514253552421235122522133345531153542331322212135431245542243352415215544453551234553145",
    );
    expect([stat("size"), stat("min_hashes_per_host"), stat("max_hashes_per_host")]).toEqual([
      1025, 205, 205,
    ]);
  });

  it("with weights", () => {
    const options = { minimum_ring_size: 200, maximum_ring_size: 1000 };
    const { balancer, stat } = ring(options, fiveHosts([1, 2, 3, 1, 5]));
    expect(owners(balancer)).toBe(
      "2555551545555254525555322235522552353555233323251133533123124431355553234553542345122533455243235455",
    );
    expect([stat("size"), stat("min_hashes_per_host"), stat("max_hashes_per_host")]).toEqual([
      204, 17, 85,
    ]);
  });

  it("with a point for each host", () => {
    const { balancer } = ring({ minimum_ring_size: 1, maximum_ring_size: 7 }, fiveHosts());
    expect(owners(balancer)).toBe(
      "5314442135215512214545335312155353535422154352554312415541255555152532534155225125233355324325123255",
    );
  });

  it("with MurmurHash2", () => {
    const { balancer } = ring({ hash_function: "MURMUR_HASH_2" }, fiveHosts());
    expect(owners(balancer)).toBe(
      "5513535514111144511225311155342443245422454415142511434423322534431433315134121125143345315544115215",
    );
  });

  it("by host names", () => {
    const consistent_hashing_lb_config = { use_hostname_for_hashing: true };
    expect(owners(ring({ consistent_hashing_lb_config }, fiveHosts()).balancer)).toBe(
      "5323513154515112425312244142124433121512442324242245555225445133332542135425512133231435435451242143",
    );
  });

  it("with the weights of localities in the shares", () => {
    const shares = [0.125, 0.125, 0.25, 0.25, 0.25];
    expect(owners(ring({}, fiveHosts(), shares).balancer)).toBe(
      "5515311345445514453555422235123532133345531353541331322112135531245542243442515215544453551234553145",
    );
  });
});

describe("ring hash", () => {
  it("takes the next point for each attempt that was turned down", () => {
    const { balancer } = ring({}, fiveHosts());
    const hash = xxHash64("key");
    const tried = new Set(Array.from({ length: 40 }, (_, k) => balancer.choose({ hash }, k)!.key));
    expect(tried.size).toBe(5);
  });

  it("sends a request without a hash anywhere", () => {
    const { balancer } = ring({}, fiveHosts());
    const seen = new Set(Array.from({ length: 200 }, () => balancer.choose({})!.key));
    expect(seen.size).toBe(5);
  });

  it("knows a host by the hash_key of its metadata", () => {
    const hosts = fiveHosts();
    const named = fiveHosts().map((host, k) => {
      host.metadata = { filter_metadata: { "envoy.lb": { hash_key: hosts[4 - k]!.key } } };
      return host;
    });
    const mirrored = owners(ring({}, hosts).balancer).replace(/\d/g, (n) => String(6 - Number(n)));
    expect(owners(ring({}, named).balancer)).toBe(mirrored);
  });

  it("keeps a host to its share of all requests times the balance factor", () => {
    const hosts = fiveHosts();
    const { balancer } = ring({ hash_balance_factor: 120 }, hosts);
    const hash = xxHash64("the same for all");
    for (let k = 0; k < 100; k++) balancer.choose({ hash })!.activeRequests++;
    const loads = hosts.map((host) => host.activeRequests);
    expect(Math.max(...loads)).toBeLessThanOrEqual(26);
    expect(loads.reduce((a, b) => a + b)).toBe(100);
  });

  it("hashes by policies of its own, where it has some", () => {
    const hash_policy = [
      { header: { header_name: "x-k" }, terminal: true },
      { cookie: { name: "c", ttl: 0, path: "", attributes: [] }, terminal: true },
      { connection_properties: { source_ip: true }, terminal: false },
    ];
    const consistent_hashing_lb_config = { hash_policy };
    const policy = new TestContext().setup(ringHash, { ...DEFAULTS, consistent_hashing_lb_config });
    if (!("create" in policy)) throw new Error("a policy of levels");
    expect(policy.byStream).toBe(true);
    const given: string[] = [];
    const hashed = (headers: Record<string, string> = {}) => {
      const stream = new TestStream(new TestContext(), () => ({}));
      stream.requestHeaders("GET", "/", headers);
      return policy.hash!({ stream, giveCookie: (line) => void given.push(line) });
    };
    expect(hashed({ "x-k": "abc" })).toBe(xxHash64("abc"));
    expect(hashed({ cookie: "c=abc" })).toBe(xxHash64("abc"));
    expect(given).toEqual([]);
    const made = hashed();
    expect(given).toHaveLength(1);
    expect(made).toBe(xxHash64(/^c="([0-9a-f]{16})"; HttpOnly$/.exec(given[0]!)![1]!));
    const remoteAddress = { ip: "192.0.2.7", port: 1 };
    const downstream = { remoteAddress } as DownstreamConnection;
    expect(policy.hash!({ downstream })).toBe(xxHash64("192.0.2.7"));
    expect(policy.hash!({})).toBeUndefined();
    expect(new TestContext().setup(ringHash, DEFAULTS)).not.toHaveProperty("hash");
  });

  it("has no host among none, and refuses sizes the wrong way round", () => {
    expect(ring({}, []).balancer.choose({ hash: 1n })).toBeUndefined();
    expect(() => ring({ minimum_ring_size: 9, maximum_ring_size: 8 }, [])).toThrow(
      "minimum_ring_size (9) > maximum_ring_size (8)",
    );
  });
});

describe("MurmurHash2", () => {
  // std::hash<std::string> of libstdc++.
  it("is the one of libstdc++", () => {
    expect(murmurHash2("")).toBe(6142509188972423790n);
    expect(murmurHash2("a")).toBe(4993892634952068459n);
  });
});
