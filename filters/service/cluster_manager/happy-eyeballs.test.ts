import type { Address, CloseEvent, ConnectionHandler } from "@tsproxy/sdk";
import { latin1Encode } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import { interleave, Race } from "./happy-eyeballs.ts";

const at = (ip: string): Address => ({ ip, port: 80 });
const FAILED: CloseEvent = {
  by: "remote",
  phase: "connecting",
  timeout: false,
  error: "ECONNREFUSED",
};

describe("the order of addresses", () => {
  const order = (ips: string, firstFamily?: "V4" | "V6" | "PIPE", firstCount = 1) =>
    interleave(ips.split(" ").map(at), { firstFamily, firstCount })
      .map((address) => address.ip)
      .join(" ");

  it("lets families take turns, that of the first address first", () => {
    expect(order("::1 ::2 ::3 1.1.1.1 1.1.1.2")).toBe("::1 1.1.1.1 ::2 1.1.1.2 ::3");
    expect(order("1.1.1.1 ::1 ::2 ::3")).toBe("1.1.1.1 ::1 ::2 ::3");
  });
  it("begins with so many of the family that is preferred", () => {
    expect(order("1.1.1.1 1.1.1.2 ::1 ::2 ::3", "V6", 2)).toBe("::1 ::2 1.1.1.1 ::3 1.1.1.2");
    expect(order("1.1.1.1 1.1.1.2", "V6", 2)).toBe("1.1.1.1 1.1.1.2");
  });
  it("is of no more than 64", () => {
    expect(order(Array.from({ length: 100 }, () => "1.1.1.1").join(" ")).split(" ")).toHaveLength(
      64,
    );
  });
});

describe("a connection to the first address that answers", () => {
  let cx: TestContext;
  let heard: string[];
  let further: number;
  let closed: CloseEvent | undefined;
  const handler: ConnectionHandler = {
    onConnected: () => void heard.push("connected"),
    onData: (chunk) => void heard.push(`data ${chunk.length}`),
    onEof: () => void heard.push("eof"),
    onBlocked: () => void heard.push("blocked"),
    onDrained: () => void heard.push("drained"),
    onClosed(event) {
      heard.push("closed");
      closed = event;
    },
  };
  const race = (ips = "::1 1.1.1.1 ::2") =>
    new Race(cx, ips.split(" ").map(at), handler, {
      timeoutMs: 1_000,
      optionsFor: () => ({ timeoutMs: 1_000 }),
      onFurtherAttempt: () => void further++,
    });
  const tried = () => cx.opened.map((opened) => opened.address.ip).join(" ");
  const connect = (k: number) => cx.opened[k]!.handler.onConnected!();
  const fail = (k: number, event = FAILED) => cx.opened[k]!.handler.onClosed(event);

  beforeEach(() => {
    cx = new TestContext();
    heard = [];
    further = 0;
    closed = undefined;
  });

  it("tries the next beside the others every 300 ms, and closes those that were slower", () => {
    const connection = race();
    cx.clock.advance(299);
    expect(tried()).toBe("::1");
    cx.clock.advance(1);
    expect(tried()).toBe("::1 1.1.1.1");
    cx.clock.advance(300);
    connect(1);
    expect(heard).toEqual(["connected"]);
    expect(connection.remoteAddress.ip).toBe("1.1.1.1");
    expect(cx.opened.map((opened) => opened.connection.open)).toEqual([false, true, false]);
    fail(0);
    fail(2);
    expect(heard).toEqual(["connected"]);
    cx.clock.advance(2_000);
    expect(closed).toBeUndefined();
    fail(1);
    expect(heard).toEqual(["connected", "closed"]);
  });

  it("tries the next at once when one fails, and fails with the last", () => {
    race();
    fail(0);
    expect(tried()).toBe("::1 1.1.1.1");
    cx.clock.advance(300);
    fail(1);
    expect(heard).toEqual([]);
    fail(2, { ...FAILED, error: "EHOSTUNREACH" });
    expect(further).toBe(2);
    expect(closed).toMatchObject({ error: "EHOSTUNREACH", timeout: false, by: "remote" });
  });

  it("has one connect timeout for all", () => {
    race("::1 1.1.1.1");
    cx.clock.advance(1_000);
    expect(cx.opened.every((opened) => !opened.connection.open)).toBe(true);
    fail(0);
    expect(closed).toBeUndefined();
    fail(1);
    expect(closed).toMatchObject({ timeout: true, by: "local" });
  });

  it("keeps what is written, and the end and pauses, for the one that wins", () => {
    const connection = race();
    connection.write(latin1Encode("hello"), 0, 5);
    connection.pause();
    connection.end();
    expect([connection.bytesSent, connection.blocked, heard]).toEqual([5, true, ["blocked"]]);
    fail(0);
    connect(1);
    expect(cx.opened[1]!.connection.written).toBe("hello");
    expect(heard).toEqual(["blocked", "connected", "drained"]);
  });

  it("closes all when its owner does", () => {
    const connection = race();
    cx.clock.advance(300);
    connection.close("abort");
    expect([connection.open, heard]).toEqual([false, []]);
    fail(0);
    fail(1);
    expect(closed).toMatchObject({ by: "local" });
    cx.clock.advance(10_000);
    expect(tried()).toBe("::1 1.1.1.1");
  });
});
