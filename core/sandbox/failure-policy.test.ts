import { type AcceptedSocket, Chunk, RequestHeaders } from "@tsproxy/sdk";
import {
  balancerFor,
  TestConnection,
  TestContext,
  TestHost,
  testStreamInfo,
} from "@tsproxy/sdk/testing";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ParkedUse } from "../inside/parked.ts";
import { ParkedPolicy } from "../inside/parked-balancer.ts";
import { ParkedLogger } from "../inside/parked-log.ts";
import { parkedNetworkFactory } from "../inside/parked-network.ts";
import { parkedListenerFactory } from "../inside/parked-peek.ts";
import { FakeWorker } from "./fake-worker.ts";
import type { Sandbox } from "./sandbox.ts";

// What a failure costs that is not an HTTP filter's: by kind, failure policy, what fails, and when.

let worker: FakeWorker;
beforeEach(() => {
  worker = new FakeWorker();
});
afterEach(() => worker.dispose());

/** More than any promise may take. */
const LATE_MS = 60_000;
const BAD = {
  throws: 'throw new Error("on purpose");',
  loops: "for (;;) {}",
  grows: "const a = []; for (;;) a.push(new Array(1000).fill(1.5));",
  "never answers": "return new Promise(() => {});",
} as const;
type Bad = keyof typeof BAD;

const definition = (kind: string, setup: string, made: string) => `
  import { define${kind}, Type } from "@tsproxy/sdk";
  export default define${kind}({ name: "test", config: Type.Any(), setup(config, cx) { ${setup} return ${made}; } });`;

/** What one stream, connection or request meets; `filtered`: the filter's own answer. */
type Outcome = "filtered" | "passes" | "fails";
interface Kind {
  /** `call` runs in its hook, before its answer. */
  code(call: string, setup: string): string;
  ask(use: ParkedUse): Promise<Outcome>;
}

const KINDS: Readonly<Record<string, Kind>> = {
  network: {
    code: (call, setup) =>
      definition(
        "NetworkFilter",
        setup,
        `{ create: () => ({ onData(c) { ${call} c.replace(new Uint8Array(2)); } }) }`,
      ),
    async ask(use) {
      const connection = new TestConnection(9);
      const filter = parkedNetworkFactory(use, worker.table).create(connection, connection.chain);
      const { at, end } = worker.lend("x");
      const result = filter.onData?.(new Chunk(worker.memory, at, end), false);
      let passed: unknown = "under way";
      void Promise.resolve(result).then((bytes) => {
        passed = bytes;
      });
      await settles(() => passed !== "under way" || connection.closed !== undefined);
      if (connection.closed !== undefined) return "fails";
      return (passed as Uint8Array | undefined)?.length === 2 ? "filtered" : "passes";
    },
  },
  listener: {
    code: (call, setup) =>
      definition("ListenerFilter", setup, `() => ({ onBytes(bytes) { ${call} return 1; } })`),
    async ask(use) {
      const socket: AcceptedSocket = {
        remoteAddress: { ip: "192.0.2.1", port: 4000 },
        localAddress: { ip: "127.0.0.1", port: 80 },
        transportProtocol: "raw_buffer",
        serverName: "",
        applicationProtocols: [],
      };
      const filter = parkedListenerFactory(use, worker.table)(socket);
      let answer: unknown;
      void Promise.resolve(filter.onBytes(new Chunk(Buffer.from("x"), 0, 1))).then((given) => {
        answer = given;
      });
      await settles(() => answer !== undefined);
      return answer === "close" ? "fails" : answer === 0 ? "passes" : "filtered";
    },
  },
  balancer: {
    code: (call, setup) =>
      definition(
        "Balancer",
        setup,
        `{ create: ({ hosts }) => ({ choose() { ${call} return hosts[1]; } }) }`,
      ),
    async ask(use) {
      const hosts = [1, 2, 3].map((port) => new TestHost({ ip: "192.0.2.1", port }));
      const turns = { inc: () => {} };
      const balancer = balancerFor(new ParkedPolicy(use, worker.table, turns), hosts);
      const port = balancer.choose({})?.address.port;
      worker.flush();
      return port === undefined ? "fails" : port === 2 ? "filtered" : "passes";
    },
  },
};

/** With time that passes for promises alone. */
async function settles(condition: () => boolean): Promise<void> {
  let rounds = 0;
  await worker.until(() => {
    if (++rounds > 20) for (const box of worker.boxes) box.expire(performance.now() + LATE_MS);
    return condition();
  });
}

