import { defineTransport, Type } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import internalUpstream from "./filter.ts";

const inner = { name: "raw", package: "transport/raw_buffer", config: {} };

function passed(kinds: readonly ("host" | "cluster")[], secure = false) {
  const cx = new TestContext();
  cx.definitions.set(
    inner.package,
    defineTransport({ name: "raw", config: Type.Object({}), setup: () => ({ secure }) }),
  );
  const factory = cx.setup(internalUpstream, {
    passthrough_metadata: kinds.map((kind) => ({ kind: { [kind]: {} }, name: "tunnel" })),
    transport_socket: inner,
  });
  const out: unknown[] = [];
  const socket = { passMetadata: (...args: unknown[]) => out.push(args) };
  factory.connect?.(socket as never, { hostMetadata: { tunnel: { to: "host" } } });
  return { out, secure: factory.secure, missing: cx.stats.value("internal_upstream.no_metadata") };
}

test("passes the metadata of the endpoint on, and counts what is not there", () => {
  expect(passed(["host", "cluster"])).toMatchObject({
    out: [["tunnel", { to: "host" }]],
    missing: 1,
  });
});

test("is as secure as the transport inside", () => {
  expect([passed([]).secure, passed([], true).secure]).toEqual([false, true]);
});
