import {
  Chunk,
  type CloseEvent,
  type NetworkFilter,
  type NetworkFilterFactory,
  type NetworkResult,
} from "@tsproxy/sdk";
import { TestChain, TestConnection, TestContext } from "@tsproxy/sdk/testing";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parkedNetworkFactory } from "../inside/parked-network.ts";
import { FakeWorker } from "./fake-worker.ts";
import type { Sandbox } from "./sandbox.ts";

const CLOSED: CloseEvent = { by: "remote", phase: "connected", timeout: false, error: undefined };

const filter = (members: string, setup = ""): string => `
  import { defineNetworkFilter, stop, Type, utf8Encode } from "@tsproxy/sdk";
  export default defineNetworkFilter({ name: "test", config: Type.Object({}), setup(config, cx) { ${setup};
    return { create: (connection, chain) => ({ ${members} }) };
  } });`;

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

function networkStub(sandbox: Sandbox): NetworkFilterFactory {
  const box = worker.boxes.indexOf(sandbox);
  return parkedNetworkFactory({ box, use: 1, hooks: sandbox.hooks }, worker.table);
}

class Peer {
  readonly connection = new TestConnection(9);
  readonly filter: NetworkFilter;

  constructor(sandbox: Sandbox) {
    this.filter = networkStub(sandbox).create(this.connection, this.connection.chain);
  }

  /** What later filters get: "same", or the text in the chunk's place. */
  async send(text: string, endStream = false): Promise<string> {
    const { at, end } = worker.lend(text);
    return this.passed(this.filter.onData?.(new Chunk(worker.memory, at, end), endStream));
  }

  async passed(result: NetworkResult): Promise<string> {
    const bytes = await (result as Promise<Uint8Array | undefined>);
    return bytes === undefined ? "same" : Buffer.from(bytes).toString("latin1");
  }
}

