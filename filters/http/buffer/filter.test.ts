import { HeaderMap } from "@tsproxy/sdk";
import { chunkings, TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import buffer from "./filter.ts";

const stream = (max: number, ...routeConfigs: unknown[]) => {
  const cx = new TestContext();
  return new TestStream(cx, cx.setup(buffer, { max_request_bytes: max }), { routeConfigs });
};

it("passes a request on when its body is complete, with its length, however it was cut", () => {
  for (const chunks of chunkings("hello")) {
    const s = stream(20).requestHeaders("POST", "/", {}, false);
    expect(s.upstream.head).toBeUndefined();
    for (const [k, chunk] of chunks.entries()) s.requestBody(chunk, k === chunks.length - 1);
    expect(s.upstream.header("content-length")).toBe("5");
    expect(s.upstream.chunks).toEqual(["hello"]);
  }
});

it("leaves a length that the client gave, and requests without a body", () => {
  const given = stream(20).requestHeaders("POST", "/", { "content-length": "2" }, false);
  given.requestBody("ab");
  expect(given.upstream.headers.filter(([name]) => name === "content-length")).toHaveLength(1);
  expect(stream(20).requestHeaders("GET", "/").upstream.header("content-length")).toBeUndefined();
});

it("tells the length of a body that ends with trailers", () => {
  const s = stream(20).requestHeaders("POST", "/", {}, false).requestBody("abc", false);
  expect(s.upstream.head).toBeUndefined();
  s.requestTrailers(new HeaderMap());
  expect(s.upstream.header("content-length")).toBe("3");
  expect(s.upstream.trailers).toBeDefined();
});

it("refuses what is longer than the limit, and takes what is just as long", () => {
  const s = stream(4).requestHeaders("POST", "/", {}, false).requestBody("abcd", false);
  expect(s.tooLarge).toBeUndefined();
  expect(s.requestBody("e").tooLarge).toBe("request");
  expect(stream(4).requestHeaders("POST", "/", {}, false).requestBody("abcd").upstream.body).toBe(
    "abcd",
  );
});

it("does not count a body of HTTP/2 that comes as one chunk, as in Envoy", () => {
  const cx = new TestContext();
  const http2 = () =>
    new TestStream(cx, cx.setup(buffer, { max_request_bytes: 4 }), {
      info: { protocol: "HTTP/2" },
    }).requestHeaders("POST", "/", {}, false);
  expect(http2().requestBody("abcdef").upstream.body).toBe("abcdef");
  expect(http2().requestBody("abcde", false).tooLarge).toBe("request");
  expect(http2().requestBody("a", false).requestBody("bcde").tooLarge).toBe("request");
});

it("has another limit, or none, where the most specific route config says so", () => {
  const more = stream(4, { disabled: true }, { buffer: { max_request_bytes: 6 } });
  expect(more.requestHeaders("POST", "/", {}, false).requestBody("abcdef").upstream.body).toBe(
    "abcdef",
  );
  const off = stream(4, { disabled: true }).requestHeaders("POST", "/", {}, false);
  expect(off.upstream.head).toBeDefined();
  off.requestBody("abcdef");
  expect(off.upstream.header("content-length")).toBeUndefined();
});

it("refuses a route config that says nothing or both", () => {
  const both = { disabled: true, buffer: { max_request_bytes: 1 } };
  for (const config of [{}, both])
    expect(() => stream(4, config).routeConfigs).toThrow("give one of disabled and buffer");
});
