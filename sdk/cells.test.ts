import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import {
  CellHeap,
  counter,
  firstTexts,
  held,
  type TokenBuckets,
  tokenBucket,
  tokenBuckets,
  ttlMap,
} from "./cells.ts";

let now = 1e9;
const heap = (bytes = 1 << 20) => new CellHeap(new ArrayBuffer(bytes), 0, () => now);
const open = <T>(spec: { bytes: number; open(memory: CellHeap, at: number): T }, of = heap()) =>
  spec.open(of, of.acquire("x", spec.bytes)!);

describe("the first texts", () => {
  it("are those that come first, whoever brings them, and no more", () => {
    const memory = heap();
    const at = memory.acquire("x", firstTexts(3).bytes)!;
    const [one, two] = [firstTexts(3).open(memory, at), firstTexts(3).open(memory, at)];
    expect(["a", "b"].map((text) => one.admits(text))).toEqual([true, true]);
    expect(["c", "d", "a"].map((text) => two.admits(text))).toEqual([true, false, true]);
    expect(["d", "c", "e", "b"].map((text) => one.admits(text))).toEqual([
      false,
      true,
      false,
      true,
    ]);
  });

  it("are exactly as many as there is room for, among many", () => {
    const texts = open(firstTexts(500));
    const admitted = Array.from({ length: 5000 }, (_, k) => texts.admits(`t${k}`));
    expect(admitted.filter(Boolean)).toHaveLength(500);
    expect(admitted.slice(0, 500).every(Boolean)).toBe(true);
  });
});

describe("a token bucket", () => {
  const rate = { maxTokens: 3, tokensPerFill: 3, fillIntervalMs: 600 };

  it("starts full and fills evenly", () => {
    const bucket = open(tokenBucket(rate));
    expect([bucket.remaining, bucket.waitMs]).toEqual([3, 0]);
    expect([bucket.take(), bucket.take(), bucket.take(), bucket.take()]).toEqual([
      true,
      true,
      true,
      false,
    ]);
    expect(Math.round(bucket.waitMs)).toBe(200);
    now += 199;
    expect(bucket.take()).toBe(false);
    now += 1;
    expect(bucket.take()).toBe(true);
    now += 60_000;
    expect(bucket.remaining).toBe(3);
  });

  it("gives just as many as it holds, whatever the rate comes to in milliseconds", () => {
    for (let maxTokens = 1; maxTokens < 400; maxTokens++) {
      const bucket = open(tokenBucket({ maxTokens, tokensPerFill: 7, fillIntervalMs: 333 }));
      let n = 0;
      while (bucket.take()) n++;
      expect(n).toBe(maxTokens);
    }
  });

  it("lets several tokens go at once or none", () => {
    const bucket = open(tokenBucket(rate));
    expect([bucket.take(2), bucket.take(2), bucket.take(1)]).toEqual([true, false, true]);
  });

  it("recovers when the clock is set back", () => {
    const bucket = open(tokenBucket(rate));
    while (bucket.take()) {}
    now -= 3_600_000;
    now += 200;
    expect(bucket.take()).toBe(false);
    expect(bucket.waitMs).toBeLessThan(601);
  });
});

describe("buckets by key", () => {
  const rate = { maxTokens: 2, tokensPerFill: 1, fillIntervalMs: 1000 };

  it("count each key by itself", () => {
    const buckets = open(tokenBuckets({ ...rate, maxKeys: 100 }));
    expect([buckets.take("a"), buckets.take("a"), buckets.take("a")]).toEqual([true, true, false]);
    expect(buckets.remaining("b")).toBe(2);
    expect(buckets.waitMs("a")).toBeGreaterThan(999);
  });

  it("holds as many keys as was said without forgetting one", () => {
    const buckets = open(tokenBuckets({ ...rate, maxKeys: 1000 }), heap(1 << 20));
    for (let k = 0; k < 1000; k++) for (let n = 0; n < 2; n++) buckets.take(`key ${k}`);
    let forgotten = 0;
    for (let k = 0; k < 1000; k++) if (buckets.take(`key ${k}`)) forgotten++;
    expect(forgotten).toBeLessThanOrEqual(5);
  });

  it("gives a bucket that is full again to another key, before any other", () => {
    const buckets = open(tokenBuckets({ ...rate, maxKeys: 1 }));
    for (let k = 0; k < 10_000; k++) {
      expect(buckets.take(`key ${k}`)).toBe(true);
      now += 2001;
    }
  });
});

