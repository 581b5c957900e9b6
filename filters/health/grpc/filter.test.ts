import { Chunk, defineCodec, type HealthEvents, Type } from "@tsproxy/sdk";
import { TestClientCodec, TestContext } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import grpc, { statusOf } from "./filter.ts";

let cx: TestContext;
let codecs: TestClientCodec[];
let told: string[];

function check(config: object = {}): TestClientCodec {
  const events: HealthEvents = {
    onHealthy: () => void told.push("healthy"),
    onFailure: ({ type }) => void told.push(type),
  };
  const address = { ip: "10.0.0.1", port: 80 };
  const target = {
    clusterName: "c",
    address,
    hostname: "",
    reuseConnection: true,
    connect: (handler: Parameters<TestContext["connect"]>[1]) =>
      cx.connect(address, handler, { timeoutMs: 0 }),
    onClusterVerified: () => {},
  };
  const checker = cx.setup(grpc, {
    service_name: "",
    authority: "",
    initial_metadata: [],
    ...config,
  });
  checker.create(target, events).check();
  cx.opened.at(-1)!.handler.onConnected!();
  return codecs.at(-1)!;
}
const frame = (...message: number[]): Chunk => {
  const memory = Uint8Array.from([0, 0, 0, 0, message.length, ...message]);
  return new Chunk(memory, 0, memory.length);
};
const GRPC = { "content-type": "application/grpc" };

beforeEach(() => {
  codecs = [];
  told = [];
  cx = new TestContext().define(
    "codec/http2",
    defineCodec({
      name: "h2",
      config: Type.Object({}),
      setup: () => TestClientCodec.factory(codecs, "HTTP/2"),
    }),
  );
});

describe("a gRPC check", () => {
  it("asks for the service by its name", () => {
    const [request] = check({ service_name: "a.B" }).requests;
    expect([request!.method, request!.path]).toEqual(["POST", "/grpc.health.v1.Health/Check"]);
    expect(request!.headers).toEqual([
      ["host", "c"],
      ["te", "trailers"],
      ["content-type", "application/grpc"],
      ["user-agent", "Envoy/HC"],
    ]);
    expect(request!.body).toBe("\0\0\0\0\x05\n\x03a.B");
  });

  it("carries the metadata of the config, whose formats see HTTP/2", () => {
    const append_action = "APPEND_IF_EXISTS_OR_ADD";
    const initial_metadata = [{ header: { key: "x-by", value: "%PROTOCOL%" }, append_action }];
    const [request] = check({ initial_metadata }).requests;
    expect(request!.headers).toContainEqual(["x-by", "HTTP/2"]);
  });

  it("carries an authority beyond Latin-1 as UTF-8", () => {
    const [request] = check({ authority: "ж" }).requests;
    expect(request!.headers[0]).toEqual(["host", Buffer.from("ж").toString("latin1")]);
  });

  it("finds the host healthy when it serves, and not otherwise", () => {
    const ok = { trailers: { "grpc-status": "0" } };
    check().respond(200, GRPC, { body: frame(8, 1), ...ok });
    check().respond(200, GRPC, { body: frame(8, 2), ...ok });
    check().respond(200, GRPC, { body: frame(), ...ok });
    check().respond(200, GRPC, { body: frame(8, 1), trailers: { "grpc-status": "14" } });
    check().respond(200, { ...GRPC, "grpc-status": "12" });
    check().respond(503);
    check().respond(200, {}, { body: frame(8, 1), ...ok });
    expect(told).toEqual(["healthy", "no", "no", "no", "no", "no", "no"]);
  });
});

describe("a response", () => {
  it("is read as a varint in one frame, and refused otherwise", () => {
    const read = (...bytes: number[]) => statusOf(Uint8Array.from(bytes));
    expect(read(0, 0, 0, 0, 2, 8, 1)).toBe(1);
    expect(read(0, 0, 0, 0, 3, 8, 0x81, 0)).toBe(1);
    expect(read(0, 0, 0, 0, 0)).toBe(0);
    for (const bytes of [
      [],
      [0, 0, 0, 0],
      [1, 0, 0, 0, 0],
      [0, 0, 0, 0, 9, 8, 1],
      [0, 0, 0, 0, 2, 8, 0x80],
      [0, 0, 0, 0, 2, 0xa, 1],
    ])
      expect(read(...bytes)).toBeUndefined();
  });

  it("of any bytes throws nothing", () => {
    for (let k = 0; k < 20_000; k++) {
      const bytes = Uint8Array.from({ length: k % 24 }, () => Math.random() * 256);
      if (bytes.length > 4) bytes.set([0, 0, 0, 0, bytes.length - 5]);
      statusOf(bytes);
    }
  });
});
