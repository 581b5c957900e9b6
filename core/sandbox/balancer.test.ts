import type { Balancer, BalancerContext, Host } from "@tsproxy/sdk";
import { balancerFor, TestHost } from "@tsproxy/sdk/testing";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ParkedPolicy } from "../inside/parked-balancer.ts";
import { FakeWorker } from "./fake-worker.ts";
import type { Sandbox } from "./sandbox.ts";

let worker: FakeWorker;
let inTurn = 0;
beforeEach(() => {
  worker = new FakeWorker();
  inTurn = 0;
});
afterEach(() => worker.dispose());

const filter = (choose: string, before = "", more = ""): string => `
  import { defineBalancer, Type } from "@tsproxy/sdk";
  export default defineBalancer({ name: "test", config: Type.Any(), setup(config, cx) { ${before};
    return { ${more} create: ({ hosts, shares, key }) => ({ choose(context, attempt) { ${choose} } }) }; } });`;

function policyOf(sandbox: Sandbox, failsOpen = false): ParkedPolicy {
  const box = worker.boxes.indexOf(sandbox);
  const turns = { inc: () => void inTurn++ };
  return new ParkedPolicy({ box, use: 1, hooks: sandbox.hooks, failsOpen }, worker.table, turns);
}

function hostsOf(n: number): TestHost[] {
  return Array.from({ length: n }, (_, k) => new TestHost({ ip: "192.0.2.1", port: k + 1 }));
}

/** Ports of the hosts that so many choices come to; 0: none. */
function picks(balancer: Balancer, n: number, context: BalancerContext = {}): number[] {
  return Array.from({ length: n }, () => balancer.choose(context)?.address.port ?? 0);
}

async function balancer(
  code: string,
  hosts: readonly Host[],
  failsOpen = false,
): Promise<Balancer> {
  return balancerFor(policyOf(await worker.sandbox(code), failsOpen), hosts);
}

/** Core looks after each crossing. */
function until(condition: () => boolean): Promise<void> {
  return worker.until(() => {
    worker.flush();
    return condition();
  });
}