describe("a sandboxed network filter", () => {
  it("knows its connection, pauses the chain and writes to the client", async () => {
    const peer = new Peer(
      await worker.sandbox(
        filter(
          `async onConnect() { connection.write(utf8Encode(connection.remoteAddress.ip + " " + connection.listener.name + "\\n"), 0, 15); }`,
        ),
      ),
    );
    expect(await peer.passed(peer.filter.onConnect?.())).toBe("same");
    expect(peer.connection.take()).toBe("192.0.2.1 test\n");
  });

  it("lets bytes pass, or puts others in their place", async () => {
    const peer = new Peer(
      await worker.sandbox(
        filter(
          `async onData(c, end) { if (c.text() === "same") return; if (c.text() === "async") { await null; return utf8Encode("later"); } c.replace(utf8Encode(c.text().toUpperCase() + (end ? "." : ""))); }`,
        ),
      ),
    );
    expect(await peer.send("same")).toBe("same");
    expect(await peer.send("abc")).toBe("ABC");
    expect(await peer.send("async")).toBe("later");
    expect(await peer.send("end", true)).toBe("END.");
  });

  it("carries what is longer than a record", async () => {
    const peer = new Peer(
      await worker.sandbox(
        filter(
          `onData(c) { const b = c.copy(); b.reverse(); c.replace(b); connection.write(b, 0, b.length); }`,
        ),
      ),
    );
    const text = Array.from({ length: 200_000 }, (_, k) => String.fromCharCode(97 + (k % 25))).join(
      "",
    );
    const reversed = [...text].reverse().join("");
    expect((await peer.send(text)) === reversed).toBe(true);
    expect(peer.connection.take() === reversed).toBe(true);
  });

  it("stops the chain until it resumes it", async () => {
    const peer = new Peer(
      await worker.sandbox(
        filter(
          `onConnect() { cx.timer(() => chain.resumeReading()).arm(1); return stop; }, onData() { chain.resumeReading(); return stop; }`,
        ),
      ),
    );
    expect(await peer.passed(peer.filter.onConnect?.())).toBe("same");
    expect(await peer.send("x")).toBe("same");
    expect(peer.connection.resumed).toBe(0);
  });

  it("sees what goes to the client, changes it, waits, and sends its own before it", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `async onWrite(c, end) { const t = c.text(); if (t === "drop") return stop; if (t === "inject") chain.injectWrite(utf8Encode("<")); if (t === "late") { await null; c.replace(utf8Encode("later")); return; } c.replace(utf8Encode(t.toUpperCase() + (end ? "." : ""))); }`,
      ),
    );
    const factory = networkStub(sandbox);
    const peer = new TestChain(new TestContext(), factory);
    peer.fromServer("abc").fromServer("drop").fromServer("inject").fromServer("late");
    peer.fromClient("hello").fromServer("end", true);
    await worker.until(() => peer.connection.ended);
    expect(peer.connection.take()).toBe("ABC<INJECTlaterEND.");
    // There is no `onData`, and it says so once it is there.
    expect(peer.passed).toBe("hello");
  });

  it.each([
    ["return 42", "42; return nothing, stop or a promise"],
    ["return null", "null; return nothing, stop or a promise"],
    ['return Promise.resolve("x")', '"x"; return nothing, stop or bytes'],
  ])("fails its connection, no other one, where it does %s", async (code, told) => {
    const sandbox = await worker.sandbox(
      filter(`onData(c) { if (c.text() === "bad") { ${code}; } }`),
    );
    const [bad, good] = [new Peer(sandbox), new Peer(sandbox)];
    expect(await good.send("a")).toBe("same");
    void bad.send("bad");
    await worker.until(() => bad.connection.closed !== undefined);
    expect([await good.send("b"), bad.connection.closed]).toEqual(["same", "abort"]);
    expect([sandbox.counts.faults, worker.faults[0]!.reason]).toEqual([
      0,
      `onData: it returned ${told}`,
    ]);
    expect(worker.faults[0]!.stack).toMatch(/^test\.js:4:\d+$/);
  });

  it("carries both directions at once, in pieces", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `onData(c) { c.replace(c.copy().reverse()); }, onWrite(c) { c.replace(c.copy().reverse()); }`,
      ),
    );
    const peer = new TestChain(new TestContext(), networkStub(sandbox));
    const text = Array.from({ length: 300_000 }, (_, k) => String.fromCharCode(97 + (k % 25)));
    peer.fromClient(text.join("")).fromServer(`>${text.join("")}`);
    await worker.until(() => !peer.waiting);
    expect(peer.passed === [...text].reverse().join("")).toBe(true);
    expect(peer.connection.take() === `${[...text].reverse().join("")}>`).toBe(true);
  });

  it("ends, pauses and closes the connection", async () => {
    const peer = new Peer(
      await worker.sandbox(
        filter(
          `onData(c) { const t = c.text(); if (t === "end") connection.end(); else if (t === "pause") connection.pause(); else connection.close("reset"); }`,
        ),
      ),
    );
    await peer.send("end");
    await peer.send("pause");
    await peer.send("close");
    expect([peer.connection.ended, peer.connection.pauses, peer.connection.closed]).toEqual([
      true,
      1,
      "reset",
    ]);
  });

  it("hears of drain, watermarks and the close, and leaves nothing behind", async () => {
    const sandbox = await worker.sandbox(
      filter(
        `onDrain() { cx.log.info("drain " + connection.draining); }, onBlocked() { cx.log.info("blocked " + connection.blocked); }, onDrained() { cx.log.info("drained"); }, onClose(e) { cx.log.info("close " + e.by); }`,
      ),
    );
    const peer = new Peer(sandbox);
    peer.filter.onDrain?.({ immediate: true, closes: () => true });
    peer.filter.onBlocked?.();
    peer.filter.onDrained?.();
    peer.filter.onClose?.(CLOSED);
    await worker.until(() => worker.logged.length === 4);
    expect(worker.logged.map((line) => line.message)).toEqual([
      "drain true",
      "blocked true",
      "drained",
      "close remote",
    ]);
    expect(sandbox.live).toBe(0);
  });

  it("closes its connection when a hook throws, and only that one", async () => {
    const sandbox = await worker.sandbox(
      filter(`onData(c) { if (c.text() === "bang") throw new Error("bang"); }`),
    );
    const [bad, good] = [new Peer(sandbox), new Peer(sandbox)];
    void bad.send("bang");
    expect(await good.send("fine")).toBe("same");
    expect([bad.connection.closed, good.connection.closed]).toEqual(["abort", undefined]);
  });

  it("loses its connections when it hangs, and comes back", async () => {
    const sandbox = await worker.sandbox(
      filter(`onData(c) { if (c.text() === "hang") for (;;); }`),
      [{}],
      { limits: { timeoutMs: 30 } },
    );
    const [bad, other] = [new Peer(sandbox), new Peer(sandbox)];
    await other.send("fine");
    void bad.send("hang");
    await worker.until(() => bad.connection.closed !== undefined);
    void other.send("again");
    await worker.until(() => other.connection.closed !== undefined);
    await worker.until(() => sandbox.ready);
    expect(await new Peer(sandbox).send("fine")).toBe("same");
  });

  it.each([
    ["their place goes on in the same sandbox", {}, 2],
    ["their place goes on in the ward", { ward: { onConfined: () => {} } }, 1],
  ])(
    "lets new connections wait for the next isolate, with what they have said, when it hangs: %s",
    async (_, ward, rebuilt) => {
      const sandbox = await worker.sandbox(
        filter(
          `onConnect() {}, onData(c) { if (c.text() === "hang") for (;;); c.replace(c.copy()); }`,
        ),
        [{}],
        { limits: { timeoutMs: 100 }, ...ward },
      );
      /** Together, so that the one that hangs comes first: on this thread once, then on another one. */
      const beside = async () => {
        const [bad, more] = [new Peer(sandbox), [new Peer(sandbox), new Peer(sandbox)]];
        void bad.send("hang");
        const answers = more.map((peer) => peer.send("x".repeat(3000)));
        worker.flush();
        const late = new Peer(sandbox);
        const answer = late.send("late");
        expect(await Promise.all([...answers, answer])).toEqual([
          "x".repeat(3000),
          "x".repeat(3000),
          "late",
        ]);
        expect(bad.connection.closed).toBe("abort");
        for (const peer of [...more, late]) {
          expect([peer.connection.closed, await peer.send("again")]).toEqual([undefined, "again"]);
          peer.filter.onClose?.(CLOSED);
        }
      };
      await beside();
      await beside();
      expect([worker.faults.length, sandbox.counts.rebuilt]).toEqual([2, rebuilt]);
      // In its failure policy nobody waits.
      const bad = new Peer(sandbox);
      void bad.send("hang");
      const other = new Peer(sandbox);
      void other.send("fine");
      await worker.until(() => other.connection.closed !== undefined);
      expect(sandbox.breaker).toBe("open");
    },
  );

  it("has new connections that wait go on in the ward, where they hang at nobody's cost", async () => {
    const sandbox = await worker.sandbox(
      filter(`onData(c) { if (c.text() === "hang") for (;;); }`),
      [{}],
      { limits: { timeoutMs: 100 }, ward: { onConfined: () => {} } },
    );
    const [bad, next] = [new Peer(sandbox), new Peer(sandbox)];
    void bad.send("hang");
    expect(await next.send("fine")).toBe("same");
    void next.send("hang");
    await worker.until(() => next.connection.closed !== undefined && sandbox.ready);
    expect([worker.faults.length, sandbox.counts.rebuilt]).toEqual([2, 1]);
  });

  it("has new connections that join others in the ward wait no longer there than anywhere", async () => {
    const clock = { now: 1000 };
    const told: boolean[] = [];
    const sandbox = await worker.sandbox(
      filter(
        `onData(c) { if (c.text() === "hang") for (;;); if (c.text() === "wait") return new Promise((settle) => setTimeout(settle, 1e6)); }`,
      ),
      [{}],
      {
        limits: { timeoutMs: 100, pauseMs: 5000 },
        now: () => clock.now,
        ward: { onConfined: (_, isConfined) => told.push(isConfined) },
      },
    );
    /** A connection that comes while another one hangs. */
    const beside = (text: string) => {
      void new Peer(sandbox).send("hang");
      const next = new Peer(sandbox);
      return { next, sent: next.send(text) };
    };
    expect(await beside("fine").sent).toBe("same");
    // The place comes back, and for that connection the ward stays.
    clock.now += 61_000;
    sandbox.expire(clock.now);
    await worker.until(() => sandbox.ready);
    const { next } = beside("wait");
    await worker.until(() => sandbox.ready && sandbox.counts.faults === 2);
    expect(told).toEqual([true, false, true]);
    clock.now += 4999;
    sandbox.expire(clock.now);
    expect(next.connection.closed).toBeUndefined();
    clock.now += 1;
    sandbox.expire(clock.now);
    await worker.until(() => next.connection.closed !== undefined);
  });

  /** Its filters keep nothing. */
  const STATELESS = `
    import { defineNetworkFilter, Type } from "@tsproxy/sdk";
    export default defineNetworkFilter({ name: "test", config: Type.Object({}), setup: (config, cx) => ({
      stateless: true,
      create: () => ({
        onConnect() { cx.stats.counter("connected").inc(); },
        onData(chunk) {
          if (chunk.text() === "hang") for (;;);
          if (chunk.text() === "wait") return new Promise((settle) => setTimeout(settle, 1e6));
          chunk.replace(chunk.copy());
        },
        onClose() { cx.stats.counter("closed").inc(); },
      }),
    }) });`;

  it.each([
    ["the same place", {}],
    ["the ward", { ward: { onConfined: () => {} } }],
  ])(
    "has connections go on with new filters if these keep nothing, when another one hangs: %s",
    async (_, ward) => {
      const sandbox = await worker.sandbox(STATELESS, [{}], {
        limits: { timeoutMs: 100 },
        ...ward,
      });
      const [bad, waits, busy, idle, left] = [1, 2, 3, 4, 5].map(() => new Peer(sandbox));
      for (const peer of [bad!, waits!, busy!, idle!, left!])
        expect([await peer.passed(peer.filter.onConnect?.()), await peer.send("x")]).toEqual([
          "same",
          "x",
        ]);
      const long = "long".repeat(30_000);
      expect(await idle!.send(long)).toBe(long);
      void waits!.send("wait");
      worker.flush();
      void bad!.send("hang");
      const answer = busy!.send("behind it");
      worker.flush();
      const late = idle!.send("after it");
      left!.filter.onClose?.(CLOSED);
      expect(await Promise.all([answer, late])).toEqual(["behind it", "after it"]);
      expect(await idle!.send(long)).toBe(long);
      expect([bad, waits, busy, idle].map((peer) => peer!.connection.closed)).toEqual([
        "abort",
        "abort",
        undefined,
        undefined,
      ]);
      for (const peer of [busy!, idle!]) peer.filter.onClose?.(CLOSED);
      await worker.until(() => sandbox.live === 0);
      await worker.until(() => {
        sandbox.expire(0);
        return worker.stat("closed") === 3;
      });
      expect(worker.stat("connected")).toBe(5);
    },
  );

  it("closes a connection of which the isolate had the beginning of a chunk", async () => {
    const sandbox = await worker.sandbox(STATELESS, [{}], { limits: { timeoutMs: 100 } });
    const [bad, cut] = [new Peer(sandbox), new Peer(sandbox)];
    expect(await cut.send("x")).toBe("x");
    void bad.send("hang");
    void cut.send("long".repeat(30_000));
    await worker.until(() => cut.connection.closed !== undefined && sandbox.ready);
    expect(worker.faults.length).toBe(1);
  });

  it("keeps the order of what it is told while the ring has no room", async () => {
    const peer = new Peer(
      await worker.sandbox(
        filter(
          `onConnect() { cx.log.info("connect"); }, onData(c) { cx.log.info(c.text()); }, onClose() { cx.log.info("close"); }`,
        ),
      ),
    );
    worker.rooms = 0;
    void peer.filter.onConnect?.();
    void peer.send("data");
    peer.filter.onClose?.(CLOSED);
    worker.flush();
    worker.rooms = -1;
    worker.again();
    await worker.until(() => worker.logged.length === 3);
    expect(worker.logged.map((line) => line.message)).toEqual(["connect", "data", "close"]);
  });
});
