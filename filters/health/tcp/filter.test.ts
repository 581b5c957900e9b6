import { Chunk, type HealthEvents, type HealthTarget, latin1Encode } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import tcp from "./filter.ts";

let cx: TestContext;
let told: string[];

const hex = (text: string): string =>
  Array.from(latin1Encode(text), (byte) => byte.toString(16).padStart(2, "0")).join("");

function session(config: object, reuseConnection = true) {
  const checker = cx.setup(tcp, config);
  const target: HealthTarget = {
    clusterName: "c",
    address: { ip: "10.0.0.1", port: 1 },
    hostname: "",
    reuseConnection,
    connect: (handler) => cx.connect({ ip: "10.0.0.1", port: 1 }, handler, { timeoutMs: 0 }),
    onClusterVerified: () => {},
  };
  const events: HealthEvents = {
    onHealthy: () => void told.push("healthy"),
    onFailure: ({ type }) => void told.push(type),
  };
  return checker.create(target, events);
}
const peer = () => cx.opened.at(-1)!;
const say = (text: string): void => {
  const bytes = latin1Encode(text);
  peer().handler.onData(new Chunk(bytes, 0, bytes.length));
};
const gone = { by: "remote", phase: "connected", timeout: false, error: undefined } as const;

beforeEach(() => {
  cx = new TestContext();
  told = [];
});

describe("a TCP check", () => {
  it("without a payload is content with a connection, and closes it", () => {
    session({}).check();
    expect(told).toEqual([]);
    peer().handler.onConnected!();
    expect(told).toEqual(["healthy"]);
    expect(peer().connection.open).toBe(false);
  });

  it("says its word and waits for all blocks of the answer, in order, whatever is between", () => {
    session({
      send: { text: hex("PING") },
      receive: [{ text: hex("PO") }, { text: hex("NG") }],
    }).check();
    peer().handler.onConnected!();
    expect(peer().connection.written).toBe("PING");
    say("NG P");
    say("O..N");
    expect(told).toEqual([]);
    say("G");
    expect(told).toEqual(["healthy"]);
  });

  it("goes on over the same connection, or over another if it may not", () => {
    const config = { send: { binary: "UElORw==" }, receive: [{ text: hex("+") }] };
    const kept = session(config);
    kept.check();
    peer().handler.onConnected!();
    say("+");
    kept.check();
    expect(cx.opened).toHaveLength(1);
    expect(peer().connection.written).toBe("PINGPING");
    const fresh = session(config, false);
    fresh.check();
    peer().handler.onConnected!();
    say("+");
    fresh.check();
    expect(cx.opened).toHaveLength(3);
  });

  it("fails when there is no connection, and when it goes before the answer", () => {
    session({}).check();
    peer().handler.onClosed({ ...gone, phase: "connecting", error: "ECONNREFUSED" });
    session({ receive: [{ text: "00" }] }).check();
    peer().handler.onConnected!();
    peer().handler.onClosed(gone);
    expect(told).toEqual(["network", "network"]);
  });

  it("tells nothing after a timeout, nor after its end", () => {
    const late = session({ receive: [{ text: hex("x") }] });
    late.check();
    peer().handler.onConnected!();
    late.onTimeout();
    say("x");
    peer().handler.onClosed(gone);
    expect(told).toEqual([]);
  });

  it("is refused for payloads that are none", () => {
    expect(() => session({ send: { text: "zz" } })).toThrow("invalid hex string 'zz'");
    expect(() => session({ receive: [{}] })).toThrow("is empty");
    expect(() => session({ send: { binary: "?" } })).toThrow("not base64");
  });
});
