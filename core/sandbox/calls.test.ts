import { createHash, createHmac, generateKeyPairSync, sign } from "node:crypto";
import { HeaderMap, latin1Encode } from "@tsproxy/sdk";
import { TestCluster, TestContext } from "@tsproxy/sdk/testing";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { namedClusters, SandboxFetches } from "../inside/fetches.ts";
import { Exchange, FakeWorker, stubs } from "./fake-worker.ts";

/** A package whose onRequestHeaders runs `body` and shows what that returns, or what it throws. */
const asking = (body: string): string => `
  import { defineHttpFilter, grpcCall, grpcStream, Type, utf8Encode, utf8Decode } from "@tsproxy/sdk";
  const latin = (text) => Uint8Array.from(text, (c) => c.charCodeAt(0));
  const hex = (buffer) => [...new Uint8Array(buffer)].map((b) => b.toString(16).padStart(2, "0")).join("");
  export default defineHttpFilter({ name: "test", config: Type.Object({}), setup(config, cx) {
    return (stream) => ({ async onRequestHeaders(h) {
      let seen;
      try { seen = await (async () => { ${body} })(); } catch (e) { seen = [e.name, e.reason, e.message]; }
      h.set("x-saw", JSON.stringify(seen ?? null));
    } });
  } });`;

let worker: FakeWorker;
let cx: TestContext;
let up: TestCluster;
beforeEach(() => {
  worker = new FakeWorker();
  cx = new TestContext();
  up = new TestCluster("up", cx.stats);
  cx.clusterMap.set("up", up);
});
afterEach(() => worker.dispose());

/** Begins a request that runs `body` in a sandbox; fetches go to `up`. */
async function begin(body: string): Promise<Exchange> {
  let fetches: SandboxFetches | undefined;
  const sandbox = await worker.sandbox(asking(body), [{}], {
    // Thousands of calls in one entry, on a machine that has other things to do.
    limits: { cpuMs: 60_000, timeoutMs: 60_000 },
    onFetch(text, bytes) {
      if (text === "") return fetches?.cancel();
      fetches ??= new SandboxFetches(cx, (head, data) =>
        setImmediate(() => sandbox.reply(head, Buffer.from(data, "latin1"))),
      );
      fetches.onMessage(text, new Uint8Array(bytes));
    },
  });
  const e = new Exchange(worker, [stubs(worker, sandbox)], "GET / HTTP/1.1\r\nhost: x\r\n");
  return e.requestHeaders();
}
async function saw(e: Exchange): Promise<unknown> {
  await worker.until(() => e.request.has("x-saw"));
  return JSON.parse(latin1ToUtf8(e.request.get("x-saw")!));
}
const latin1ToUtf8 = (text: string): string => Buffer.from(text, "latin1").toString("utf8");