describe("a balancer in a sandbox", () => {
  it("answers at once, and is told how many requests are under way", async () => {
    const hosts = hostsOf(3);
    const made = await balancer(
      filter("return hosts.find((host) => host.activeRequests < 2) ?? hosts[0];"),
      hosts,
    );
    const chosen = Array.from({ length: 7 }, () => {
      const host = made.choose({}) as TestHost;
      host.activeRequests++;
      return host.address.port;
    });
    expect(chosen).toEqual([1, 1, 2, 2, 3, 3, 1]);
    expect(inTurn).toBe(0);
  });

  it("sees the hash, the attempt, the priority and what metadata is asked for", async () => {
    const made = await balancer(
      filter(`const { hash, priority, metadataMatch } = context;
        cx.log.info("asked", { hash: String(hash), attempt, priority, value: metadataMatch?.[0].value });
        return hosts[Number(hash % 3n)];`),
      hostsOf(3),
    );
    const metadataMatch = [{ key: "stage", value: "prod ü" }];
    const hash = 0xffff_ffff_ffff_ffffn;
    expect(made.choose({ hash, priority: "high", metadataMatch }, 2)?.address.port).toBe(
      Number(hash % 3n) + 1,
    );
    await until(() => worker.logged.length === 1);
    expect(worker.logged[0]?.fields).toEqual({
      hash: "18446744073709551615",
      attempt: 2,
      priority: "high",
      value: "prod ü",
    });
  });

  it("sees hosts as they are, however many there are", async () => {
    const hosts = hostsOf(3000);
    Object.assign(hosts[2999]!, {
      weight: 7,
      hostname: "last.test",
      metadata: { filter_metadata: { "envoy.lb": { stage: "ü" } } },
    });
    const made = await balancer(
      filter(`return hosts.length === 3000 && shares.length === 3000 && key === "0|healthy" &&
        hosts.findLast(({ weight, hostname, metadata, healthy }) => healthy && weight === 7 &&
          hostname === "last.test" && metadata.filter_metadata["envoy.lb"].stage === "ü");`),
      hosts,
    );
    expect(made.choose({})).toBe(hosts[2999]);
  });

  it("chooses again in the same crossing, whatever it has logged", async () => {
    const made = await balancer(
      filter(
        `cx.log.info("choice"); cx.stats.counter("choices." + n).inc(); return hosts[n++ % 2];`,
        "let n = 0",
      ),
      hostsOf(2),
    );
    expect(picks(made, 6)).toEqual([1, 2, 1, 2, 1, 2]);
    await until(() => worker.logged.length === 6);
    expect(inTurn).toBe(0);
  });

  it("has no host where it answers something else", async () => {
    const code = `return [undefined, null, 7, {}, { index: 0 }, Promise.resolve(hosts[0]), Object.create(hosts[0])][n++];`;
    const made = await balancer(filter(code, "let n = 0"), hostsOf(2));
    expect(picks(made, 7)).toEqual([0, 0, 0, 0, 0, 0, 0]);
  });

  it("gives no host where it throws, or leaves it to turns, as its failure policy says", async () => {
    const hosts = hostsOf(2);
    expect(picks(await balancer(filter('throw new Error("no");'), hosts), 3)).toEqual([0, 0, 0]);
    expect(picks(await balancer(filter('throw new Error("no");'), hosts, true), 3)).toEqual([
      1, 2, 1,
    ]);
    expect(worker.faults).toEqual([]);
  });

  it("is stopped when it never ends, and serves again when it has been built anew", async () => {
    const code = filter("if (attempt === 9) for (;;) {} return hosts[1];");
    const sandbox = await worker.sandbox(code, [{}], { limits: { timeoutMs: 100 } });
    const made = balancerFor(policyOf(sandbox), hostsOf(2));
    expect(picks(made, 1)).toEqual([2]);
    expect(made.choose({}, 9)).toBeUndefined();
    await until(() => worker.faults.length === 1 && sandbox.ready);
    // It runs aside for a while, so hosts take turns.
    expect(picks(made, 3)).toEqual([1, 2, 1]);
    sandbox.expire(performance.now() + 11_000);
    expect(picks(made, 2)).toEqual([2, 2]);
  });

  it("leaves it to turns while its isolate runs on another thread", async () => {
    const sandbox = await worker.sandbox(filter("return hosts[1];"));
    const made = balancerFor(policyOf(sandbox), hostsOf(2));
    const told = sandbox.setRuntime("[]");
    const meanwhile = picks(made, 2);
    await told;
    expect([meanwhile, inTurn]).toEqual([[1, 2], 2]);
    await until(() => {
      const before = inTurn;
      picks(made, 1);
      return inTurn === before;
    });
    expect(picks(made, 2)).toEqual([2, 2]);
  });

  it("tells what it says of localities and hashing once it is set up", async () => {
    const told: [number, string][] = [];
    const more = `hashing: true, localities: { type: "weighted" },`;
    const sandbox = await worker.sandbox(filter("", "", more), [{}], {
      onPolicy: (use, text) => told.push([use, text]),
    });
    const policy = policyOf(sandbox);
    let known = 0;
    policy.onKnown(() => known++);
    expect([policy.hashing, policy.localities]).toEqual([false, undefined]);
    for (const [, text] of told) policy.learn(text);
    expect([policy.hashing, policy.localities, known]).toEqual([true, { type: "weighted" }, 1]);
    policy.learn('{"localities":{"type":"zone_aware"}}');
    expect(policy.localities).toBeUndefined();
  });

  it("ends its balancers with their sets", async () => {
    const code = `import { defineBalancer, Type } from "@tsproxy/sdk";
      export default defineBalancer({ name: "test", config: Type.Any(), setup: (config, cx) => ({
        create: ({ hosts }) => ({ choose: () => hosts[0], dispose: () => cx.log.info("disposed") }) }) });`;
    const made = await balancer(code, hostsOf(1));
    expect(picks(made, 1)).toEqual([1]);
    made.dispose?.();
    await until(() => worker.logged.length === 1);
    expect(worker.logged[0]?.message).toBe("disposed");
  });

  it("is refused where it would ask other policies", async () => {
    const code = `import { defineBalancer, Type } from "@tsproxy/sdk";
      export default defineBalancer({ name: "test", config: Type.Any(), setup: () => ({ compose: () => ({ choose() {} }) }) });`;
    await expect(worker.sandbox(code)).rejects.toThrow(
      /asks other policies, which do not live in a sandbox/,
    );
  });
});