describe("a map whose keys end", () => {
  it("counts in windows", () => {
    const map = open(ttlMap({ maxKeys: 10, ttlMs: 1000 }));
    expect(map.get("a")).toBeUndefined();
    expect([map.add("a", 1), map.add("a", 2)]).toEqual([1, 3]);
    now += 999;
    expect(map.get("a")).toBe(3);
    now += 1;
    expect(map.get("a")).toBeUndefined();
    expect(map.add("a", 5)).toBe(5);
    map.set("a", 9);
    expect(map.get("a")).toBe(9);
    map.delete("a");
    expect(map.get("a")).toBeUndefined();
  });
});

describe("a counter", () => {
  it("is not passed by those who acquire", () => {
    const c = open(counter());
    expect([c.acquire(2), c.acquire(2), c.acquire(2), c.value]).toEqual([true, true, false, 2]);
    c.release();
    expect([c.acquire(2), c.add(10)]).toEqual([true, 12]);
    c.set(0);
    expect(c.value).toBe(0);
  });
});

describe("the heap", () => {
  it("gives the same memory for the same name, and keeps it while anybody uses it", () => {
    const h = heap();
    const a = h.acquire("a", 64)!;
    h.words[a >> 2] = 7;
    expect(h.acquire("a", 64)).toBe(a);
    expect(h.acquire("b", 64)).not.toBe(a);
    h.release(a);
    h.release(a);
    expect(h.acquire("a", 64)).toBe(a);
    expect(h.words[a >> 2]).toBe(7);
  });

  it("gives a table of another size memory of its own, while the one before is at work in its", () => {
    const h = heap();
    const spec = (maxKeys: number) =>
      tokenBuckets({ maxKeys, maxTokens: 2, tokensPerFill: 2, fillIntervalMs: 3_600_000 });
    const before = open(spec(1500), h);
    const old = Array.from({ length: 1500 }, (_, k) => `old${k}`);
    for (const key of old) before.take(key, 2);
    const after = open(spec(100), h);
    // None of these is forgotten for the next one.
    const keys = Array.from({ length: 100 }, (_, k) => `new${k}`);
    for (const key of keys) after.take(key);
    expect(keys.filter((key) => after.remaining(key) !== 1)).toEqual([]);
    // So full a table forgets a few of its own.
    const known = (of: TokenBuckets) => old.filter((key) => of.remaining(key) === 0).length;
    expect([known(before), known(open(spec(1500), h))]).toEqual([
      expect.toSatisfy((n: number) => n > 1300),
      expect.toSatisfy((n: number) => n > 1300),
    ]);
  });

  it("uses memory again that nobody uses, cleared, and says when there is none", () => {
    const h = heap(1024);
    const names: number[] = [];
    for (let k = 0; ; k++) {
      const at = h.acquire(`n${k}`, 64);
      if (at === undefined) break;
      h.words[at >> 2] = 9;
      names.push(at);
    }
    expect(names.length).toBeGreaterThan(8);
    h.release(names[3]!);
    expect(h.acquire("other", 64)).toBe(names[3]);
    expect(h.words[names[3]! >> 2]).toBe(0);
    expect(h.acquire("more", 64)).toBeUndefined();
  });

  const of = (memory: ArrayBuffer, isolate: number) =>
    new CellHeap(memory, 0, undefined, { worker: 0, isolate });

  it("has room after 10,000 isolates that were lost, and takes nothing from those that live", () => {
    const memory = new ArrayBuffer(4096);
    const lives = of(memory, 1);
    const kept = lives.acquire("kept", 64)!;
    lives.words[kept >> 2] = 7;
    let given = 0;
    for (let isolate = 2; isolate < 10_002; isolate++) {
      const lost = of(memory, isolate);
      if (lost.acquire("kept", 64) === kept) given++;
      for (const name of ["a", "b", "a"])
        if (lost.acquire(`${name} of ${isolate}`, 900) !== undefined) given++;
      lives.forget(isolate);
    }
    expect(given).toBe(40_000);
    expect([lives.acquire("kept", 64), lives.words[kept >> 2]]).toEqual([kept, 7]);
  });

  it("has room after threads that were killed", () => {
    const memory = new ArrayBuffer(8192);
    let given = 0;
    for (let thread = 1; thread <= 1000; thread++) {
      for (const nth of [1, 2, 0xffff])
        if (of(memory, (thread << 16) | nth).acquire(`of ${thread}`, 5000) !== undefined) given++;
      of(memory, 1).forget(thread << 16, -0x1_0000);
    }
    expect(given).toBe(3000);
  });

  it.each([0, 3, 4, 1 << 20, -1])("is given back to in bounded time with %i in all words", (n) => {
    const hostile = heap();
    hostile.acquire("a", 64);
    hostile.words.fill(n);
    const began = performance.now();
    hostile.forget(n);
    expect(performance.now() - began).toBeLessThan(1000);
  });

  it("is given back to in bounded time where entries follow each other in circles", () => {
    const hostile = heap();
    // Blocks without content, all of which name one entry, which follows itself.
    for (let w = 8; w < hostile.words.length - 4; w += 4) hostile.words.set([4, 1000, 0, 0], w);
    hostile.words.set([0, hostile.words.length], 0);
    hostile.words.set([5, 1, 1000], 1000);
    const began = performance.now();
    hostile.forget(6);
    expect(performance.now() - began).toBeLessThan(1000);
  });
});