describe("fetch out of a sandbox", () => {
  it("asks the cluster and answers what comes, whatever its status", async () => {
    const e = await begin(
      `const r = await cx.fetch("up:/x", { method: "POST", body: "hé", headers: { "x-a": "1" } });
       return [r.status, r.ok, r.headers.get("x-b"), (await r.json()).n];`,
    );
    await worker.until(() => up.exchanges.length > 0);
    const { last } = up;
    expect([last.method, last.path, last.body, last.ended]).toEqual([
      "POST",
      "/x",
      "h\u00c3\u00a9",
      true,
    ]);
    expect(last.headers).toContainEqual(["content-length", "3"]);
    last.respond(404, { "x-b": "2" }, '{"n":1}');
    expect(await saw(e)).toEqual([404, false, "2", 1]);
    expect(cx.clock.armed).toBe(0);
  });

  it("rejects with the reason that there is no answer", async () => {
    expect(await saw(await begin(`await cx.fetch("nowhere:/");`))).toEqual([
      "FetchError",
      "no_cluster",
      'no cluster "nowhere" in the config; write one of that name under static_resources.clusters',
    ]);
  });

  it("says so where the manifest does not name the cluster", () => {
    const clusters = namedClusters({ get: () => undefined }, (name) => name === "auth");
    expect(clusters.get("auth")).toBeUndefined();
    expect(() => clusters.get("up")).toThrow('the manifest names no cluster "up"; add it to "clus');
  });

  it("sends a body of 200 kB in parts and reads one as long", async () => {
    const e = await begin(
      `const r = await cx.fetch("up:/", { method: "POST", body: new Uint8Array(200_000).fill(255) });
       const bytes = await r.bytes();
       return [bytes.length, bytes.every((b) => b === 254)];`,
    );
    await worker.until(() => up.exchanges.length > 0 && up.last.ended);
    expect([up.last.body.length, up.last.body[199_999]]).toEqual([200_000, "\u00ff"]);
    up.last.respond(200, {}, "\u00fe".repeat(200_000));
    expect(await saw(e)).toEqual([200_000, true]);
  });

  it("brings trailers, no more of them than of a head", async () => {
    up.answering = ({ path }) => ({
      body: "some",
      trailers: path === "/" ? { "x-sum": "7" } : { "x-long": "x".repeat(100_000) },
    });
    const e = await begin(
      `const r = await cx.fetch("up:/");
       const [before, text, after] = [r.trailers, await r.text(), [...r.trailers]];
       const second = await cx.fetch("up:/2");
       return [before, text, after, await second.text().catch((error) => error.message)];`,
    );
    expect(await saw(e)).toEqual([
      null,
      "some",
      [["x-sum", "7"]],
      "the response's trailers are too large for a sandbox",
    ]);
  });

  it("lets the upstream wait for whoever reads slowly", async () => {
    const e = await begin(
      `const r = await cx.fetch("up:/");
       await cx.fetch("up:/gate");
       let n = 0; for await (const part of r.body) n += part.length;
       return n;`,
    );
    await worker.until(() => up.exchanges.length === 1);
    const [first] = up.exchanges;
    first!.respond(200, {});
    for (let k = 0; k < 20; k++) first!.send("x".repeat(16_384), false);
    await worker.until(() => up.exchanges.length === 2);
    expect(first!.paused).toBe(true);
    up.last.respond(200, {}, "");
    await worker.until(() => !first!.paused);
    first!.send("", true);
    expect(await saw(e)).toBe(20 * 16_384);
  });

  it("takes the request's body as it comes, no faster than the upstream does", async () => {
    const e = await begin(
      `let made = 0;
       async function* body() { for (let k = 0; k < 50; k++) { made++; yield "0123456789"; } }
       const asked = cx.fetch("up:/", { method: "POST", body: body() });
       const gate = await cx.fetch("up:/gate"); const ahead = made;
       const r = await asked;
       return [r.status, ahead < 20, made];`,
    );
    await worker.until(() => up.exchanges.length > 0);
    const sending = up.exchanges[0]!;
    sending.block(true);
    await worker.until(() => up.exchanges.length === 2);
    for (let k = 0; k < 20; k++) await new Promise(setImmediate);
    up.last.respond(200, {}, "");
    for (let k = 0; k < 20; k++) await new Promise(setImmediate);
    sending.block(false);
    await worker.until(() => sending.ended);
    expect(sending.body).toBe("0123456789".repeat(50));
    sending.respond(200, {}, "");
    expect(await saw(e)).toEqual([200, true, 50]);
  });

  it("is cancelled by its reader and by its signal", async () => {
    const e = await begin(
      `const r = await cx.fetch("up:/");
       for await (const part of r.body) break;
       const controller = new AbortController();
       const second = cx.fetch("up:/2", { signal: controller.signal });
       controller.abort();
       try { await second; } catch (error) { return error.reason; }`,
    );
    await worker.until(() => up.exchanges.length === 1);
    up.last.respond(200, {});
    up.last.send("some", false);
    expect(await saw(e)).toBe("cancelled");
    await worker.until(() => up.exchanges.every((request) => request.wasReset));
    expect(cx.clock.armed).toBe(0);
  });

  it("has 10,240 under way at most, and says so", async () => {
    const e = await begin(
      `const asked = Array.from({ length: 11_000 }, () =>
         cx.fetch("up:/", { timeoutMs: 60_000 }).then((r) => r.text(), (error) => error.reason));
       const counts = {};
       for (const answer of await Promise.all(asked)) counts[answer] = (counts[answer] ?? 0) + 1;
       return counts;`,
    );
    await worker.until(() => up.exchanges.length === 10_240);
    for (const exchange of up.exchanges) exchange.respond(200, {}, "fine");
    expect(await saw(e)).toEqual({ fine: 10_240, overflow: 760 });
  });

  it("says so where more answers come at once than there is room for", async () => {
    const e = await begin(
      `const asked = Array.from({ length: 1000 }, () =>
         cx.fetch("up:/", { timeoutMs: 60_000 }).then((r) => r.text()).catch((error) => error.reason));
       const counts = {};
       for (const answer of await Promise.all(asked)) counts[answer] = (counts[answer] ?? 0) + 1;
       return counts;`,
    );
    await worker.until(() => up.exchanges.length === 1000);
    const long = { "x-long": "x".repeat(32 * 1024) };
    for (const exchange of up.exchanges) exchange.respond(200, long, "fine");
    const { fine = 0, overflow = 0 } = (await saw(e)) as { fine?: number; overflow?: number };
    expect(overflow).toBeGreaterThan(0);
    expect(fine + overflow).toBe(1000);
  });

  it("says so where more is sent at once than may leave the sandbox", async () => {
    const e = await begin(
      `const body = new Uint8Array(4 * 1024 * 1024);
       const asked = Array.from({ length: 8 }, () =>
         cx.fetch("up:/", { method: "POST", body }).then((r) => r.text()).catch((error) => error.reason));
       return await Promise.all(asked);`,
    );
    const answered = new Set<unknown>();
    await worker.until(() => {
      for (const exchange of up.exchanges)
        if (!answered.has(exchange)) exchange.respond(200, {}, "fine");
      for (const exchange of up.exchanges) answered.add(exchange);
      return e.request.has("x-saw");
    });
    const answers = (await saw(e)) as string[];
    expect(new Set(answers)).toEqual(new Set(["fine", "overflow"]));
  });

  it("holds 64 MiB of bodies for all that one sandbox sends", () => {
    const told: string[] = [];
    const fetches = new SandboxFetches(cx, (head) => told.push(head));
    const part = new Uint8Array(4 * 1024 * 1024);
    for (let call = 1; call <= 17; call++)
      fetches.onMessage(JSON.stringify({ call, op: "data" }), part);
    expect(told.map((head) => JSON.parse(head))).toMatchObject([
      { call: 17, op: "error", reason: "overflow" },
    ]);
    fetches.onMessage(JSON.stringify({ call: 1, op: "cancel" }), part);
    fetches.onMessage(JSON.stringify({ call: 18, op: "data" }), part);
    expect(told).toHaveLength(1);
  });

  it("ends with its sandbox", async () => {
    await begin(`await cx.fetch("up:/");`);
    await worker.until(() => up.exchanges.length === 1);
    worker.boxes[0]!.dispose();
    expect(up.last.wasReset).toBe(true);
  });
});

