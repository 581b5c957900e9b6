import http from "node:http";
import { expect, it } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, direct, http as httpFilter, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

const WORKERS = 4;
const RELOADS = 20;
const LIMIT = 1500;
/** Longer than the test: all of it lies in one window. */
const WINDOW_MS = 600_000;

/** Takes one of LIMIT a request: of a bucket, of a bucket by key, or of a counted window. */
const source = (version: number): string => `
import { defineHttpFilter, reply, tokenBucket, tokenBuckets, ttlMap, Type } from "@tsproxy/sdk";
const VERSION = "${version}";
const RATE = { maxTokens: ${LIMIT}, tokensPerFill: 1, fillIntervalMs: ${WINDOW_MS} };
export default defineHttpFilter({
  name: "limit", config: Type.Object({}),
  shared: {
    one: tokenBucket(RATE), keyed: tokenBuckets({ ...RATE, maxKeys: 64 }), window: ttlMap({ maxKeys: 64, ttlMs: ${WINDOW_MS} }),
  },
  setup: (config, cx) => () => ({
    onRequestHeaders(headers) {
      const { one, keyed, window } = cx.shared;
      const passes = headers.path === "/one" ? one.take() : headers.path === "/keyed" ? keyed.take("client") : window.add("client", 1) <= ${LIMIT};
      if (!passes) return reply(429, { headers: [["x-version", VERSION], ["x-worker", String(cx.worker)]] });
      return reply(200, { headers: [["x-version", VERSION], ["x-worker", String(cx.worker)]] });
    },
  }),
});
`;

it("admits exactly its number over four workers and twenty reloads in one window", async () => {
  const proxy = await Proxy.start({
    config: bootstrap(
      [listener("main", httpFilter([direct("/", "")], {}, [{ name: "limit", config: {} }]))],
      [],
    ),
    files: { "filters/limit.ts": source(0) },
    concurrency: WORKERS,
  });
  const port = proxy.port("main");
  const admitted = new Map<string, number>();
  const refused = new Map<string, number>();
  const versions = new Set<unknown>();
  const workers = new Set<unknown>();
  const failures: number[] = [];
  let on = true;
  const client = async (path: string): Promise<void> => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let k = 0; on; k++) {
      // Now and then a new connection: the kernel may give all first ones to a few workers.
      const { status, headers } = await get(port, path, k % 10 === 0 ? {} : { agent });
      versions.add(headers["x-version"]);
      workers.add(headers["x-worker"]);
      if (status === 200) admitted.set(path, (admitted.get(path) ?? 0) + 1);
      else if (status === 429) refused.set(path, (refused.get(path) ?? 0) + 1);
      else failures.push(status);
    }
    agent.destroy();
  };
  const paths = ["/one", "/keyed", "/window"];
  try {
    const clients = paths.flatMap((path) => Array.from({ length: 6 }, () => client(path)));
    for (let k = 1; k <= RELOADS; k++) {
      proxy.write("filters/limit.ts", source(k));
      await eventually(
        () => versions.has(String(k)),
        (seen) => seen,
        `version ${k} serves`,
      );
    }
    const isFull = () => paths.every((path) => (admitted.get(path) ?? 0) >= LIMIT);
    await eventually(isFull, (full) => full, "the limit is reached");
    // Requests enough to admit one too many.
    refused.clear();
    const isOver = () => paths.every((path) => (refused.get(path) ?? 0) >= 100);
    await eventually(isOver, (over) => over, "all others are refused");
    on = false;
    await Promise.all(clients);
  } finally {
    on = false;
    await proxy.stop();
  }
  expect(Object.fromEntries(admitted)).toEqual({
    "/one": LIMIT,
    "/keyed": LIMIT,
    "/window": LIMIT,
  });
  expect([failures, workers.size]).toEqual([[], WORKERS]);
});

const STOPPED_LIMIT = 600;
/** As above; at `/spin` it counts something else in the same cell for ever, so that it is stopped in the midst of an update. */
const STOPPED = `
import { defineHttpFilter, reply, ttlMap, Type } from "@tsproxy/sdk";
export default defineHttpFilter({
  name: "limit", config: Type.Object({}),
  shared: { window: ttlMap({ maxKeys: 64, ttlMs: ${WINDOW_MS} }) },
  setup: (config, cx) => () => ({
    onRequestHeaders(headers) {
      const { window } = cx.shared;
      if (headers.path === "/spin") for (;;) window.add("other", 1);
      return reply(window.add("client", 1) <= ${STOPPED_LIMIT} ? 200 : 429);
    },
  }),
});
`;

it("admits exactly its number while isolates are stopped in the midst of updates, and again once the process was killed", async () => {
  const filters = [{ name: "limit", config: {} }];
  const chain = (name: string) => listener(name, httpFilter([direct("/", "")], {}, filters));
  const proxy = await Proxy.start({
    config: bootstrap([chain("main"), chain("bad")], []),
    files: { "filters/limit.ts": STOPPED },
    concurrency: WORKERS,
  });
  /** Clients, until the limit is reached and they have been refused as often as that would let one too many pass. */
  const admitted = async (): Promise<[admitted: number, others: number[]]> => {
    let [passed, refused] = [0, 0];
    const others: number[] = [];
    const client = async (): Promise<void> => {
      while (refused < 100) {
        const { status } = await get(proxy.port("main"), "/");
        if (status === 200) passed++;
        else if (status === 429) refused++;
        else others.push(status);
      }
    };
    let isOver = false;
    const spins = async (): Promise<void> => {
      while (!isOver) await get(proxy.port("bad"), "/spin");
    };
    const spinning = [spins(), spins()];
    await Promise.all(Array.from({ length: 8 }, client));
    isOver = true;
    await Promise.all(spinning);
    return [passed, others];
  };
  try {
    expect(await admitted()).toEqual([STOPPED_LIMIT, []]);
    expect(proxy.lines.filter(({ msg }) => /^fault: http\/limit/.test(msg)).length).toBeGreaterThan(
      1,
    );
    const [serving] = proxy.processes();
    const inMidRequest = Array.from({ length: 8 }, () =>
      get(proxy.port("main"), "/").catch(() => undefined),
    );
    process.kill(serving!, "SIGKILL");
    await Promise.all(inMidRequest);
    await proxy.line(/was ended by SIGKILL/);
    const isUp = () => proxy.lines.filter(({ msg }) => /^listening on/.test(msg)).length > 1;
    await eventually(isUp, (up) => up, "another process serves");
    // What was counted has gone with the process.
    expect(await admitted()).toEqual([STOPPED_LIMIT, []]);
  } finally {
    await proxy.stop();
  }
});
