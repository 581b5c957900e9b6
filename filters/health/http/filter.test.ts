import { Chunk, defineCodec, type HealthEvents, latin1Encode, Type } from "@tsproxy/sdk";
import { TestClientCodec, TestContext } from "@tsproxy/sdk/testing";
import { beforeEach, describe, expect, it } from "vitest";
import http1 from "../../codec/http1/filter.ts";
import http from "./filter.ts";

let cx: TestContext;
let codecs: TestClientCodec[];
let told: unknown[];
let verified: number;

const DEFAULTS = {
  host: "",
  path: "/hc",
  receive: [],
  response_buffer_size: 1024,
  request_headers_to_add: [],
  request_headers_to_remove: [],
  expected_statuses: [],
  retriable_statuses: [],
  codec_client_type: "HTTP1",
  method: "GET",
};
const codec = (protocol: "HTTP/1.1" | "HTTP/2") =>
  defineCodec({
    name: protocol,
    config: Type.Object({}),
    setup: () => TestClientCodec.factory(codecs, protocol),
  });

function session(config: object = {}, more: object = {}) {
  const events: HealthEvents = {
    onHealthy: ({ degraded }) => void told.push(degraded ? "degraded" : "healthy"),
    onFailure: (failure) => void told.push(failure),
  };
  const address = { ip: "10.0.0.1", port: 80 };
  const made = cx.setup(http, { ...DEFAULTS, ...config }).create(
    {
      clusterName: "c",
      address,
      hostname: "",
      reuseConnection: true,
      connect: (handler) => cx.connect(address, handler, { timeoutMs: 0 }),
      onClusterVerified: () => void verified++,
      ...more,
    },
    events,
  );
  return {
    ...made,
    check: () => {
      made.check();
      if (cx.opened.at(-1)!.connection.open && codecs.length < cx.opened.length)
        cx.opened.at(-1)!.handler.onConnected!();
    },
    onTimeout: () => made.onTimeout(),
  };
}
const last = () => codecs.at(-1)!;
const bytes = (text: string): Chunk => {
  const memory = latin1Encode(text);
  return new Chunk(memory, 0, memory.length);
};
/** What becomes of one check with that answer. */
const verdict = (config: object, status: number, headers = {}, body?: string): unknown => {
  session(config).check();
  last().respond(status, headers, body === undefined ? {} : { body: bytes(body) });
  return told.at(-1);
};

beforeEach(() => {
  codecs = [];
  told = [];
  verified = 0;
  cx = new TestContext()
    .define("codec/http1", codec("HTTP/1.1"))
    .define("codec/http2", codec("HTTP/2"));
});

it("reads the head of an answer whose body comes later, when the head's bytes are gone", () => {
  cx.define("codec/http1", http1);
  session().check();
  const { handler } = cx.opened.at(-1)!;
  const head = bytes("HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 2\r\n\r\n");
  handler.onData(head);
  head.memory.fill(0);
  handler.onData(bytes("ok"));
  expect(told).toEqual(["degraded"]);
});

describe("the question", () => {
  it("is a GET of the path with the cluster's name and Envoy's user agent", () => {
    session().check();
    expect(last().requests).toEqual([
      {
        method: "GET",
        path: "/hc",
        headers: [
          ["host", "c"],
          ["user-agent", "Envoy/HC"],
        ],
        body: "",
      },
    ]);
  });

  it("names the host of the endpoint before that of the config", () => {
    session({ host: "config.test" }).check();
    session({ host: "config.test" }, { hostname: "endpoint.test" }).check();
    const hosts = codecs.map((made) => made.requests[0]!.headers[0]![1]);
    expect(hosts).toEqual(["config.test", "endpoint.test"]);
  });

  it("carries a host and a path beyond Latin-1 as UTF-8", () => {
    session({ path: "/ж" }, { clusterName: "ж" }).check();
    const bytes = Buffer.from("ж").toString("latin1");
    expect(last().requests).toMatchObject([{ path: `/${bytes}`, headers: [["host", bytes], {}] }]);
  });

  it("takes headers, a method and a body from the config", () => {
    session({
      method: "POST",
      send: { text: "6162" },
      request_headers_to_add: [
        {
          header: { key: "x-check", value: "%UPSTREAM_HOST%" },
          append_action: "APPEND_IF_EXISTS_OR_ADD",
        },
        // As in Envoy, of the connection nothing is known to formats.
        {
          header: { key: "x-none", value: "%UPSTREAM_REMOTE_ADDRESS%" },
          append_action: "APPEND_IF_EXISTS_OR_ADD",
        },
      ],
      request_headers_to_remove: ["user-agent"],
    }).check();
    const request = last().requests[0]!;
    expect([request.method, request.body]).toEqual(["POST", "ab"]);
    expect(request.headers).toContainEqual(["x-check", "10.0.0.1:80"]);
    expect(request.headers).toContainEqual(["content-length", "2"]);
    const names = request.headers.map(([name]) => name);
    for (const name of ["x-none", "user-agent"]) expect(names).not.toContain(name);
  });

  it("goes over the same connection again, unless the peer or the config will not have it", () => {
    const kept = session();
    kept.check();
    last().respond(200);
    kept.check();
    expect([cx.opened.length, last().requests.length]).toEqual([1, 2]);
    last().respond(200, {}, { close: true });
    kept.check();
    expect(cx.opened).toHaveLength(2);
    const single = session({}, { reuseConnection: false });
    single.check();
    last().respond(200);
    single.check();
    expect(cx.opened).toHaveLength(4);
  });
});