describe("gRPC out of a sandbox", () => {
  const METHOD = `const method = { path: "/echo.Echo/Say", encode: latin,
    decode: (bytes) => { if (bytes[0] === 33) throw new Error("no such message"); return String.fromCharCode(...bytes); } };
    const outcome = (call) => call.answer.then((text) => text, ({ code, message }) => code + " " + message);`;
  const GRPC = { "content-type": "application/grpc" };
  const frame = (text: string) => `\0\0\0\0${String.fromCharCode(text.length)}${text}`;
  const asked = async (code: string): Promise<Exchange> => {
    const e = await begin(METHOD + code);
    await worker.until(() => up.exchanges.length > 0);
    return e;
  };

  it("calls with one message, and hears the status wherever the server says it", async () => {
    up.answering = ({ headers, body, method }) => {
      if (headers.some(([name, value]) => name === "x-case" && value === "head"))
        return { headers: { ...GRPC, "grpc-status": "7", "grpc-message": "n%21" } };
      if (headers.some(([name, value]) => name === "x-case" && value === "none"))
        return { headers: GRPC, body: frame("hi") };
      const seen = [method, body === frame("hi"), headers.find(([name]) => name === "te")?.[1]];
      return { headers: GRPC, body: frame(seen.join()), trailers: { "grpc-status": "0" } };
    };
    const e = await asked(
      `const call = (to, which) => outcome(grpcCall(cx, to, method, "hi", { metadata: [["x-case", which]] }));
       return [await call("up", ""), await call("up", "head"), await call("up", "none"), await call("nowhere", "")];`,
    );
    expect(await saw(e)).toEqual([
      "POST,true,trailers",
      "7 n!",
      "2 the answer has ended without a status",
      expect.stringMatching(/^14 no cluster "nowhere"/),
    ]);
  });

  it("fails where the answer is broken, or a message cannot be read", async () => {
    up.answering = ({ path }) =>
      path === "/cut"
        ? "reset"
        : { headers: GRPC, body: frame("!"), trailers: { "grpc-status": "0" } };
    const e = await asked(
      `return [await outcome(grpcCall(cx, "up", { ...method, path: "/cut" }, "hi")), await outcome(grpcCall(cx, "up", method, "hi"))];`,
    );
    expect(await saw(e)).toEqual([
      expect.stringMatching(/^14 /),
      expect.stringMatching(/^13 a message cannot be read: Error: no such message/),
    ]);
  });

  it("is told how long it has, and ends in time", async () => {
    const e = await asked(
      `return await outcome(grpcCall(cx, "up", method, "hi", { timeoutMs: 50 }));`,
    );
    expect(up.last.header("grpc-timeout")).toBe("50m");
    cx.clock.advance(100);
    expect(await saw(e)).toBe("4 no status within 50 ms");
    expect(up.last.wasReset).toBe(true);
  });

  it("cancels at the server too", async () => {
    const e = await asked(
      `const call = grpcCall(cx, "up", method, "hi");
       await cx.fetch("up:/gate");
       call.cancel();
       return await outcome(call);`,
    );
    await worker.until(() => up.exchanges.length === 2);
    const at = (path: string) => up.exchanges.find((exchange) => exchange.path === path)!;
    at("/gate").respond(200, {}, "");
    expect(await saw(e)).toBe("1 cancelled");
    await worker.until(() => at("/echo.Echo/Say").wasReset);
  });

  it("streams both ways, and the server waits while no messages are taken", async () => {
    const e = await asked(
      `const heard = [];
       return await new Promise((resolve) => {
         const talk = grpcStream(cx, "up", method, {}, {
           onMessage(text) {
             heard.push(text);
             if (heard.length === 1) {
               talk.pause(true);
               cx.fetch("up:/gate").then(() => { talk.pause(false); talk.send("two"); talk.end(); });
             }
           },
           onEnd: ({ code }) => resolve([...heard.map((text) => text.length), code]),
         });
         talk.send("one");
       });`,
    );
    const [talk] = up.exchanges;
    await worker.until(() => talk!.body === frame("one"));
    talk!.respond(200, GRPC);
    for (let k = 0; k < 2000; k++) talk!.send(frame("x".repeat(100)), false);
    await worker.until(() => up.exchanges.length === 2 && talk!.paused);
    expect(talk!.ended).toBe(false);
    up.last.respond(200, {}, "");
    await worker.until(() => talk!.ended && !talk!.paused);
    expect(talk!.body).toBe(frame("one") + frame("two"));
    const ok = new HeaderMap();
    ok.append("grpc-status", "0");
    talk!.endWithTrailers(ok);
    expect(await saw(e)).toEqual([...Array(2000).fill(100), 0]);
  });
});

