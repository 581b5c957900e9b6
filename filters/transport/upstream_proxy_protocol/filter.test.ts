import { defineTransport, Type } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import upstreamProxyProtocol from "./filter.ts";

const inner = { name: "raw", package: "transport/raw_buffer", config: {} };
const near = { ip: "127.0.0.1", port: 5 };
const far = { ip: "192.0.2.9", port: 80 };

function setup(config: object) {
  const cx = new TestContext();
  cx.definitions.set(
    inner.package,
    defineTransport({
      name: "raw",
      config: Type.Object({}),
      setup: () => ({ secure: false, connect: () => undefined }),
    }),
  );
  return cx.setup(upstreamProxyProtocol, { config, transport_socket: inner });
}

/** What a new connection begins with, and that its owner gets it. */
function begins(config: object, downstream?: object): unknown[] {
  const did: unknown[] = [];
  const socket = {
    connection: { localAddress: near, remoteAddress: far },
    write: (bytes: Uint8Array) => did.push(Buffer.from(bytes).toString("latin1")),
    ready: () => did.push("ready"),
  };
  const options = { ...(downstream && { downstream }) } as never;
  setup(config)
    .connect?.(socket as never, options)
    ?.onConnected();
  return did;
}

test("names the client ahead of everything else, or the proxy itself where there is none", () => {
  const client = { remoteAddress: { ip: "10.1.2.3", port: 1 }, localAddress: near };
  expect(begins({}, client)).toEqual(["PROXY TCP4 10.1.2.3 127.0.0.1 1 5\r\n", "ready"]);
  expect(begins({})).toEqual(["PROXY TCP4 127.0.0.1 192.0.2.9 5 80\r\n", "ready"]);
  expect(begins({ version: "V2" })).toEqual(["\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "ready"]);
});

test("names the place of a field that is no base64, or empty", () => {
  for (const value of ["*", ""]) {
    const config = {
      added_tlvs: [
        { type: 1, value: "AAE=" },
        { type: 2, value },
      ],
    };
    expect(() => setup(config), value).toThrow(
      expect.objectContaining({ path: "config.added_tlvs[1].value" }),
    );
  }
});