describe("the answer", () => {
  it("of 200 alone is healthy where the config does not say", () => {
    expect(verdict({}, 200)).toBe("healthy");
    expect(verdict({}, 204)).toMatchObject({ type: "no", retriable: false, status: 204 });
    expect(verdict({ expected_statuses: [{ start: 200, end: 300 }] }, 204)).toBe("healthy");
  });

  it("of a retriable status counts towards the threshold", () => {
    const config = { retriable_statuses: [{ start: 500, end: 504 }] };
    expect(verdict(config, 503)).toMatchObject({ type: "no", retriable: true });
    expect(verdict(config, 504)).toMatchObject({ type: "no", retriable: false });
  });

  it("may say that the host is degraded, or wants to be left out", () => {
    expect(verdict({}, 200, { "x-envoy-degraded": "" })).toBe("degraded");
    const header = { "x-envoy-immediate-health-check-fail": "true" };
    expect(verdict({}, 503, header)).toMatchObject({ type: "no", immediate: true });
    expect(verdict({}, 200, header)).toBe("healthy");
  });

  it("has to hold the expected bytes within the part that is looked at", () => {
    const config = { receive: [{ text: "6f6b" }], response_buffer_size: 4 };
    expect(verdict(config, 200, {}, "x ok")).toBe("healthy");
    expect(verdict(config, 200, {}, "xxx ok")).toMatchObject({ type: "no" });
    expect(verdict(config, 200)).toMatchObject({ type: "no" });
  });

  it("has to come from the service that is meant", () => {
    const config = { service_name_matcher: { prefix: "loc" } };
    const header = "x-envoy-upstream-healthchecked-cluster";
    expect(verdict(config, 200, { [header]: "locations-production" })).toBe("healthy");
    expect(verdict(config, 200, { [header]: "other" })).toMatchObject({ type: "no" });
    expect(verdict(config, 200)).toMatchObject({ type: "no" });
    expect(verified).toBe(3);
  });

  it("that never comes is a failure of the network, and nothing once it was given up", () => {
    session().check();
    cx.opened.at(-1)!.handler.onClosed({
      by: "remote",
      phase: "connected",
      timeout: false,
      error: undefined,
    });
    expect(told).toEqual([{ type: "network" }]);
    const late = session();
    late.check();
    late.onTimeout();
    expect([told.length, cx.opened.at(-1)!.connection.open]).toEqual([1, false]);
  });
});

describe("a config", () => {
  it("is refused for ranges that hold nothing, and for a body that the method has not", () => {
    const ranges = (start: number, end: number) => () =>
      session({ expected_statuses: [{ start, end }] });
    expect(ranges(300, 300)).toThrow("expecting start < end, but found start=300 and end=300");
    expect(ranges(99, 200)).toThrow("expecting start >= 100");
    expect(ranges(500, 601)).toThrow("expecting end <= 600");
    expect(() => session({ send: { text: "00" } })).toThrow("cannot specify a request payload");
    expect(() => session({ receive: [{ text: "6f6b" }], response_buffer_size: 1 })).toThrow(
      "expected response length '2'",
    );
  });
});
