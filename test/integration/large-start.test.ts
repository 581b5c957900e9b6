import { expect, test } from "vitest";
import { get } from "./client.ts";
import { bootstrap, cluster, direct, http, listener } from "./config.ts";
import { Proxy, StartFailure } from "./proxy.ts";

/** More than the threads set up at once: they leave clusters until their first use. */
const CLUSTERS = Array.from({ length: 1_000 }, (_, k) => cluster(`c${k}`, [1, 2, 3]));

const start = (clusters: readonly object[]) =>
  Proxy.start({
    config: bootstrap([listener("main", http([direct("/", "yes")]))], clusters as []),
  });

test("a start with a thousand clusters needs no process to try them in", async () => {
  // Where no start has been before, that process reads what packages say of themselves, and it is kept on disk.
  await (await start([])).stop();
  const proxy = await start(CLUSTERS);
  try {
    expect((await get(proxy.port("main"), "/")).text).toBe("yes");
    expect(proxy.processes("trial")).toEqual([]);
  } finally {
    await proxy.stop();
  }
});

test("what is wrong with one of a thousand clusters is found at the start", async () => {
  const wrong = { lb_policy: "CLUSTER_PROVIDED" };
  const failed = start([...CLUSTERS, cluster("wrong", [1], wrong)]);
  await expect(failed).rejects.toThrow(StartFailure);
  await expect(failed).rejects.toThrow(/clusters\[1000\]\.lb_policy: CLUSTER_PROVIDED is for/);
});