type Policy = "closed" | "open";
const useOf = (sandbox: Sandbox, policy: Policy): ParkedUse => ({
  box: worker.boxes.indexOf(sandbox),
  use: 1,
  hooks: sandbox.hooks,
  failsOpen: policy === "open",
});
const optionsOf = (policy: Policy) => ({ failurePolicy: policy, limits: { timeoutMs: 100 } });

const POLICIES = [
  ["closed", "fails"],
  ["open", "passes"],
] as const;

describe.each(Object.entries(KINDS))("a %s package", (name, kind) => {
  describe.each(POLICIES)("with failurePolicy %s", (policy, outcome) => {
    test.each(Object.keys(BAD) as Bad[])("that %s in a hook", async (bad) => {
      const sandbox = await worker.sandbox(kind.code(BAD[bad], ""), [{}], optionsOf(policy));
      const asked = await kind.ask(useOf(sandbox, policy));
      // No policy asks for turns here: a promise is an answer, and no host.
      const isNoHost = name === "balancer" && bad === "never answers";
      expect(asked).toBe(isNoHost ? "fails" : outcome);
    });

    test.each(["throws", "grows"] as const)(
      "that %s in its setup once its isolate is built anew",
      async (bad) => {
        const fails = `cx.runtime.integer("fails", 0) === 1`;
        const code = kind.code(`if (${fails}) for (;;) {}`, `if (${fails}) { ${BAD[bad]} }`);
        const sandbox = await worker.sandbox(code, [{}], optionsOf(policy));
        const use = useOf(sandbox, policy);
        expect(await kind.ask(use)).toBe("filtered");
        await sandbox.setRuntime(JSON.stringify([["fails", 1]]));
        await kind.ask(use);
        await worker.until(() => worker.faults.length > 1);
        expect(worker.faults[1]?.reason).toMatch(/^rebuild: /);
        expect(await kind.ask(use)).toBe(outcome);
      },
    );

    test("that has ended a process is not entered", async () => {
      const options = { ...optionsOf(policy), quarantined: true };
      const sandbox = await worker.sandbox(kind.code("", ""), [{}], options);
      expect(await kind.ask(useOf(sandbox, policy))).toBe(outcome);
    });
  });

  test.each(["throws", "grows"] as const)("that %s in its first setup is refused", async (bad) => {
    const sandbox = worker.sandbox(kind.code("", BAD[bad]), [{}], optionsOf("open"));
    await expect(sandbox).rejects.toThrow(/"place":"\/uses\/0"/);
  });
});

describe("an access log", () => {
  const code = (call: string) =>
    definition(
      "AccessLogger",
      'const f = cx.file("/log");',
      `{ log(entry) { ${call} f.append("line"); } }`,
    );
  /** Lines that come out, and entries that were dropped, of two that are logged one after the other. */
  async function log(call: string, quarantined = false) {
    const cx = new TestContext();
    let [lines, dropped] = [0, 0];
    const options = { limits: { timeoutMs: 100 }, quarantined, onLines: () => void lines++ };
    const sandbox = await worker.sandbox(code(call), [{}], options);
    const logger = new ParkedLogger(useOf(sandbox, "closed"), worker.table, cx, (count) => {
      dropped += count;
    });
    for (const path of ["/bad", "/good"]) {
      const request = new RequestHeaders();
      request.path = path;
      const before = lines + dropped + worker.faults.length;
      logger.log({ info: testStreamInfo(), request, response: undefined, trailers: undefined });
      cx.clock.advance(20);
      await settles(
        () => lines + dropped + worker.faults.length > before && sandbox.ready !== quarantined,
      );
    }
    return { lines, dropped };
  }
  test.each([
    ["throws", { lines: 1, dropped: 0 }],
    ["loops", { lines: 1, dropped: 1 }],
    ["grows", { lines: 1, dropped: 1 }],
  ] as const)("that %s costs one entry", async (bad, outcome) => {
    expect(await log(`if (entry.request.path === "/bad") { ${BAD[bad]} }`)).toEqual(outcome);
  });

  test("whose promise never settles costs none, as nobody waits for it", async () => {
    const call = `f.append("line"); ${BAD["never answers"]}`;
    expect(await log(call)).toEqual({ lines: 2, dropped: 0 });
  });

  test("that has ended a process is not entered", async () => {
    expect(await log("", true)).toEqual({ lines: 0, dropped: 2 });
  });
});