describe("crypto in a sandbox", () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const ec = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const ed = generateKeyPairSync("ed25519");
  const spki = (pair: typeof rsa): string =>
    JSON.stringify(pair.publicKey.export({ type: "spki", format: "der" }).toString("latin1"));
  const text = (bytes: Buffer): string => JSON.stringify(bytes.toString("latin1"));

  it("digests, and makes and checks HMACs, of bytes that it copies", async () => {
    const mac = createHmac("sha256", "key").update("hello").digest("hex");
    const e = await begin(
      `const data = utf8Encode("hello");
       const digest = crypto.subtle.digest("SHA-1", data);
       const key = await crypto.subtle.importKey("raw", utf8Encode("key"), { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
       const mac = await crypto.subtle.sign("HMAC", key, data);
       const big = await crypto.subtle.digest({ name: "SHA-256" }, new Uint8Array(300_000));
       return [hex(await digest), hex(mac), await crypto.subtle.verify("HMAC", key, mac, data), await crypto.subtle.verify("HMAC", key, mac, utf8Encode("hellO")), hex(big).slice(0, 8), key.type];`,
    );
    expect(await saw(e)).toEqual([
      "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d",
      mac,
      true,
      false,
      createHash("sha256").update(Buffer.alloc(300_000)).digest("hex").slice(0, 8),
      "secret",
    ]);
  });

  it("checks signatures of RSA, ECDSA and Ed25519 by public keys", async () => {
    const data = Buffer.from("payload");
    const pss = { key: rsa.privateKey, padding: 6, saltLength: 32 };
    const jwk = JSON.stringify(ec.publicKey.export({ format: "jwk" }));
    const e = await begin(
      `const data = utf8Encode("payload"), other = utf8Encode("paylaod");
       const check = async (format, key, how, verify, signature) => {
         const imported = await crypto.subtle.importKey(format, format === "jwk" ? key : latin(key), how, false, ["verify"]);
         return [await crypto.subtle.verify(verify, imported, latin(signature), data), await crypto.subtle.verify(verify, imported, latin(signature), other)].join();
       };
       return [
         await check("spki", ${spki(rsa)}, { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, "RSASSA-PKCS1-v1_5", ${text(sign("sha256", data, rsa.privateKey))}),
         await check("spki", ${spki(rsa)}, { name: "RSA-PSS", hash: "SHA-256" }, { name: "RSA-PSS", saltLength: 32 }, ${text(sign("sha256", data, pss))}),
         await check("jwk", ${jwk}, { name: "ECDSA", namedCurve: "P-256" }, { name: "ECDSA", hash: "SHA-256" }, ${text(sign("sha256", data, { key: ec.privateKey, dsaEncoding: "ieee-p1363" }))}),
         await check("spki", ${spki(ed as never)}, { name: "Ed25519" }, "Ed25519", ${text(sign(null, data, ed.privateKey))}),
       ];`,
    );
    expect(await saw(e)).toEqual(Array(4).fill("true,false"));
  });

  it("encrypts what it decrypts, and says why it cannot", async () => {
    const e = await begin(
      `const key = await crypto.subtle.importKey("raw", new Uint8Array(32), "AES-GCM", false, ["encrypt", "decrypt"]);
       const how = { name: "AES-GCM", iv: new Uint8Array(12) };
       const sealed = await crypto.subtle.encrypt(how, key, utf8Encode("secret"));
       const open = new Uint8Array(await crypto.subtle.decrypt(how, key, sealed));
       const failed = [];
       for (const run of [
         () => crypto.subtle.decrypt(how, key, new Uint8Array(32)),
         () => crypto.subtle.importKey("spki", new Uint8Array(5), { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]),
         () => crypto.subtle.digest("SHA-1", new Uint8Array(1024 * 1024 + 1)),
         () => crypto.subtle.sign("HMAC", {}, new Uint8Array(1)),
       ]) await run().then(() => failed.push("no"), (e) => failed.push(e.name));
       return [utf8Decode(open, 0, open.length), ...failed];`,
    );
    expect(await saw(e)).toEqual([
      "secret",
      "OperationError",
      "DataError",
      "RangeError",
      "TypeError",
    ]);
  });

  it("has random bytes at once, other ones each time and in each isolate", async () => {
    const body = `const bytes = crypto.getRandomValues(new Uint8Array(4096));
      return [crypto.randomUUID(), hex(bytes), [...crypto.getRandomValues(new Uint32Array(2))].join()];`;
    const [a, b] = [await saw(await begin(body)), await saw(await begin(body))] as string[][];
    expect(a![0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(new Set([...a!, ...b!]).size).toBe(6);
    const counts = new Array(256).fill(0);
    for (const byte of latin1Encode(Buffer.from(a![1]!, "hex").toString("latin1"))) counts[byte]++;
    expect(Math.max(...counts)).toBeLessThan(48);
  });
});