it("four threads get together just as many as one would", async () => {
  const memory = new SharedArrayBuffer(1 << 20);
  const code = `
    import { workerData, parentPort } from "node:worker_threads";
    const { CellHeap, tokenBucket, tokenBuckets, ttlMap, counter } = await import(workerData.url);
    const heap = new CellHeap(workerData.memory);
    const cell = (name, spec) => spec.open(heap, heap.acquire(name, spec.bytes));
    const rate = { maxTokens: 50_000, tokensPerFill: 1, fillIntervalMs: 3_600_000 };
    const bucket = cell("bucket", tokenBucket(rate));
    const buckets = cell("buckets", tokenBuckets({ ...rate, maxTokens: 100, maxKeys: 500 }));
    const map = cell("map", ttlMap({ maxKeys: 50, ttlMs: 3_600_000 }));
    const active = cell("active", counter());
    let one = 0, keyed = 0, held = 0;
    for (let k = 0; k < 40_000; k++) {
      if (bucket.take()) one++;
      if (buckets.take("key " + (k % 200))) keyed++;
      map.add("key " + (k % 20), 1);
      if (active.acquire(1000)) held++;
    }
    parentPort.postMessage([one, keyed, held, map.get("key 3")]);
  `;
  const url = new URL("./cells.ts", import.meta.url).href;
  const runs = Array.from(
    { length: 4 },
    () =>
      new Promise<number[]>((resolve, reject) => {
        const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), {
          workerData: { memory, url },
        });
        worker.on("message", resolve);
        worker.on("error", reject);
      }),
  );
  const results = await Promise.all(runs);
  const sum = (k: number) => results.reduce((n, r) => n + r[k]!, 0);
  expect(sum(0)).toBe(50_000);
  expect(sum(1)).toBe(20_000);
  expect(sum(2)).toBe(1000);
  expect(Math.max(...results.map((r) => r[3]!))).toBe(8000);
});

describe("what is held", () => {
  it("is limited over all workers, and given back by the isolate that takes a dead one's place", () => {
    const memory = new ArrayBuffer(1 << 16);
    const open = (worker: number, isolate: number) => {
      const heap = new CellHeap(memory, 0, undefined, { worker, isolate });
      const spec = held();
      return spec.open(heap, heap.acquire("open", spec.bytes)!);
    };
    const [a, b] = [open(0, 11), open(1, 12)];
    for (const one of [a, a, b]) expect(one.acquire(4)).toBe(true);
    // A reload within the isolate: what is held goes on being held.
    const again = open(0, 11);
    expect([again.value, again.acquire(4), b.acquire(4)]).toEqual([3, true, false]);
    a.release();
    const reborn = open(0, 13);
    expect(reborn.value).toBe(1);
    b.release();
    expect(reborn.value).toBe(0);
  });
});
