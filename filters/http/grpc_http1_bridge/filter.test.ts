import { HeaderMap, RequestHeaders, ResponseHeaders } from "@tsproxy/sdk";
import { TestContext, TestStream } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import bridge from "./filter.ts";

const FRAME = "\x00\x00\x00\x00\x05hello";

function call(config: object, type: string, protocol: "HTTP/1.1" | "HTTP/2" = "HTTP/1.1") {
  const cx = new TestContext();
  const stream = new TestStream(cx, cx.setup(bridge, config), { info: { protocol } });
  return stream.requestHeaders("POST", "/s/M?q=1", { "content-type": type }, false);
}

function trailers(...lines: string[]) {
  const map = new HeaderMap();
  for (let k = 0; k < lines.length; k += 2) map.append(lines[k]!, lines[k + 1]!);
  return map;
}

it("tells the trailers in the head, and the body's length with them", () => {
  const stream = call({}, "application/grpc").requestBody(FRAME);
  expect(stream.upstream.body).toBe(FRAME);
  stream.responseHeaders(200, { "content-type": "application/grpc" }, false);
  stream.responseBody(FRAME.slice(0, 4), false).responseBody(FRAME.slice(4), false);
  expect(stream.downstream.head).toBeUndefined();
  stream.responseTrailers(trailers("grpc-status", "0", "grpc-message", "fine"));
  expect(stream.downstream.headers).toEqual([
    ["content-type", "application/grpc"],
    ["grpc-status", "0"],
    ["grpc-message", "fine"],
    ["content-length", "10"],
  ]);
  expect(stream.downstream.body).toBe(FRAME);
  expect(stream.downstream.ended).toBe(true);
});

it("holds as much as the listener buffers", () => {
  const { filter } = call({ upgrade_protobuf_to_grpc: true }, "application/x-protobuf");
  const protobuf = new RequestHeaders();
  protobuf.append("content-type", "application/x-protobuf");
  expect(filter.onRequestHeaders?.(protobuf, false)).toMatchObject({ type: "hold", max: 0 });
  const held = filter.onResponseHeaders?.(new ResponseHeaders(), false);
  expect(held).toMatchObject({ type: "hold", max: 0 });
});

it("answers 503 when the call has failed, and when its status is no number", () => {
  for (const status of ["7", "x", ""]) {
    const stream = call({}, "application/grpc").requestBody(FRAME);
    stream.responseHeaders(200, {}, false).responseTrailers(trailers("grpc-status", status));
    expect(stream.response?.status).toBe(503);
    expect(stream.downstream.header("content-length")).toBe("0");
  }
});

it("frames protobuf on its way up, and takes the frame off the answer", () => {
  const config = { upgrade_protobuf_to_grpc: true, ignore_query_parameters: true };
  const stream = call(config, "application/x-protobuf");
  stream.requestBody("hel", false).requestBody("lo");
  expect(stream.routeCleared).toBe(1);
  expect(stream.upstream.header("content-type")).toBe("application/grpc");
  expect(stream.request.path).toBe("/s/M");
  expect(stream.upstream.body).toBe(FRAME);
  stream.responseHeaders(200, { "content-type": "application/grpc" }, false);
  stream.responseBody(FRAME, false);
  stream.responseTrailers(trailers("grpc-status", "0"));
  expect(stream.downstream.body).toBe("hello");
  expect(stream.downstream.header("content-length")).toBe("5");
});

it("leaves an answer that is no gRPC whole", () => {
  const stream = call({ upgrade_protobuf_to_grpc: true }, "application/x-protobuf");
  stream.requestBody("hello");
  stream.responseHeaders(503, { "content-type": "text/plain" }, false).responseBody("no host");
  expect(stream.downstream.body).toBe("no host");
});

it("leaves HTTP/2 and everything that is no gRPC alone", () => {
  const streams = [
    call({}, "application/grpc", "HTTP/2"),
    call({}, "application/json"),
    call({}, "application/x-protobuf"),
    call({}, "application/grpc-web"),
  ];
  for (const stream of streams) {
    stream.requestBody("{}");
    stream.responseHeaders(200, {}, false).responseBody("x", false);
    expect(stream.downstream.body).toBe("x");
    stream.responseTrailers(trailers("grpc-status", "7"));
    expect(stream.downstream.header("grpc-status")).toBeUndefined();
    expect(stream.response?.status).toBe(200);
  }
});

it("passes an answer that is a head alone as it is", () => {
  const stream = call({}, "application/grpc").requestBody(FRAME);
  stream.responseHeaders(200, { "grpc-status": "12" });
  expect(stream.response?.status).toBe(200);
  expect(stream.downstream.ended).toBe(true);
});

it("leaves the body of an answer without trailers as it is, as in Envoy", () => {
  const stream = call({ upgrade_protobuf_to_grpc: true }, "application/x-protobuf");
  stream.requestBody("hello");
  stream.responseHeaders(200, { "content-type": "application/grpc" }, false).responseBody(FRAME);
  expect(stream.downstream.body).toBe(FRAME);
});
